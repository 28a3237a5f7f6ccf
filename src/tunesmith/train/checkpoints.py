"""Which checkpoints count: one is complete once its marker is written, and the marker lists its files' sizes.

Transformers writes a checkpoint file by file, without an atomic rename; a process killed meanwhile leaves a folder that
looks like a checkpoint and crashes the resume. So nothing counts before its marker.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..files import write_atomic

MARKER = "complete.json"
FOLDER = "checkpoints"


def mark_complete(checkpoint: Path) -> None:
    """Write the marker; call it when the library has written everything."""
    sizes = {str(file.relative_to(checkpoint)): file.stat().st_size for file in _files(checkpoint)}
    write_atomic(checkpoint / MARKER, json.dumps(sizes, indent=2, sort_keys=True) + "\n")


def is_complete(checkpoint: Path) -> bool:
    """Whether the marker is there and every file it lists has its size."""
    try:
        sizes = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(sizes, dict)
        and bool(sizes)
        and all(
            (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in sizes.items()
        )
    )


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def all_checkpoints(run: Path) -> list[Path]:
    """Every checkpoint folder of a run, complete or not, oldest first."""
    found = [path for path in (run / FOLDER).glob("checkpoint-*") if path.is_dir()]
    return sorted((path for path in found if path.name.rpartition("-")[2].isdecimal()), key=step_of)


def last_complete(run: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    complete = [path for path in all_checkpoints(run) if is_complete(path)]
    return complete[-1] if complete else None


def remove_torn(run: Path) -> list[str]:
    """Delete checkpoints that aren't complete and return their names; nobody can resume from them."""
    torn = [path for path in all_checkpoints(run) if not is_complete(path)]
    for path in torn:
        shutil.rmtree(path)
    return [path.name for path in torn]


def _files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MARKER)
