"""What the columns of raw rows hold, over all rows."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..records import Column
from .shape import Group

_EXAMPLE = 60
_LOOKED_AT = 4_000


@dataclass
class Profile:
    """One column over all rows.

    Attributes:
        kinds: Kinds of its non-null values with their numbers of rows, the most frequent shape's first.
        first: A non-null value.
    """

    kinds: dict[str, int] = field(default_factory=dict)
    first: Any = None

    @property
    def values(self) -> int:
        """Number of non-null values."""
        return sum(self.kinds.values())

    @property
    def type(self) -> str:
        """The one kind of its values, "mixed", or "null" when there are none."""
        return "mixed" if len(self.kinds) > 1 else next(iter(self.kinds), "null")


def profile(groups: Iterable[Group]) -> dict[str, Profile]:
    """The columns of the rows of all shapes, in the order of the examples."""
    profiles: dict[str, Profile] = {}
    for group in groups:
        kinds = {name: shape.kind for name, shape in group.shape.keys}
        for name in dict.fromkeys([*group.example, *kinds]):
            column = profiles.setdefault(name, Profile())
            kind = kinds.get(name, "null")
            if kind == "null":
                continue
            if not column.kinds:
                column.first = group.example.get(name)
            column.kinds[kind] = column.kinds.get(kind, 0) + group.rows
    return profiles


def describe(profiles: dict[str, Profile], rows: int) -> list[Column]:
    """The columns as a report shows them; `rows` is the number of all rows."""
    return [
        Column(name=shorten(name), type=column.type, nulls=rows - column.values, example=shorten(column.first))
        for name, column in profiles.items()
    ]


def shorten(value: Any, most: int = _EXAMPLE) -> str:
    """`value` as one line of at most `most` characters, safe to print: no control characters, nothing private."""
    from .quality.private import hidden

    text = value if isinstance(value, str) else "" if value is None else _as_json(value, most)
    # Cut before cleaning: a value may be megabytes long. Cleaning only ever shortens it.
    clean = " ".join("".join(_printable(character) for character in hidden(text[:_LOOKED_AT])[: 4 * most]).split())
    return clean if len(clean) <= most and len(text) <= 4 * most else clean[: most - 1] + "…"


def _as_json(value: Any, most: int) -> str:
    if isinstance(value, list):
        value = value[:most]
    return json.dumps(value, ensure_ascii=False, default=str)


def _printable(character: str) -> str:
    return " " if unicodedata.category(character)[0] in "CZ" else character
