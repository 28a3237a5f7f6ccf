"""The structure of rows: which keys hold which kinds of values, and what a few columns hold, over all rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Final, Protocol

from .rows import Place, Row, kind_of

PLACES: Final = 5
"""Places of a shape's rows that are kept."""
MOST_SHAPES: Final = 1000
"""More shapes than these come from data used as keys; they are then told apart by their upper levels only."""
_LEVELS: Final = 3  # levels of keys that tell exploding shapes apart at first

Ordered = tuple[int, Place]
"""A row's place with its number among all rows, by which places are ordered."""


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
        return self._by_key.get(key)

    @cached_property
    def _by_key(self) -> dict[str, Shape]:
        return dict(self.keys)


NULL = Shape("null")


_SCALARS: Final[dict[type, Shape]] = {
    str: Shape("text"),
    int: Shape("number"),
    float: Shape("number"),
    bool: Shape("boolean"),
    type(None): NULL,
}
_KNOWN: Final[dict[tuple[Any, ...], tuple[Shape, list[Shape]]]] = {}
"""Shapes of objects and lists by their keys and the ids of the shapes below, which are held: ids stay theirs."""
_MOST_KNOWN: Final = 10_000


def shape_of(value: Any) -> Shape:
    """The shape of a JSON value; of values alike, mostly the same object."""
    scalar = _SCALARS.get(type(value))
    if scalar is not None:
        return scalar
    kind = kind_of(value)
    if kind == "object":
        below = [_SCALARS.get(type(item)) or shape_of(item) for item in value.values()]
        name = (*value, *map(id, below))
    elif kind == "list":
        below = list({id(shape): shape for shape in map(shape_of, value)}.values())
        name = (None, *map(id, below))
    else:
        return Shape(kind)
    known = _KNOWN.get(name)
    if known is None:
        if kind == "object":
            shape = Shape(kind, tuple(sorted(zip(value, below, strict=True))))
        else:
            shape = Shape(kind, items=reduce(merged, below) if below else None)
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        known = _KNOWN[name] = shape, below
    return known[0]


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


@dataclass
class _Found:
    rows: int
    places: list[Ordered]
    example: Row | None


class ShapeCounts:
    """Rows by shape; of more than MOST_SHAPES, by as many upper levels of the shapes as leave no more than that."""

    def __init__(self) -> None:
        self._found: dict[Shape, _Found] = {}
        self._levels: int | None = None

    def add(self, shape: Shape, rows: int, places: Sequence[Ordered], example: Row | None) -> None:
        """Count rows of one shape, with their first `places`, and the first of them where it may be needed."""
        self._put(self._coarse(shape), _Found(rows, list(places), example))
        while len(self._found) > MOST_SHAPES and self._levels != 0:
            self._levels = _LEVELS if self._levels is None else self._levels - 1
            finer, self._found = self._found, {}
            for old, held in finer.items():
                self._put(self._coarse(old), held)

    def groups(self) -> list[Group]:
        """The rows by shape, the most frequent first."""
        made = [
            Group(shape, found.rows, [place for _, place in found.places], found.example or {})
            for shape, found in self._found.items()
        ]
        return sorted(made, key=lambda group: (-group.rows, self._found[group.shape].places[0][0]))

    def _coarse(self, shape: Shape) -> Shape:
        return shape if self._levels is None else coarse(shape, self._levels)

    def _put(self, shape: Shape, new: _Found) -> None:
        found = self._found.get(shape)
        if found is None:
            self._found[shape] = new
            return
        if new.places and new.places < found.places:
            found.example = new.example
        found.rows += new.rows
        found.places = sorted([*found.places, *new.places])[:PLACES]


def coarse(shape: Shape, levels: int) -> Shape:
    """A shape without the keys and items that lie deeper than `levels`."""
    if levels == 0:
        return Shape(shape.kind)
    items = coarse(shape.items, levels - 1) if shape.items is not None else None
    return Shape(shape.kind, tuple((key, coarse(below, levels - 1)) for key, below in shape.keys), items)


class RowStructure:
    """The structure of rows held in memory."""

    def __init__(self, rows: Sequence[Row], places: Sequence[Place] | None = None) -> None:
        """Look at `rows`, whose numbers in the file are `places` (default: counted from 1)."""
        self._rows = rows
        places = places or range(1, len(rows) + 1)
        # Shapes are looked up by id, as to hash one takes longer than to find it; what has an id here stays alive.
        found: dict[int, tuple[Shape, list[int]]] = {}
        for index, shape in enumerate(map(shape_of, rows)):
            found.setdefault(id(shape), (shape, []))[1].append(index)
        counts = ShapeCounts()
        for shape, at in found.values():
            counts.add(shape, len(at), [(index, places[index]) for index in at[:PLACES]], rows[at[0]])
        self.groups = counts.groups()

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
    """A value as text: a text as it is, anything else as JSON, in which dates and the like are texts."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _speakers(turns: Any, role: str) -> list[str]:
    if not isinstance(turns, list):
        return []
    return [as_text(turn.get(role)) for turn in turns if isinstance(turn, dict)]
