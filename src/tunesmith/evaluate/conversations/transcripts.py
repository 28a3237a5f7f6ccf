"""What was said in a conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ...recipe.personas import Persona
from ..outcome import Arm

WHERE: Final = "evaluation.conversations"
FOLDER: Final = Path("evaluation") / "conversations"
"""Where a run keeps its conversations: either model's transcripts, and every answer so far."""
Message = dict[str, str]
Ended = Literal["done", "turns", "silent", "refused"]
"""Why a conversation ended: the user had what it wanted or gave up; its turns ran out; it said nothing; the model's
server refused to answer, the conversation being too long for it, say."""


@dataclass(frozen=True)
class Transcript:
    """A conversation of one model with a simulated user.

    The same persona and number are of both arms a pair: they began with the same words and the same seeds.

    Attributes:
        persona: Whom the simulator played.
        number: Of this persona's conversations with this model, from 1.
        arm: The model.
        messages: Of the roles user and assistant in turn, the user's first; each has its answer, which may be empty.
        ended: Why there is no more; where that is a refusal, the last answer is empty.
        cut: Which of the model's turns, from 1, were cut off at the limit of tokens.
    """

    persona: Persona
    number: int
    arm: Arm
    messages: list[Message]
    ended: Ended
    cut: Sequence[int] = ()

    @property
    def answers(self) -> list[str]:
        """The model's turns."""
        return [one["content"] for one in self.messages if one["role"] == "assistant"]

    def as_json(self) -> str:
        """One line of the file in which transcripts are kept."""
        whole = {
            "persona": self.persona.name,
            "number": self.number,
            "ended": self.ended,
            "cut": list(self.cut),
            "messages": self.messages,
        }
        return json.dumps(whole, ensure_ascii=False) + "\n"


def as_text(messages: Sequence[Message]) -> str:
    """Messages one after the other, as a model is shown them: each indented under its speaker's name.

    So no text in a message can pass for another turn. One that is empty says so.
    """
    return "\n".join(_turn(one["role"], one["content"]) for one in messages)


def _turn(role: str, content: str) -> str:
    # splitlines knows every character that may be seen as a line break, not only "\n".
    lines = content.strip().splitlines() or ["(says nothing)"]
    return "\n".join([f"{role.capitalize()}:", *(f"    {line}" for line in lines)])
