"""What a completion says: its text, without the reasoning before the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Completion = str | Sequence[Mapping[str, Any]]
"""An answer as TRL passes it: text, or messages where the prompt is a conversation."""
_OPENED, _CLOSED = "<think>", "</think>"


@dataclass(frozen=True)
class Answer:
    """One completion, with what belongs to it.

    Attributes:
        text: All that the model wrote.
        ids: Its tokens.
        row: Columns of the row whose prompt it answers, but for the prompt.
    """

    text: str
    ids: Sequence[int]
    row: Mapping[str, Any]

    @property
    def final(self) -> str:
        """The answer alone: what follows the reasoning; nothing where the reasoning has no end."""
        _, closed, after = self.text.rpartition(_CLOSED)
        if closed:
            return after.strip()
        return "" if _OPENED in self.text else self.text.strip()


def text_of(completion: Completion) -> str:
    """The text of a completion; of messages, what the last one says."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in content or ())
