"""Token counts of a model whose tokenizer isn't here: from the bytes that its family's tokenizers put into a token."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

from .families import TOKEN_ERROR

_TURN: Final = 5  # tokens by which ChatML, Llama 3's, Gemma's and Phi's templates frame a turn, give or take two


class EstimatedTokenizer:
    """Estimates what LightTokenizer counts; where it knows nothing of template and special tokens, it says None.

    Attributes:
        template: A text where the model has a chat template, which isn't known here, or None.
        eos: None; not known.
        pad: None; not known.
        error: Relative error of its counts.
        has_generation_marks: True, as TRL ships marked copies of the templates of most families.
    """

    error = TOKEN_ERROR
    eos = None
    pad = None
    has_generation_marks = True

    def __init__(self, bytes_per_token: float, *, has_template: bool) -> None:
        """`bytes_per_token` is of English text, in UTF-8."""
        self._bytes = bytes_per_token
        self.template = "" if has_template else None

    def encode_rows(self, rows: Sequence[dict[str, Any]], layout: str) -> tuple[list[int] | None, list[int]]:
        """Estimated token counts of `rows`: of their prompts (None where rows have none), and of whole rows."""
        if layout == "text":
            return None, [self._text(row["text"]) for row in rows]
        if layout == "messages":
            return None, [self._part(row["messages"]) + self._tools(row) for row in rows]
        prompts = [self._part(row["prompt"]) + self._tools(row) for row in rows]
        names = {"preference": ("chosen", "rejected"), "prompt-only": ()}.get(layout, ("completion",))
        answers = [max((self._part(row[name]) for name in names), default=0) for row in rows]
        return prompts, [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]

    def _part(self, part: str | list[dict[str, Any]]) -> int:
        """Tokens of a text, or of messages with all that they hold."""
        if isinstance(part, str):
            return self._text(part)
        return sum(_TURN + self._text(_said(message)) for message in part)

    def _tools(self, row: dict[str, Any]) -> int:
        return self._text(row["tools"]) if row.get("tools") else 0

    def _text(self, text: str) -> int:
        return math.ceil(len(text.encode(errors="surrogatepass")) / self._bytes)


def _said(message: dict[str, Any]) -> str:
    """Everything in a message but who speaks."""
    values = (value for key, value in message.items() if key != "role" and value)
    return " ".join(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values)
