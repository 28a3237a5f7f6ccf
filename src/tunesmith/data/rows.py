"""Rows with their numbers in the file, what is wrong with one, and how findings name them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

Row = dict[str, Any]
Place = int | str
"""A row's number in its file (line or row, counted from 1); with several files "name:number"."""

_SHOWN = 5
_NAMED = 20


COLUMNS: Final = "__columns__"
"""Where a prepared row keeps columns of the raw one that aren't trained on: the evaluation reads them, no trainer."""


def without_columns(row: Row) -> Row:
    """A prepared row as a trainer gets it."""
    return {name: value for name, value in row.items() if name != COLUMNS}


class Numbered(NamedTuple):
    """A row as a source gives it: its place, and the row, or why it is none and what stands there."""

    place: Place
    row: Row | None
    problem: str | None = None
    text: str | None = None


class BadRowError(Exception):
    """A row that can't be trained on: the code of the rule, the field, and what was found there."""

    def __init__(self, code: str, field: str, found: str = "") -> None:
        super().__init__(f"{code} {field} {found}")
        self.code = code
        self.field = field
        self.found = found


def kind_of(value: Any) -> str:
    """The type of a value in plain words: text, number, boolean, list, object, null; other types by their name."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    for types, name in ((str, "text"), ((int, float), "number"), (list, "list"), (dict, "object")):
        if isinstance(value, types):
            return name
    return type(value).__name__


def name_columns(columns: Collection[str]) -> str:
    """The first columns and how many more there are: "a, b, c and 4 more"."""
    more = len(columns) - _NAMED
    return ", ".join(islice(columns, _NAMED)) + (f" and {more:,} more" if more > 0 else "")


def name_places(places: Sequence[Place], left_out: int = 0) -> str:
    """The first row numbers and how many more there are: "row 3", "rows 3, 7, 12, 13, 20 and 4 more".

    Args:
        places: The numbers.
        left_out: How many more there are besides.
    """
    shown = ", ".join(str(place) for place in places[:_SHOWN])
    more = max(0, len(places) - _SHOWN) + left_out
    return f"{'row' if len(places) + left_out == 1 else 'rows'} {shown}" + (f" and {more:,} more" if more else "")
