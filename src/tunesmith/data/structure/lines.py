"""The structure of JSON Lines: duckdb counts the plain rows, Python reads every line that the two may see differently.

The text is cut into segments of some megabytes, which duckdb takes as Arrow columns (place, line) without a copy;
memory is that of a few segments, whatever the file's size. Rows that fit a template of the first ones are counted by
known.py, exactly; of the others, a few are read in Python, and counting.py takes what is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from .known import Answer, KnownCounter, read_rows, template_of
from .segments import segments
from .tally import Questions, Tally
from .template import Template
from .template_query import can_answer

if TYPE_CHECKING:
    import duckdb

_HEAD: Final = 1000  # rows by which questions are foreseen

_THREADS: Final = 2  # that ask duckdb, which takes a segment in one thread
_AHEAD: Final = 2  # segments held in memory


class LineStructure:
    """The structure of JSON Lines files, which are read once for what is foreseen, and again for other questions."""

    def __init__(self, files: Sequence[tuple[str, Path, str]]) -> None:
        """Look at the files when they are first asked for; each has a prefix for places, a path, and a name."""
        self._files = list(files)
        self._template: Template | None = None
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
        if (path, text) in self._first.questions.containing:
            return self._first.containing[path, text]
        if "<" in text and text.isascii() and not self._has_marks:
            return 0
        asked = Questions(containing=((path, text),))
        tally = self._tally(asked) if is_plain(text) or self._can_answer(asked) else self._read(asked)
        return tally.containing[path, text]

    @cached_property
    def _first(self) -> Tally:
        head = list(self._head())
        self._template = template_of(head)
        return self._tally(foresee(head))

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

    def _can_answer(self, questions: Questions) -> bool:
        return self._template is not None and can_answer(self._template, questions)

    def _tally(self, questions: Questions) -> Tally:
        tally = Tally(questions)
        plain = all(is_plain(text) for _, text in questions.containing)
        with _connection() as connection, ThreadPoolExecutor(_THREADS) as pool:
            known = KnownCounter(connection, self._template if self._can_answer(questions) else None)
            counter = Counter(connection)
            asked: deque[Future[Answer]] = deque()
            found = segments(self._files)
            while True:
                if (segment := next(found, None)) is not None:
                    self._has_marks = self._has_marks or segment.may_contain("<")
                    asked.append(pool.submit(known.ask, segment, questions))
                    if len(asked) < _AHEAD:
                        continue
                if not asked:
                    break
                others = known.add(asked.popleft().result(), tally)
                if others is not None:
                    counter.count(others, tally) if plain else read_rows(others, tally)
        self._template = known.template or self._template
        return tally


def _connection() -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect()
    connection.execute("set preserve_insertion_order = false")
    connection.execute("set threads = 1")
    connection.execute("set enable_progress_bar = false")
    return connection
