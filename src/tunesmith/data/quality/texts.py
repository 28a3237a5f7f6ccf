"""What a prepared row says, as plain texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..rows import Row


@dataclass(frozen=True)
class Said:
    """The texts of a prepared row, without system messages.

    Attributes:
        whole: All of them as one.
        prompt: All that comes before the last answer; of plain text, the whole of it.
        question: The last thing said before that answer.
        answers: What is learnt: the assistant's messages, the completion, the chosen answer, or the plain text; none
            where the row is a prompt alone.
        rejected: The answer that is not to be given, of a preference.
        label: Whether the answer is marked as good; None where answers aren't marked.
    """

    whole: str
    prompt: str
    question: str = ""
    answers: tuple[str, ...] = ()
    rejected: str | None = None
    label: bool | None = None

    @property
    def taught(self) -> tuple[str, ...]:
        """The answers that are to be given."""
        return () if self.label is False else self.answers


def said(row: Row) -> Said:
    """What a prepared row says.

    Rows are {"text"}, {"messages"}, or {"prompt"} with "completion" (and "label"), with "chosen" and "rejected", or
    alone; each of these is a text or a list of messages.
    """
    if "text" in row:
        return Said(row["text"], row["text"], answers=(row["text"],))
    if "messages" in row:
        return _conversation(row["messages"])
    prompt = _contents(row.get("prompt"))
    answers = [_text(row[name]) for name in ("completion", "chosen", "rejected") if name in row]
    return Said(
        "\n".join([*prompt, *answers]),
        "\n".join(prompt),
        prompt[-1] if prompt else "",
        tuple(answers[:1]),
        answers[1] if "rejected" in row else None,
        row.get("label"),
    )


def fingerprint(row: Row) -> bytes:
    """16 bytes that are equal for equal rows, whatever the order of their keys."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def sample(count: int, most: int) -> Sequence[int]:
    """Numbers of at most `most` of `count` items, evenly spread, the same ones each time."""
    if count <= most:
        return range(count)
    return [int(index) for index in np.linspace(0, count - 1, most)]


def _conversation(messages: Sequence[dict[str, Any]]) -> Said:
    last = max((at for at, turn in enumerate(messages) if turn.get("role") == "assistant"), default=len(messages))
    before = _contents(messages[:last])
    answers = (_content(turn) for turn in messages if turn.get("role") == "assistant")
    return Said(
        _text(messages), "\n".join(before), before[-1] if before else "", tuple(answer for answer in answers if answer)
    )


def _contents(value: str | Sequence[dict[str, Any]] | None) -> list[str]:
    """A text, or the contents of messages but for the system's."""
    if value is None or isinstance(value, str):
        return [value] if value else []
    found = [_content(turn) for turn in value if turn.get("role") != "system"]
    return [content for content in found if content]


def _text(value: str | Sequence[dict[str, Any]] | None) -> str:
    return "\n".join(_contents(value))


def _content(message: dict[str, Any]) -> str:
    """The text of a message, whose content may be a list of parts, or nothing where it is a tool call."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
