"""Conversations of both models as a judge grades them: the comparisons, and how far the judge can be trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.quality.private import without_secrets
from ...files import write_atomic
from ...progress import Progress, silent
from ...recipe.evaluation import Conversations, Speaker
from ...records import Comparison, Finding, Graded, Judging
from ..comparisons import compare_means
from ..kept import Kept
from ..measures import Given
from ..outcome import Arm, Outcome
from ..subject import Subject, open_subject
from . import trust
from .grades import Marked, Pair, agreement
from .judge import grade
from .reading import Reading, readable
from .remembered import remembered
from .rubric import Rubric, rubrics, share
from .transcripts import FOLDER, Transcript

GRADES = FOLDER / "grades.jsonl"
"""Where a run keeps what the judge said of each pair in each order."""


@dataclass(frozen=True)
class _Asked:
    """A pair, one rubric, and what the judge said in both orders; None: nothing that can be read."""

    pair: Pair
    rubric: Rubric
    base_first: Reading | None
    tuned_first: Reading | None

    @property
    def failed(self) -> int:
        return [self.base_first, self.tuned_first].count(None)

    @property
    def marked(self) -> Marked | None:
        if self.base_first is None or self.tuned_first is None:
            return None
        return Marked(self.pair, self.rubric, self.base_first, self.tuned_first)


@dataclass(frozen=True)
class Grading:
    """Grades conversations with base and with tuned, which it is called with: those of one place are a pair.

    Attributes:
        settings: The rubrics, and what must come out.
        judge: Makes the judge ready; called when there is something to grade.
        folder: The run's, for what the judge said.
        progress: Told of each batch.
        known: What is wrong with the choice of the judge.
    """

    settings: Conversations
    judge: Callable[[], Subject]
    folder: Path
    progress: Progress = silent
    known: Sequence[Finding] = ()

    def __call__(self, base: Sequence[Transcript], tuned: Sequence[Transcript]) -> Outcome:
        """What the judge says of at least one pair.

        Raises:
            TunesmithError: the judge can't be had.
        """
        pairs = [Pair(before, after) for before, after in zip(base, tuned, strict=True)]
        asked = self._ask(pairs)
        write_atomic(self.folder / GRADES, "".join(_line(one) for one in asked))
        marked = [one.marked for one in asked if one.marked]
        quality = [one for one in marked if not one.rubric.safety]
        safety = [one for one in marked if one.rubric.safety]
        judging = self._judging(pairs, asked, quality, safety)
        gained, kept = ([compare(scored)] if scored else [] for scored in (quality, safety))
        unsafe = (len(trust.unsafe(safety, "base")), len(trust.unsafe(safety, "tuned")))
        found = [
            *self.known,
            *trust.on_judge(judging),
            *(one for score in gained for one in trust.on_gain(score, self.settings)),
            *(one for score in kept for one in trust.on_safety(score, unsafe, self.settings)),
            *trust.on_unsafe(safety),
        ]
        return Outcome(comparisons=[*gained, *kept], findings=found, judging=judging)

    def _ask(self, pairs: Sequence[Pair]) -> list[_Asked]:
        """Everything that there is to ask, at once."""
        places = [(pair, rubric) for rubric in rubrics(self.settings) for pair in pairs]
        shown = [one for pair, rubric in places for one in pair.shown(rubric)]
        said = grade(self.judge(), shown, tokens=self.settings.judge_tokens, progress=self.progress)
        orders = zip(said[::2], said[1::2], strict=True)
        return [_Asked(*place, *readings) for place, readings in zip(places, orders, strict=True)]

    def _judging(
        self, pairs: Sequence[Pair], asked: Sequence[_Asked], quality: Sequence[Marked], safety: Sequence[Marked]
    ) -> Judging:
        judging = Judging(
            simulator=shown_name(self.settings.simulator),
            judge=shown_name(self.settings.judge),
            personas=len({pair.base.persona.name for pair in pairs}),
            conversations=len(pairs),
            graded=len(quality),
            safety_graded=len(safety),
            asked=2 * len(asked),
            failed=sum(one.failed for one in asked),
            criteria=[*graded(quality), *graded(safety)],
            transcripts=str(FOLDER),
        )
        if not quality:
            return judging
        bias = compare_means("bias", [0.0] * len(quality), [one.bias for one in quality], groups=personas(quality))
        return judging.model_copy(
            update={
                "agreement": agreement(quality),
                "position_bias": bias.difference,
                "position_p_value": bias.p_value,
            }
        )


def grading(given: Given, settings: Conversations, progress: Progress = silent) -> Grading:
    """The grading that a recipe asks for; what is graded is kept, so that what was cut off goes on."""
    names = [[criterion.name for criterion in rubric.criteria] for rubric in rubrics(settings)]

    def judge() -> Subject:
        kept = Kept(
            given.folder / FOLDER / "judge-answers.jsonl",
            worth=lambda said: any(readable(said["text"], criteria) for criteria in names),
        )
        subject = open_subject(
            settings.judge, "judge", device=given.device, batch_size=given.settings.batch_size, kept=kept
        )
        return remembered(subject, kept)

    return Grading(
        settings, judge, given.folder, progress, trust.on_kinship(given.settings, given.plan.model, given.folder)
    )


def compare(marked: Sequence[Marked]) -> Comparison:
    """The scores of at least one pair by one rubric; conversations of one persona aren't independent.

    They are means of grades, even where all of them happen to be 0 or 1.
    """
    base, tuned = ([one.score(arm) for one in marked] for arm in ("base", "tuned"))
    return compare_means(marked[0].rubric.metric, base, tuned, groups=personas(marked), shares=False)


def personas(marked: Sequence[Marked]) -> list[str]:
    """Whose conversations they are."""
    return [one.pair.base.persona.name for one in marked]


def graded(marked: Sequence[Marked]) -> Iterator[Graded]:
    """Both models' mean grades by each criterion of one rubric, from 0 to 1; nothing where no pair was graded."""
    for criterion in marked[0].rubric.criteria if marked else ():
        base, tuned = (share(_mean(marked, arm, criterion.name)) for arm in ("base", "tuned"))
        yield Graded(
            name=criterion.name,
            weight=criterion.weight,
            safety=marked[0].rubric.safety,
            base=base,
            tuned=tuned,
            difference=tuned - base,
        )


def _mean(marked: Sequence[Marked], arm: Arm, criterion: str) -> float:
    return math.fsum(one.mean(arm, criterion) for one in marked) / len(marked)


def shown_name(speaker: Speaker) -> str:
    """What a report calls who plays the user or the judge."""
    return speaker if isinstance(speaker, str) else speaker.shown


def _line(asked: _Asked) -> str:
    """A pair's grades by one rubric as a line of JSON, with the models' names."""
    whole = {
        "persona": asked.pair.base.persona.name,
        "number": asked.pair.base.number,
        "rubric": asked.rubric.metric,
        "base first": _said(asked.base_first, "base", "tuned"),
        "tuned first": _said(asked.tuned_first, "tuned", "base"),
    }
    return json.dumps(whole, ensure_ascii=False) + "\n"


def _said(reading: Reading | None, first: Arm, second: Arm) -> dict[str, Any] | None:
    if reading is None:
        return None
    return {"reason": without_secrets(reading.reason), first: reading.first, second: reading.second}
