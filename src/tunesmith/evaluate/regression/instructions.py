"""Instructions whose answers a program can check: whether they are followed, whatever else the answer is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...progress import Progress
from ...rules import finding
from ..comparisons import compare_shares
from ..outcome import Outcome
from ..subject import Subject
from .checks import follows
from .shares import kept_share
from .tables import VERSION, answers_to, refused, table

METRIC = "instructions_followed"
MAX_NEW_TOKENS = 160
"""The longest text asked for has some 80 words."""
_ORDERS = 9_999


@dataclass(frozen=True)
class Instruction:
    """What a model is told, and what a program checks of the answer; see checks.py."""

    ask: str
    checks: Mapping[str, Any]


def instructions() -> list[Instruction]:
    """The instructions of instructions.yaml."""
    entries = table("instructions.yaml")
    return [Instruction(entry.pop("ask"), entry) for entry in entries]


@dataclass(frozen=True)
class Instructions:
    """Share of the checkable instructions that greedy answers follow, every check of an instruction passed.

    Counted by prompt, as IFEval does (Zhou et al. 2023, Instruction-following evaluation for large language models);
    instructions and checks are our own. The form is checked, and the content only where there is one right answer.

    Attributes:
        template: What the chat template is told besides the question.
        margin: Share of the instructions that may be lost and still count as kept.
    """

    template: dict[str, Any]
    margin: float
    needs_model: ClassVar[bool] = False

    def take(self, subject: Subject, progress: Progress) -> list[str | None]:
        """An answer to each instruction, without reasoning; None where there is none."""
        asks = [one.ask for one in instructions()]
        return answers_to(asks, subject, template=self.template, max_new_tokens=MAX_NEW_TOKENS, progress=progress)

    def compare(self, base: Sequence[str | None], tuned: Sequence[str | None]) -> Outcome:
        """The shares of what both answered; E043 in place of whether they are kept where the base follows by chance."""
        answered = [
            (old, new, one)
            for old, new, one in zip(base, tuned, instructions(), strict=True)
            if old is not None and new is not None
        ]
        found = refused(base, tuned)
        if not answered:
            return Outcome(findings=found)
        before = [follows(old, one.checks) for old, _, one in answered]
        after = [follows(new, one.checks) for _, new, one in answered]
        if by_chance([old for old, _, _ in answered], [one for _, _, one in answered]) >= 0.05:
            found.append(finding("E043", "regression", count=sum(before), total=len(answered)))
            return Outcome([compare_shares(METRIC, before, after)], found, versions=VERSION)
        return Outcome([kept_share(METRIC, before, after, self.margin)], found, versions=VERSION)


def by_chance(answers: Sequence[str], asked: Sequence[Instruction]) -> float:
    """The chance that answers that have nothing to do with their instructions follow as many of them.

    Some checks are passed by nearly any text. So the same answers are given to other instructions at random: the
    p-value of the permutation test that answers and instructions don't belong together (Pitman 1937).
    """
    import numpy as np
    from scipy.stats import permutation_test

    passed = np.array([[follows(answer, one.checks) for answer in answers] for one in asked])
    if not passed.trace():
        return 1.0
    numbers = np.arange(len(asked))

    def followed(order: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(passed[numbers, order].sum(axis=axis))

    result = permutation_test(
        (numbers,),
        followed,
        permutation_type="pairings",
        alternative="greater",
        vectorized=True,
        n_resamples=_ORDERS,
        batch=1_000,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)
