"""What becomes of conversations in the model's template and tokenizer, beyond their lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..records import Finding
from ..rules import finding
from .prepare import is_conversational
from .rows import Row


class Renderer(Protocol):
    """Knows the chat template and the special tokens of a model; models.light.LightTokenizer is one."""

    template: str | None

    def left_out(self, rows: Sequence[Row]) -> dict[str, int]:
        """Number of rows with a part that the template ignores, for each such part."""
        ...

    def with_special_tokens(self, rows: Sequence[Row]) -> tuple[int, list[str]]:
        """Number of rows with special tokens in their text, and these tokens."""
        ...


def rendered_findings(rows: Sequence[Row], light: Renderer, where: str) -> list[Finding]:
    """T011 and T013 for prepared rows that the template renders; none for rows that aren't made of messages."""
    if light.template is None or not rows or not is_conversational(rows[0]):
        return []
    return [
        *left_out_findings(light.left_out(rows), len(rows), where),
        *special_token_findings(*light.with_special_tokens(rows), len(rows), where),
    ]


def left_out_findings(counts: dict[str, int], total: int, where: str) -> list[Finding]:
    """T011 for each part of rows (tools, tool_calls and the like) that the template leaves out of `counts` rows."""
    return [finding("T011", where, count=f"{count:,}", total=f"{total:,}", what=what) for what, count in counts.items()]


def special_token_findings(count: int, tokens: Sequence[str], total: int, where: str) -> list[Finding]:
    """T013, when there are rows with special tokens in their text."""
    if not count:
        return []
    return [finding("T013", where, count=f"{count:,}", total=f"{total:,}", tokens=", ".join(tokens))]
