"""Rows as the texts that are tokenized: chat templates rendered many conversations at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..rows import Row
from .settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""First character, and the one after the last."""


@dataclass(frozen=True)
class Rendered:
    """The texts of some rows.

    Attributes:
        texts: Each row's text.
        special: Whether the tokenizer is to add what it adds to plain texts, such as a BOS.
        prompts: Each row's prompt by itself, ready for an answer; None where rows have no prompt.
        spans: What the assistant wrote in each text, in characters; None where nobody asks.
    """

    texts: list[str]
    special: bool
    prompts: list[str] | None = None
    spans: list[list[Span]] | None = None


def render(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, settings: Settings) -> Rendered:
    """The texts of `rows`, all of one layout, as TRL has them tokenized.

    Raises:
        Exception: whatever the template raises for a row.
    """
    if "text" in rows[0]:
        return Rendered([_ended(row["text"], settings.eos) for row in rows], special=True)
    if "messages" in rows[0]:
        texts, spans = _chats(rows, [row["messages"] for row in rows], tokenizer, settings)
        return Rendered(texts, special=False, spans=spans)
    if isinstance(rows[0]["prompt"], str):
        whole = [row["prompt"] + _ended(row["completion"], settings.eos) for row in rows]
        return Rendered(whole, special=True, prompts=[row["prompt"] for row in rows])
    texts, spans = _chats(rows, [[*row["prompt"], *row["completion"]] for row in rows], tokenizer, settings)
    prompts, _ = _chats(rows, [row["prompt"] for row in rows], tokenizer, settings, prompt=True)
    return Rendered(texts, special=False, prompts=prompts, spans=spans)


def _ended(text: str, eos: str) -> str:
    return text if text.endswith(eos) else text + eos


def _chats(
    rows: Sequence[Row],
    conversations: list[list[Row]],
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    *,
    prompt: bool = False,
) -> tuple[list[str], list[list[Span]] | None]:
    """The conversations' texts, and what the assistant wrote in them unless they are prompts."""
    from transformers.utils.chat_template_utils import render_jinja_template

    marks = settings.assistant_only and not prompt
    texts: list[Any] = [None] * len(rows)
    spans: list[Any] = [None] * len(rows)
    for text, chosen in _by_tools(rows).items():
        tools = json.loads(text) if text is not None else None
        rendered, marked = render_jinja_template(
            # Transformers drops what is None before it renders.
            conversations=[
                [{key: value for key, value in message.items() if value is not None} for message in conversations[row]]
                for row in chosen
            ],
            tools=tools,
            chat_template=tokenizer.get_chat_template(settings.template, tools),
            return_assistant_tokens_mask=marks,
            add_generation_prompt=prompt,
            **tokenizer.special_tokens_map,
        )
        for index, row in enumerate(chosen):
            texts[row] = rendered[index]
            spans[row] = marked[index] if marks else None
    return texts, spans if marks else None


def _by_tools(rows: Sequence[Row]) -> dict[str | None, list[int]]:
    """The tools' JSON -> the rows that have them: a template is rendered with one list of tools at a time."""
    groups: dict[str | None, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.get("tools"), []).append(number)
    return groups
