"""What a prepared row asks of a model, the right answer, and what there is to choose between."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import Any, Final

from .rows import Row

Turns = str | list[dict[str, Any]]
"""A question as a row has it: text, or messages."""
MOST_OPTIONS: Final = 20
"""Different answers up to which rows are taken for a choice between them."""


def asks(row: Row) -> bool:
    """Whether a prepared row asks anything; plain text doesn't."""
    return "prompt" in row or "text" not in row


def asked(row: Row) -> tuple[Turns, str | None]:
    """A row's question and its right answer, where there is one.

    A chat is cut before its last assistant turn, which is the answer. Of two answers the chosen one is right, of marked
    ones only a desirable one, and where a model is rewarded, the reference.
    """
    turns, right = row.get("prompt"), _right(row)
    if isinstance(turns, str):
        return turns, right
    if turns is None or isinstance(right, list):
        messages = row.get("messages") or turns + right
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        return messages[:last], messages[last].get("content") or None
    return turns, right


def _right(row: Row) -> Any:
    """The right answer, as text or as messages; None where there is none, or several are right."""
    answer = row.get("chosen", row.get("completion", row.get("reference")))
    several = isinstance(answer, list) and not all(isinstance(part, dict) for part in answer)
    return None if several or row.get("label") is False else answer


def few_answers(rows: Iterable[Row]) -> list[str]:
    """The different right answers of rows, in the order in which they come; none where they are too many."""
    seen: dict[str, None] = {}
    for row in rows:
        answer = asked(row)[1] if asks(row) else None
        if answer is not None:
            seen[answer.strip()] = None
        if len(seen) > MOST_OPTIONS:
            return []
    return list(seen)


def read_options(held: Any, right: str) -> list[str]:
    """The options of a row: a list, its JSON, or ARC's {"text": [...], "label": [...]}; none where it is none of these.

    `right` is the row's right answer: where that is a label, the labels are what there is to choose between.
    """
    if isinstance(held, str):
        with contextlib.suppress(ValueError):
            held = json.loads(held)
    if isinstance(held, dict):
        labels, texts = (read_options(held.get(name), right) for name in ("label", "text"))
        return labels if right.strip() in labels else texts
    return [str(one).strip() for one in held] if isinstance(held, list) else []
