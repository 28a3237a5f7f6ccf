"""The structure of rows: which keys hold which kinds of values, and what a few columns hold, over all rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

from .rows import Place, Row, kind_of

_PLACES = 5


@dataclass(frozen=True)
class Shape:
    """The structure of a JSON value.

    Attributes:
        kind: text, number, boolean, null, object, list, or mixed (of items of a list that have nothing in common).
        keys: The keys of an object with the shapes of their values, sorted by key.
        items: The shape that all items of a list have together; None for a list without items.
    """

    kind: str
    keys: tuple[tuple[str, Shape], ...] = ()
    items: Shape | None = None

    def get(self, key: str) -> Shape | None:
        """The shape under a key of an object; None without that key."""
        return dict(self.keys).get(key)


NULL = Shape("null")


def shape_of(value: Any) -> Shape:
    """The shape of a JSON value."""
    kind = kind_of(value)
    if kind == "object":
        return Shape(kind, tuple(sorted((key, shape_of(item)) for key, item in value.items())))
    if kind == "list":
        return Shape(kind, items=reduce(merged, map(shape_of, value)) if value else None)
    return Shape(kind)


def merged(one: Shape, other: Shape) -> Shape:
    """The shape of items of which some have one shape and some another: keys are united, null gives way."""
    if one == other or other.kind == "null":
        return one
    if one.kind == "null":
        return other
    if one.kind != other.kind:
        return Shape("mixed")
    if one.kind == "list":
        items = [shape for shape in (one.items, other.items) if shape is not None]
        return Shape("list", items=reduce(merged, items) if items else None)
    keys = dict(one.keys)
    for key, shape in other.keys:
        keys[key] = merged(keys[key], shape) if key in keys else shape
    return Shape(one.kind, tuple(sorted(keys.items())))


@dataclass(frozen=True)
class Group:
    """The rows that have one shape.

    Attributes:
        shape: Their shape, an object's.
        rows: How many they are.
        places: Numbers of a few of them in the file.
        example: One of them.
    """

    shape: Shape
    rows: int
    places: list[Place]
    example: Row


@dataclass(frozen=True)
class Turns:
    """Who speaks in the conversations of one column, in the file's own spelling of roles.

    Attributes:
        rows: Rows with a conversation of one turn at least.
        roles: Role -> rows in which it speaks.
        first: Role of the first turn -> rows.
        last: Role of the last turn -> rows.
    """

    rows: int
    roles: dict[str, int]
    first: dict[str, int]
    last: dict[str, int]


class Structure(Protocol):
    """All rows of a source, asked for their structure; paths are keys joined by dots, through objects only."""

    @property
    def rows(self) -> int:
        """Number of readable rows."""
        ...

    @property
    def groups(self) -> Sequence[Group]:
        """The rows by shape, the most frequent first."""
        ...

    def values(self, path: str, most: int = 20) -> dict[str, int] | None:
        """The distinct values at `path` -> rows; None for more than `most` of them.

        Values are given as text: a text as it is, others as JSON; what is absent counts as null.
        """
        ...

    def turns(self, path: str, role: str) -> Turns:
        """Who speaks in the conversations at `path`, whose turns name the speaker under the key `role`."""
        ...

    def containing(self, path: str, text: str) -> int:
        """Number of rows whose value at `path`, a text or anything else as JSON, contains `text`."""
        ...


class RowStructure:
    """The structure of rows held in memory."""

    def __init__(self, rows: Sequence[Row], places: Sequence[Place] | None = None) -> None:
        """Look at `rows`, whose numbers in the file are `places` (default: counted from 1)."""
        self._rows = rows
        self._places = places or range(1, len(rows) + 1)
        found: dict[Shape, list[int]] = {}
        for index, row in enumerate(rows):
            found.setdefault(shape_of(row), []).append(index)
        groups = [
            Group(shape, len(at), [self._places[index] for index in at[:_PLACES]], rows[at[0]])
            for shape, at in found.items()
        ]
        self.groups = sorted(groups, key=lambda group: (-group.rows, group.places))

    @property
    def rows(self) -> int:
        """As Structure.rows."""
        return len(self._rows)

    def values(self, path: str, most: int = 20) -> dict[str, int] | None:
        """As Structure.values."""
        counts = Counter(as_text(value_at(row, path)) for row in self._rows)
        return dict(counts) if len(counts) <= most else None

    def turns(self, path: str, role: str) -> Turns:
        """As Structure.turns."""
        spoken = [_speakers(value_at(row, path), role) for row in self._rows]
        spoken = [speakers for speakers in spoken if speakers]
        return Turns(
            len(spoken),
            dict(Counter(name for speakers in spoken for name in set(speakers))),
            dict(Counter(speakers[0] for speakers in spoken)),
            dict(Counter(speakers[-1] for speakers in spoken)),
        )

    def containing(self, path: str, text: str) -> int:
        """As Structure.containing."""
        return sum(text in as_text(value_at(row, path)) for row in self._rows)


def value_at(row: Row, path: str) -> Any:
    """The value at a path of keys joined by dots; None where the path leads nowhere."""
    value: Any = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def as_text(value: Any) -> str:
    """A value as text: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _speakers(turns: Any, role: str) -> list[str]:
    if not isinstance(turns, list):
        return []
    return [as_text(turn.get(role)) for turn in turns if isinstance(turn, dict)]
