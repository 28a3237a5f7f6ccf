"""The structure of JSON Lines: duckdb counts the plain rows, Python reads every line that the two may see differently.

The text is cut into segments of some megabytes, which duckdb takes as Arrow columns (place, line) without a copy;
memory is that of two segments, whatever the file's size. counting.py says which lines go to Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..rows import Row
from ..shape import Group, Turns
from ..sources.json_text import Reader, read_lines
from ..sources.packed import open_utf8
from .counting import Counter, is_plain
from .foreseen import foresee
from .segments import segments
from .tally import Questions, Tally

if TYPE_CHECKING:
    import duckdb

_HEAD: Final = 1000  # rows by which questions are foreseen


class LineStructure:
    """The structure of JSON Lines files, which are read once for what is foreseen, and again for other questions."""

    def __init__(self, files: Sequence[tuple[str, Path, str]]) -> None:
        """Look at the files when they are first asked for; each has a prefix for places, a path, and a name."""
        self._files = list(files)
        self._has_marks = False  # "<" stands in some line, as in all the marks that detection looks for

    @property
    def rows(self) -> int:
        """As Structure.rows."""
        return self._first.rows

    @cached_property
    def groups(self) -> list[Group]:
        """As Structure.groups."""
        return self._first.groups()

    def values(self, path: str, most: int = 20) -> dict[str, int] | None:
        """As Structure.values, for up to MOST_VALUES."""
        tally = self._first if path in self._first.questions.values else self._tally(Questions(values=(path,)))
        counts = tally.values_at(path)
        return counts if counts is not None and len(counts) <= most else None

    def turns(self, path: str, role: str) -> Turns:
        """As Structure.turns."""
        asked = (path, role)
        tally = self._first if asked in self._first.questions.turns else self._tally(Questions(turns=(asked,)))
        return tally.turns_at(path, role)

    def containing(self, path: str, text: str) -> int:
        """As Structure.containing."""
        asked = Questions(containing=((path, text),))
        if "<" in text and text.isascii() and self._first.rows and not self._has_marks:
            return 0
        tally = self._tally(asked) if is_plain(text) else self._read(asked)
        return tally.containing[path, text]

    @cached_property
    def _first(self) -> Tally:
        return self._tally(foresee(self._head()))

    def _head(self) -> Iterator[Row]:
        reader = Reader()
        for _, path, name in self._files:
            with open_utf8(path, name) as lines:
                yield from (row for _, row, *_ in read_lines(islice(lines, _HEAD), name, reader) if row is not None)

    def _read(self, questions: Questions) -> Tally:
        """Count in Python, a row at a time."""
        tally = Tally(questions)
        reader = Reader()
        for _, path, name in self._files:
            with open_utf8(path, name) as lines:
                for place, row, *_ in read_lines(lines, name, reader):
                    if row is not None:
                        tally.add_row(int(place), place, row)
        return tally

    def _tally(self, questions: Questions) -> Tally:
        tally = Tally(questions)
        with _connection() as connection, ThreadPoolExecutor(1) as ahead:
            known = KnownCounter(connection, self._template if can_answer(self._template, questions) else None)
            counter = Counter(connection)
            found = segments(self._files)
            following = ahead.submit(next, found, None)
            while (segment := following.result()) is not None:
                following = ahead.submit(next, found, None)
                self._has_marks = self._has_marks or segment.may_contain("<")
                counter.count(segment, tally)
        return tally


def _connection() -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect()
    connection.execute("set preserve_insertion_order = false")
    connection.execute("set enable_progress_bar = false")
    return connection
