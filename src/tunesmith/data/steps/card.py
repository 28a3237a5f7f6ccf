"""The dataset's card: what it is, how it was made, and for `datasets` which file is which split."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from ...records.preparation import Preparation


def card(record: Preparation) -> str:
    """README.md of the dataset's folder. A licence is for the owner of the rows to name."""
    files = [{"split": split, "path": file.name} for split, file in record.files.items()]
    head = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False)
    steps = [
        (step.name, f"{step.rows_in:,}", f"{step.rows_out:,}", "; ".join(_reasons(step.reasons)))
        for step in record.steps
    ]
    sizes = [(split, file.name, f"{file.rows:,}", f"{file.bytes:,}") for split, file in record.files.items()]
    return "\n".join(
        [
            f"---\n{head}---\n",
            "# Dataset\n",
            f"Made by tunesmith {record.versions['tunesmith']} for `{record.settings.method}`; "
            f"columns: {', '.join(record.columns)}. No licence is stated here: name that of the rows.\n",
            _table(("split", "file", "rows", "bytes"), sizes),
            _table(("step", "rows in", "rows out", "why rows went"), steps),
            "Settings, fingerprints of sources and files, and versions: `manifest.json`.\n",
        ]
    )


def _reasons(reasons: dict[str, int]) -> list[str]:
    return [f"{count:,} {reason}" for reason, count in reasons.items()]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """Text that can't leave its cell or become a link or HTML; names of columns come from the data."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
    return " ".join(escaped.split())
