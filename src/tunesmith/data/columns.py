"""What the columns of raw rows hold, over all rows."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..records import Column
from .rows import Row, kind_of
from .turns import is_chat, is_exchanges

_EXAMPLE = 60


@dataclass
class Profile:
    """One column over all rows.

    Attributes:
        kinds: Kinds of its non-null values, in order of appearance, with their numbers.
        first: The first non-null value.
        chat: The first value that is a conversation, as a list of turns.
    """

    kinds: dict[str, int] = field(default_factory=dict)
    first: Any = None
    chat: list[Row] | None = None

    @property
    def values(self) -> int:
        """Number of non-null values."""
        return sum(self.kinds.values())

    @property
    def type(self) -> str:
        """The one kind of its values, "mixed", or "null" when there are none."""
        return "mixed" if len(self.kinds) > 1 else next(iter(self.kinds), "null")


def profile(rows: Sequence[Row]) -> dict[str, Profile]:
    """The columns of all rows, in order of appearance."""
    profiles: dict[str, Profile] = {}
    for row in rows:
        for name, value in row.items():
            column = profiles.get(name)
            if column is None:
                column = profiles[name] = Profile()
            if value is None:
                continue
            kind = kind_of(value)
            if not column.kinds:
                column.first = value
            column.kinds[kind] = column.kinds.get(kind, 0) + 1
            if kind == "list" and column.chat is None and (is_chat(value) or is_exchanges(value)):
                column.chat = value
    return profiles


def describe(profiles: dict[str, Profile], rows: int) -> list[Column]:
    """The columns as a report shows them; `rows` is the number of all rows."""
    return [
        Column(name=shorten(name), type=column.type, nulls=rows - column.values, example=shorten(column.first))
        for name, column in profiles.items()
    ]


def shorten(value: Any, most: int = _EXAMPLE) -> str:
    """`value` as one line of at most `most` characters without control characters, safe to print on a terminal."""
    text = value if isinstance(value, str) else "" if value is None else _as_json(value, most)
    # Cut before cleaning: a value may be megabytes long. Cleaning only ever shortens it.
    clean = " ".join("".join(_printable(character) for character in text[: 4 * most]).split())
    return clean if len(clean) <= most and len(text) <= 4 * most else clean[: most - 1] + "…"


def _as_json(value: Any, most: int) -> str:
    if isinstance(value, list):
        value = value[:most]
    return json.dumps(value, ensure_ascii=False, default=str)


def _printable(character: str) -> str:
    return " " if unicodedata.category(character)[0] in "CZ" else character
