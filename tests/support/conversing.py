"""Subjects that answer as scripted, for tests of conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tunesmith.evaluate.measure import Answer
from tunesmith.evaluate.rows import Question
from tunesmith.evaluate.subject import Drawing
from tunesmith.progress import Progress


@dataclass
class Scripted:
    """A subject that answers each question as a function of it says.

    Attributes:
        name: As of every subject.
        answer: Gives the text of an answer, or the whole answer.
        asked: All questions so far, each with how its answer was to be drawn.
        calls: Of each call, how many questions it had.
    """

    name: str
    answer: Callable[[Question], str | Answer]
    asked: list[tuple[Question, Drawing]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)

    def answers(self, questions: Sequence[Question], drawing: Drawing, progress: Progress) -> list[Answer]:
        """Answers as scripted."""
        self.asked += [(question, drawing) for question in questions]
        self.calls.append(len(questions))
        given = [self.answer(question) for question in questions]
        progress(f"{self.name}: answers", len(questions), len(questions))
        return [one if isinstance(one, Answer) else Answer(one, True, []) for one in given]
