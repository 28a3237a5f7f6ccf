"""Rows with their numbers in the file, what is wrong with one, and how findings name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]
Place = int | str
"""A row's number in its file (line or row, counted from 1); with several files "name:number"."""

_SHOWN = 5


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


def name_places(places: Sequence[Place]) -> str:
    """The first row numbers and how many more there are: "3, 7, 12, 13, 20 and 4 more"."""
    shown = ", ".join(str(place) for place in places[:_SHOWN])
    return shown if len(places) <= _SHOWN else f"{shown} and {len(places) - _SHOWN} more"
