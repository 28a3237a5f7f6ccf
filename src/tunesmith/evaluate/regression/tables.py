"""The suite's texts and questions: data files of our own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final

import yaml

from ...progress import Progress
from ...records import Finding
from ...rewards.answer import Answer
from ...rules import finding
from ..rows import Question
from ..subject import Drawing, Subject

VERSION: Final = {"regression suite": "2026.11"}
"""Year and month of the texts; figures of two versions aren't to be compared."""


def table(name: str) -> list[Any]:
    """The entries of a data file."""
    entries: list[Any] = yaml.safe_load(files(__package__).joinpath(name).read_text(encoding="utf-8"))
    return entries


def answers_to(
    asks: Sequence[str], subject: Subject, *, template: dict[str, Any], max_new_tokens: int, progress: Progress
) -> list[str | None]:
    """A greedy answer to each ask, without the reasoning before it; `template` goes to the chat template.

    None where a server refused the ask: what its model would have said isn't known.
    """
    asked = [
        Question(number, ask, None, [{"role": "user", "content": ask}], template=template)
        for number, ask in enumerate(asks, start=1)
    ]
    answers = subject.answers(asked, Drawing(max_new_tokens), progress)
    return [None if one.refused else Answer(one.text, (), {}).final for one in answers]


def refused(base: Sequence[str | None], tuned: Sequence[str | None]) -> list[Finding]:
    """E015 for each model that a server didn't let answer some asks."""
    counts = {"base": base.count(None), "tuned": tuned.count(None)}
    return [
        finding("E015", "regression", arm=arm, count=count, total=len(base), why="the server refused them")
        for arm, count in counts.items()
        if count
    ]
