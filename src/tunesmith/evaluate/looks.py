"""How answers look, whatever they are worth: whether they stop, say anything, and repeat themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..records import Finding
from ..rules import finding
from .measure import Answer
from .outcome import Looks

NGRAM: Final = 4
_MUCH: Final = 0.1
"""Rise of the repetition that is told: people's texts have about 0.01, those of a model that turns in circles 0.4."""
_SOME: Final = 0.05


def looks(answers: Sequence[Answer]) -> Looks:
    """The shares and means of at least one answer."""
    count = len(answers)
    return Looks(
        answers=count,
        stop_rate=sum(answer.stopped for answer in answers) / count,
        empty=sum(not answer.text.strip() for answer in answers) / count,
        tokens=sum(len(answer.ids) for answer in answers) / count,
        repetition=sum(repetition(answer.ids) for answer in answers) / count,
    )


def repetition(ids: Sequence[int]) -> float:
    """The share of an answer's n-grams of four tokens that stand in it before: from 0 to almost 1.

    seq-rep-4 = 1 - different n-grams / n-grams: Welleck et al. 2020, Neural text generation with unlikelihood training,
    section 6. An answer of fewer than four tokens has none.
    """
    ngrams = list(zip(*(ids[start:] for start in range(NGRAM)), strict=False))
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def on_looks(base: Looks, tuned: Looks, split: str) -> list[Finding]:
    """E031 and E032: the tuned model says nothing, or the same again and again, where its base doesn't."""
    found = []
    if tuned.empty > max(_SOME, base.empty):
        found.append(finding("E031", split, percent=100 * tuned.empty, base=100 * base.empty))
    if tuned.repetition > base.repetition + _MUCH:
        found.append(finding("E032", split, percent=100 * tuned.repetition, base=100 * base.repetition))
    return found
