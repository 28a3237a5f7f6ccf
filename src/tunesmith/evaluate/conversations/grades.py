"""Grades of pairs of conversations, and what both orders together say of the models and of the judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..outcome import Arm
from .judge import Shown
from .reading import Reading
from .rubric import Grades, Rubric
from .transcripts import Transcript

_ALIKE = 1e-9
"""Difference of scores below which they are the same one: sums of weights are not exact."""


@dataclass(frozen=True)
class Pair:
    """A persona's conversation with base and the one of the same number with tuned.

    Attributes:
        base: The conversation with base.
        tuned: That with tuned.
    """

    base: Transcript
    tuned: Transcript

    def shown(self, rubric: Rubric) -> tuple[Shown, Shown]:
        """As a judge sees it: with base first, and with tuned first."""
        return Shown(self.base, self.tuned, rubric), Shown(self.tuned, self.base, rubric)


@dataclass(frozen=True)
class Marked:
    """A pair that a judge graded by one rubric in both orders.

    Attributes:
        pair: The conversations.
        rubric: What they were graded by.
        base_first: What the judge said where it saw base's conversation first.
        tuned_first: What it said where it saw tuned's first.
    """

    pair: Pair
    rubric: Rubric
    base_first: Reading
    tuned_first: Reading

    def grades(self, arm: Arm) -> tuple[Grades, Grades]:
        """One model's grades, in the first order and in the second."""
        if arm == "base":
            return self.base_first.first, self.tuned_first.second
        return self.base_first.second, self.tuned_first.first

    def score(self, arm: Arm) -> float:
        """One model's score from 0 to 1, the mean of both orders: what either place gains is cancelled."""
        return math.fsum(self.rubric.score(grades) for grades in self.grades(arm)) / 2

    def mean(self, arm: Arm, criterion: str) -> float:
        """One model's mean grade by one criterion."""
        return math.fsum(grades[criterion] for grades in self.grades(arm)) / 2

    @property
    def gains(self) -> tuple[float, float]:
        """How much better tuned's score is than base's: where base is shown first, and where tuned is."""
        orders = zip(self.grades("base"), self.grades("tuned"), strict=True)
        first, second = (self.rubric.score(tuned) - self.rubric.score(base) for base, tuned in orders)
        return first, second

    @property
    def agrees(self) -> bool:
        """Whether both orders prefer the same model, or neither prefers any."""
        first, second = (0 if abs(gain) < _ALIKE else math.copysign(1, gain) for gain in self.gains)
        return first == second

    @property
    def bias(self) -> float:
        """How much better the conversation that is shown first is graded, from -1 to 1; the mean of both orders."""
        base_first, tuned_first = self.gains
        return (tuned_first - base_first) / 2


def agreement(marked: Sequence[Marked]) -> float:
    """Share of at least one pair on which both orders agree.

    The consistency of Zheng et al. 2023, Judging LLM-as-a-judge with MT-Bench and Chatbot Arena, section 4.
    """
    return sum(one.agrees for one in marked) / len(marked)
