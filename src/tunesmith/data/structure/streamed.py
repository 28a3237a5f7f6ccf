"""The structure of rows that are streamed, a pass for each question that wasn't foreseen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

from ..rows import Numbered
from ..shape import Group, Turns
from .tally import Questions, Tally


class StreamedStructure:
    """The structure of rows that come from a function, as often as it is called."""

    def __init__(self, rows: Callable[[], Iterator[Numbered]]) -> None:
        """Look at the rows when they are first asked for."""
        self._stream = rows

    def _tally(self, questions: Questions) -> Tally:
        tally = Tally(questions)
        for index, (place, row, *_) in enumerate(self._stream()):
            if row is not None:
                tally.add_row(index, place, row)
        return tally

    @cached_property
    def _shapes(self) -> Tally:
        return self._tally(Questions())

    @property
    def rows(self) -> int:
        """As Structure.rows."""
        return self._shapes.rows

    @cached_property
    def groups(self) -> list[Group]:
        """As Structure.groups."""
        return self._shapes.groups()

    def values(self, path: str, most: int = 20) -> dict[str, int] | None:
        """As Structure.values, for up to MOST_VALUES."""
        counts = self._tally(Questions(values=(path,))).values_at(path)
        return counts if counts is not None and len(counts) <= most else None

    def turns(self, path: str, role: str) -> Turns:
        """As Structure.turns."""
        return self._tally(Questions(turns=((path, role),))).turns_at(path, role)

    def containing(self, path: str, text: str) -> int:
        """As Structure.containing."""
        return self._tally(Questions(containing=((path, text),))).containing[path, text]
