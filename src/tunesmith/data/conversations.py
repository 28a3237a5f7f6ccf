"""The conversations of a prepared row, as the trainer renders them, and what of them is trained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .rows import Row

_REASONING = ("reasoning_content", "thinking", "reasoning")
_BLOCK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWERS = ("completion", "chosen", "rejected")


class _Renders(Protocol):
    def render(
        self, messages: list[dict[str, Any]], *, prompt: bool = False, tools: Any = None, marked: bool = False
    ) -> str: ...


@dataclass
class Conversation:
    """A conversation that the trainer renders.

    Attributes:
        context: The messages before what is trained.
        said: The messages whose assistant's turns are trained.
        tools: The tools of the row, as JSON text or as they are.
        marked: Whether the assistant's turns are told apart by marks in the template.
    """

    context: list[Row]
    said: list[Row]
    tools: Any = None
    marked: bool = False
    _text: str | None = field(default=None, repr=False)

    def text(self, light: _Renders) -> str:
        """The conversation rendered by the model's template; rendered once.

        Raises:
            jinja2.TemplateError: the template refuses it.
        """
        if self._text is None:
            tools = json.loads(self.tools) if isinstance(self.tools, str) else self.tools
            self._text = light.render([*self.context, *self.said], tools=tools, marked=self.marked)
        return self._text

    @property
    def system(self) -> str:
        """The system message without blanks around it; empty where there is none."""
        messages = (message for message in (*self.context, *self.said) if message["role"] == "system")
        return next((_content(message).strip() for message in messages), "")

    @property
    def _trained(self) -> list[Row]:
        return [message for message in self.said if message["role"] == "assistant"]

    @property
    def answers(self) -> list[str]:
        """The texts of the trained answers, reasoning blocks left out; none that are empty."""
        texts = (_content(message).rpartition("</think>")[2] for message in self._trained)
        return [text for text in texts if text.strip()]

    @property
    def reasoning_inside(self) -> list[str]:
        """What stands in reasoning blocks of trained answers, without blanks around it."""
        return _inside(self._trained)

    @property
    def reasoning_keyed(self) -> list[str]:
        """What trained answers have as reasoning in a key of its own."""
        return _keyed(self._trained)

    @property
    def reasoning_before(self) -> list[str]:
        """The reasoning of the answers that are context, of either kind."""
        before = [message for message in self.context if message["role"] == "assistant"]
        return [*_inside(before), *_keyed(before)]

    @property
    def has_reasoning(self) -> bool:
        """Whether any answer has reasoning."""
        return bool(self.reasoning_inside or self.reasoning_keyed or self.reasoning_before)


def conversations(row: Row) -> list[Conversation]:
    """The conversations of a prepared row made of messages: one, and of a pair one for each side."""
    tools = row.get("tools")
    if "messages" in row:
        return [Conversation([], row["messages"], tools, marked=True)]
    answers = [row[name] for name in _ANSWERS if isinstance(row.get(name), list)]
    return [Conversation(row["prompt"], answer, tools) for answer in answers or [[]]]


def _content(message: Row) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _inside(messages: Iterable[Row]) -> list[str]:
    blocks = (block.strip() for message in messages for block in _blocks(_content(message)))
    return [block for block in blocks if block]


def _blocks(content: str) -> list[str]:
    """The reasoning blocks of a text; the prompt may have opened the first one."""
    if "<think>" not in content and "</think>" in content:
        return [content.partition("</think>")[0]]
    return _BLOCK.findall(content)


def _keyed(messages: Iterable[Row]) -> list[str]:
    values = (next((message[key] for key in _REASONING if message.get(key)), "") for message in messages)
    return [value.strip() for value in values if isinstance(value, str) and value.strip()]
