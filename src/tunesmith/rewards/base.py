"""What the shipped rewards share: they are sections of a recipe that can be called as a trainer calls them."""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from ..recipe.section import Section
from .answer import Answer, Completion, text_of


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise PydanticCustomError("pattern", "It is no regular expression: {text}", {"text": str(error)}) from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


class Shipped(Section):
    """A reward that looks at each answer alone. Its fields are its arguments in a recipe."""

    column: ClassVar[str | None] = None
    """Column of the rows that answers are compared with."""
    share: ClassVar[bool | None] = False
    """Whether it is 1 or 0 and nothing between, so that its mean is a share; None: that depends on its arguments."""

    @classmethod
    def summary(cls) -> str:
        """What it rewards, one line."""
        return (inspect.getdoc(cls) or "").splitlines()[0]

    @abstractmethod
    def score(self, answer: Answer) -> float | None:
        """The reward of one answer; None: no opinion."""

    def __call__(
        self, *, completions: Sequence[Completion], completion_ids: Sequence[Sequence[int]] = (), **columns: Any
    ) -> list[float | None]:
        """The reward of each completion; `columns` hold a value of the row of each."""
        return [self.score(answer) for answer in read_answers(completions, completion_ids, **columns)]


def read_answers(
    completions: Sequence[Completion], completion_ids: Sequence[Sequence[int]] = (), **columns: Any
) -> list[Answer]:
    """Completions as a trainer passes them, each with the columns of its row."""
    ids = completion_ids or [()] * len(completions)
    rows = {name: values for name, values in columns.items() if isinstance(values, list)}
    return [
        Answer(text_of(one), ids[index], {name: values[index] for name, values in rows.items()})
        for index, one in enumerate(completions)
    ]


class OfText(Shipped):
    """A reward of what an answer says after its reasoning."""

    answer: Pattern | None = Field(
        default=None,
        description="Regular expression that finds the answer in the text: the first group of its last match. "
        "Default: all that follows the reasoning (<think>...</think>)",
    )

    def said(self, answer: Answer) -> str | None:
        """The answer's text; None where `answer` finds none."""
        return self.found(answer.final)

    def found(self, text: str) -> str | None:
        """What `answer` finds in a text; the text itself without it."""
        if self.answer is None:
            return text
        matches = list(re.finditer(self.answer, text))
        if not matches:
            return None
        return str(matches[-1].group(1 if matches[-1].re.groups else 0) or "").strip()


class Compared(OfText):
    """A reward of an answer that is right, by a right answer in the row; of several the best counts.

    Where `answer` finds something in the right answer too, that is compared with.
    """

    column: ClassVar[str | None] = "reference"

    def score(self, answer: Answer) -> float | None:
        """1.0 for a right answer, down to 0.0; None where the row has no right answer that can be compared with."""
        right, said = self.right_answers(answer), self.said(answer)
        if said is None:
            return 0.0 if right else None
        scores = [self.compare(said, one) for one in right]
        return max((score for score in scores if score is not None), default=None)

    def right_answers(self, answer: Answer) -> list[str]:
        """The row's right answers; of each what `answer` finds in it."""
        held = answer.row.get(str(self.column))
        right = [str(one) for one in (held if isinstance(held, list) else [held]) if one is not None]
        return [self.found(one) or one for one in right]

    @abstractmethod
    def compare(self, said: str, right: str) -> float | None:
        """How well an answer agrees with a right one; None: the right one can't be read."""
