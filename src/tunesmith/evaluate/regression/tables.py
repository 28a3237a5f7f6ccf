"""The suite's texts and questions: data files of our own."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

import yaml

from ...rewards.answer import Answer
from ..rows import Question

VERSION: Final = {"regression suite": "2026.11"}
"""Year and month of the texts; figures of two versions aren't to be compared."""


def table(name: str) -> list[Any]:
    """The entries of a data file."""
    entries: list[Any] = yaml.safe_load(files(__package__).joinpath(name).read_text(encoding="utf-8"))
    return entries


def question(number: int, ask: str, template: dict[str, Any]) -> Question:
    """What a user asks, as a conversation of one turn; `template` goes to the chat template."""
    return Question(number, ask, None, [{"role": "user", "content": ask}], template=template)


def final(text: str) -> str:
    """An answer without the reasoning before it."""
    return Answer(text, (), {}).final
