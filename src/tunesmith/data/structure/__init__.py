"""The structure of files, in memory that doesn't grow with them: duckdb reads JSON Lines, Python everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..rows import Numbered
from ..shape import Structure
from .streamed import StreamedStructure


def of_lines(files: Sequence[tuple[str, Path, str]]) -> Structure:
    """The structure of JSON Lines files; each is given by what stands before its rows' numbers, its path and its name.

    Raises:
        FindingsError: D003, a line isn't UTF-8; D001, D022, a file can't be unpacked.
    """
    from .lines import LineStructure

    return LineStructure(files)


def of_rows(rows: Callable[[], Iterator[Numbered]]) -> Structure:
    """The structure of the rows that `rows` streams at each call."""
    return StreamedStructure(rows)


__all__ = ["of_lines", "of_rows"]
