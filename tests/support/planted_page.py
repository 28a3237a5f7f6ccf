"""The planted faults of letters D and T together, and docs/planted-faults.md, which their counts make.

python -m tests.support.planted_page
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.planted import Case, Count, count, table

PAGE = Path(__file__).parents[2] / "docs" / "planted-faults.md"
LETTERS = {"D": "Data", "T": "Tokens and template"}
HEAD = """# Planted faults

For each rule on data (D) and on tokens and templates (T), a fault was planted in data, a template or a setting that is
otherwise good; tunesmith was run on it, and in the same way on a twin without the fault. *Found* counts the faults at
which the rule reported; *false alarms* counts what was reported on the clean twins, by any of these rules.

The cases are tests (`tests/support/planted_*.py`): one that isn't found, a clean twin that is accused, or a rule
without a case fails them. What each rule means: [rules.md](rules.md). `make docs` writes this page.
"""


def cases_of(letter: str) -> list[Case]:
    """All planted faults of a letter's rules; those of T import torch."""
    if letter == "T":
        from tests.support.planted_tokens import TOKEN_CASES

        return TOKEN_CASES
    from tests.support.planted_data import DATA_CASES
    from tests.support.planted_quality import QUALITY_CASES

    return [*DATA_CASES, *QUALITY_CASES]


def section(letter: str, counts: Sequence[Count]) -> str:
    """The part of the page on a letter's rules."""
    return f"\n## {letter}: {LETTERS[letter]}\n\n{table(counts)}"


def main() -> None:
    """Run all cases, and write the page."""
    sections = []
    for letter in LETTERS:
        with tempfile.TemporaryDirectory() as folder:
            sections.append(section(letter, count(cases_of(letter), Path(folder))))
    PAGE.write_text(HEAD + "".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
