"""Conversations that stand in rows as text, as pandas and CSV hold them, opened."""

from __future__ import annotations

import ast
import contextlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from ..rows import Numbered, Row
from ..turns import is_chat
from .json_text import Noted, Reader

_HEAD: Final = 100
"""Rows by which a file's columns are judged; they are held in memory meanwhile."""


class Opener:
    """Opens the conversations of one file.

    A column is opened if most of the texts that it holds in the first rows are conversations: a single one among other
    texts is an example, not the row's conversation.

    Attributes:
        opened: Column -> rows whose text there was opened.
    """

    def __init__(self) -> None:
        self.opened: dict[str, Noted] = {}

    def rows(self, rows: Iterable[Numbered]) -> Iterator[Numbered]:
        """The rows, with the conversations in place of the texts; a text that is none stays as it is."""
        rows = iter(rows)
        head = list(itertools.islice(rows, _HEAD))
        columns = columns_of(head)
        self.opened = {column: Noted() for column in columns}
        for numbered in itertools.chain(head, rows):
            yield self._row(numbered, columns) if columns and numbered.row is not None else numbered

    def _row(self, numbered: Numbered, columns: Collection[str]) -> Numbered:
        row: Row = dict(numbered.row or {})
        for column in columns:
            value = conversation(row.get(column))
            if value is not None:
                row[column] = value
                self.opened[column].add(numbered.place)
        return numbered._replace(row=row)


def columns_of(rows: Iterable[Numbered]) -> list[str]:
    """The columns whose texts are conversations in most of a file's first rows."""
    texts: dict[str, list[bool]] = {}
    for numbered in itertools.islice(rows, _HEAD):
        for column, value in (numbered.row or {}).items():
            if isinstance(value, str) and value.strip():
                texts.setdefault(column, []).append(conversation(value) is not None)
    return [column for column, found in texts.items() if 2 * sum(found) > len(found)]


def conversation(value: Any) -> Any:
    """The conversation, or the single turn, that a text holds as JSON or as a Python literal; None where it is none."""
    text = value.strip() if isinstance(value, str) else ""
    if not text.startswith(("[", "{")) or not text.endswith(("]", "}")):
        return None
    found = Reader().line(text, 0).row
    if found is None:
        with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            found = Reader().line(json.dumps(ast.literal_eval(text)), 0).row
    if text.startswith("["):
        return found["messages"] if found else None  # the Reader makes a row of a bare conversation
    return found if is_chat([found]) else None
