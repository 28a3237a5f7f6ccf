"""What is known of a file's columns beyond the shape of a single row: who speaks, which values stand there."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cached_property

from ..paths import LETTERS
from ..shape import Shape, Structure, Turns, as_text, value_at
from ..turns import CONTENT_KEYS, FUNCTION_CALLS, ROLE_KEYS, ROLES, exchange_keys, key_of, role_of
from .names import CHATS, mark

_MOST_LABELS = 1000
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{2,4}( .*)?|\d\d?:\d\d(:\d\d)?")
_FEW = 0.05  # up to this share, numbers other than 0 and 1 are slips; beyond it, they make a scale or classes
_STRICT = (("role", "content"), ("from", "value"))


class Facts:
    """A structure, asked each question once."""

    def __init__(self, structure: Structure, filtered: Collection[str] = ()) -> None:
        """Ask `structure`; rows are kept by the values of the columns `filtered`, which thus mark nothing any more."""
        self.structure = structure
        self._filtered = filtered
        self._labels: dict[str, dict[str, int]] = {}
        self._transcripts: dict[str, bool] = {}
        self._turns: dict[tuple[str, str], Turns] = {}

    def label_values(self, path: str) -> dict[str, int]:
        """The values of a column that marks answers as good or bad -> rows; none where most of it is anything else.

        What is neither good nor bad in it stays among them: rows with such a value are bad rows, not rows without mark.
        """
        if path not in self._labels:
            found = {} if path in self._filtered else self.structure.values(path, _MOST_LABELS) or {}
            values = {value: rows for value, rows in found.items() if value != "null"}
            self._labels[path] = values if _are_marks(values) else {}
        return self._labels[path]

    def is_letters(self, path: str) -> bool:
        """Whether all values of a column are single capital letters, as they name one of several choices."""
        values = (self.structure.values(path, len(LETTERS) + 1) or {}).keys() - {"null"}
        return bool(values) and values <= set(LETTERS)

    def is_dates(self, path: str) -> bool:
        """Whether the values of a column in the first row of each kind are dates or times."""
        found = [as_text(value_at(group.example, path)) for group in self.structure.groups]
        found = [value.strip() for value in found if value != "null"]
        return bool(found) and all(map(_DATE.fullmatch, found))

    def is_transcript(self, path: str) -> bool:
        """Whether most texts at `path` are conversations written out, with speakers before the turns."""
        if path not in self._transcripts:
            pairs = (("USER:", "ASSISTANT:"), ("\n\nHuman:", "\n\nAssistant:"), ("Human:", "Assistant:"))
            most = max(min(self.structure.containing(path, mark) for mark in pair) for pair in pairs)
            self._transcripts[path] = 2 * most > self.structure.rows
        return self._transcripts[path]

    def turns(self, path: str, key: str) -> Turns:
        """Who speaks in the conversations at `path`, whose turns name the speaker under `key`."""
        if (path, key) not in self._turns:
            self._turns[path, key] = self.structure.turns(path, key)
        return self._turns[path, key]

    def answered(self, path: str, key: str) -> tuple[int, int]:
        """How many of the conversations at `path` end with the assistant, and how many there are."""
        turns = self.turns(path, key)
        return _rows_of(turns.last, "assistant", *FUNCTION_CALLS), turns.rows

    def begins_asking(self, path: str, key: str) -> bool:
        """Whether most of the conversations at `path` begin with something else than an answer."""
        turns = self.turns(path, key)
        return 2 * _rows_of(turns.first, "system", "user") > turns.rows

    @cached_property
    def keys(self) -> frozenset[str]:
        """All columns of the file."""
        return frozenset(key for group in self.structure.groups for key, _ in group.shape.keys)

    @cached_property
    def full(self) -> frozenset[str]:
        """The columns that are text in all rows."""
        texts = [{key for key, inner in group.shape.keys if inner.kind == "text"} for group in self.structure.groups]
        return frozenset(set.intersection(*texts)) if texts else frozenset()

    def is_chat(self, path: str, shape: Shape) -> bool:
        """Whether values of `shape` at `path` are conversations."""
        if shape.kind != "list" or shape.items is None:
            return False
        items = shape.items
        if items.kind == "list":
            return path.rpartition(".")[2] in CHATS and items.items is not None
        keys = [key for key, inner in items.keys if inner.kind != "null"]
        if exchange_keys(keys):
            return True
        role = key_of(keys, ROLE_KEYS)
        if role is None or not (key_of(keys, CONTENT_KEYS) or {"tool_calls", "function_call"} & set(keys)):
            return False
        if any(role == named and content in keys for named, content in _STRICT):
            return True
        spoken = {role_of(name) for name in self.turns(path, role).roles}
        return "assistant" in spoken and 2 * len(spoken & {*ROLES, *FUNCTION_CALLS}) > len(spoken)


def _are_marks(values: dict[str, int]) -> bool:
    """Whether most values of a column, given with their rows, say good or bad."""
    odd = {value: rows for value, rows in values.items() if mark(value) is None}
    rows = sum(values.values())
    numbers = sum(rows for value, rows in odd.items() if _NUMBER.fullmatch(value.strip()))
    return 2 * sum(odd.values()) < rows and numbers <= _FEW * rows


def _rows_of(said: dict[str, int], *roles: str) -> int:
    return sum(rows for role, rows in said.items() if role_of(role) in roles)


def role_key(shape: Shape | None) -> str | None:
    """The key under which the turns of a conversation name the speaker; None where they don't."""
    keys = [key for key, _ in shape.items.keys] if shape is not None and shape.items is not None else []
    return None if exchange_keys(keys) else key_of(keys, ROLE_KEYS)
