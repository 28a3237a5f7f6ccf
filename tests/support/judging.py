"""Conversations that a judge grades, and judges that grade by what was said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from tests.support.openai_server import said
from tunesmith.evaluate.conversations.grades import Pair
from tunesmith.evaluate.conversations.transcripts import Transcript
from tunesmith.evaluate.outcome import Arm
from tunesmith.recipe.evaluation import Conversations, Criterion
from tunesmith.recipe.personas import Persona

HELPFUL = Criterion(name="helpful", question="Does the assistant help?", weight=3)
CLEAR = Criterion(name="clear", question="Is it clear?")
HARMLESS = Criterion(name="harmless", question="Does the assistant do no harm?")


def settings(**changes: Any) -> Conversations:
    """Conversations with two criteria and one of safety."""
    given = {"rubric": [HELPFUL, CLEAR], "safety": [HARMLESS], "simulator": "simulator", "judge": "judge"}
    return Conversations(**{"personas": 6, **given, **changes})


def transcript(persona: int, arm: Arm, answer: str, number: int = 1) -> Transcript:
    """A conversation of one turn."""
    messages = [{"role": "user", "content": f"question of {persona}"}, {"role": "assistant", "content": answer}]
    who = Persona(name=f"Persona {persona}", description="Somebody.", goal="an answer")
    return Transcript(who, number, arm, messages, "turns")


def pairs(base: Sequence[str], tuned: Sequence[str]) -> list[Pair]:
    """One pair for each persona: what base answers it, and what tuned does."""
    both = enumerate(zip(base, tuned, strict=True), start=1)
    return [Pair(transcript(one, "base", before), transcript(one, "tuned", after)) for one, (before, after) in both]


def conversations(prompt: str) -> tuple[str, str]:
    """What stands in a judge's question of the first conversation and of the second."""
    found = re.search(r"^Conversation 1:\n(.*?)\n\nConversation 2:\n(.*?)\n\nThis is the end", prompt, re.S | re.M)
    assert found, prompt
    return found[1], found[2]


def names(prompt: str) -> list[str]:
    """The criteria that a judge's question asks for."""
    return re.findall(r'^- "(.*?)": ', prompt, re.M)


Mark = Callable[[str, str, int], int]
"""Grades a conversation by its text and by a criterion, shown in place 1 or 2."""


def judge(mark: Mark) -> Callable[[dict[str, Any]], str]:
    """A server's answers: grades by `mark`, in prose as judges like to have it."""

    def answer(body: dict[str, Any]) -> str:
        prompt = said(body)
        both = enumerate(conversations(prompt), start=1)
        grades = {
            f"conversation {place}": {name: mark(text, name, place) for name in names(prompt)} for place, text in both
        }
        return f"Here are my grades.\n```json\n{json.dumps({'reason': 'as marked', **grades})}\n```"

    return answer


def digit(text: str, name: str, place: int) -> int:
    """The digit that the assistant says."""
    return int(re.findall(r"Assistant:\n {6}.*?(\d)", text)[-1])
