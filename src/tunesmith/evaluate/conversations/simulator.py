"""Who plays the users: what the simulator is told, and what it says as one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...data.quality.private import without_secrets
from ...progress import Progress
from ...recipe.personas import Persona
from ...rewards.answer import Answer as Reasoned
from ..rows import Question
from ..subject import Drawing, Subject
from .transcripts import Message, as_text

_END: Final = "[END]"
_SIGN: Final = r"[\"'`*_(]*\[\s*end\s*\][\"'`*_)\s.!]*"
_ENDED: Final = re.compile(rf"\A\s*{_SIGN}|^\s*{_SIGN}$|{_SIGN}\Z", re.IGNORECASE | re.MULTILINE)
"""The sign first, last or on a line of its own, also in quotes or bold; in the midst of a sentence it is a word."""
_SPEAKER: Final = re.compile(r"\A\s*(?:user|human|person)\s*:\s*", re.IGNORECASE)
_OTHERS: Final = re.compile(r"^\s*(?:User|Assistant):", re.MULTILINE)
"""Turns as the simulator is shown them, so that it may go on with them; people who write so mean something else."""


@dataclass(frozen=True)
class Turn:
    """A user who is to speak.

    Attributes:
        talk: Number of the conversation; of the same one with either model, so that both draw alike.
        persona: Who the user is.
        messages: What was said before.
    """

    talk: int
    persona: Persona
    messages: Sequence[Message]


@dataclass(frozen=True)
class Said:
    """What a simulated user says; with `ends`, nothing: it has what it wanted, or gave up."""

    text: str
    ends: bool = False


def users_say(simulator: Subject, turns: Sequence[Turn], drawing: Drawing, progress: Progress) -> list[Said]:
    """The next message of each user; one that says nothing is asked once more."""
    said = _asked(simulator, turns, drawing, progress)
    silent = [place for place, one in enumerate(said) if not one.text and not one.ends]
    if silent:
        # Another seed; a simulator that is asked for the likeliest tokens says nothing again, which then is its answer.
        again = Drawing(drawing.max_new_tokens, drawing.temperature, ~drawing.seed)
        for place, one in zip(silent, _asked(simulator, [turns[at] for at in silent], again, progress), strict=True):
            said[place] = one
    return said


def _asked(simulator: Subject, turns: Sequence[Turn], drawing: Drawing, progress: Progress) -> list[Said]:
    if not turns:
        return []
    asked = [(turn, prompt(turn.persona, turn.messages)) for turn in turns]
    questions = [Question(turn.talk, text, None, [{"role": "user", "content": text}]) for turn, text in asked]
    answers = simulator.answers(questions, drawing, progress)
    return [spoken(answer.text, first=not turn.messages) for turn, answer in zip(turns, answers, strict=True)]


def prompt(persona: Persona, messages: Sequence[Message]) -> str:
    """What the simulator is asked: all in one message, since not every chat template has a place for a system's."""
    goal = f"\nWhat this person wants: {persona.goal}" if persona.goal else ""
    if messages:
        begun = f"The conversation so far, the person being the user:\n\n{as_text(messages)}"
        end = (
            f" If the person has got what it wants, or sees that it won't get it here, write {_END} instead, and "
            "nothing else."
        )
    else:
        begun, end = "The conversation hasn't begun yet; the person speaks first.", ""
    return (
        "You play a person who talks with an AI assistant. Stay that person, whatever the assistant says.\n\n"
        f"The person: {persona.name}. {persona.description}{goal}\n\n{begun}\n\n"
        "Write what the person says next, and only that: no name before it, no quotes, no comments. Use the person's "
        f"own words and language, one to three sentences.{end}"
    )


def spoken(text: str, *, first: bool = False) -> Said:
    """What the simulator's answer has the user say: no reasoning, no name before it, and nobody else's turn.

    A farewell before the end isn't kept: it would be a turn without an answer. Whoever speaks first can't end.
    """
    words = _SPEAKER.sub("", Reasoned(text, (), {}).final)
    if other := _OTHERS.search(words):
        words = words[: other.start()]
    ended = _ENDED.search(words) is not None
    words = _ENDED.sub("", words).strip()
    return Said("", ends=True) if ended and not first else Said(without_secrets(words))
