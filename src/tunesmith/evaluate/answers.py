"""What a model answers, and what that is worth: exact match, the recipe's scores and its rewards."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from ..data.asked import MOST_OPTIONS
from ..progress import Progress
from ..records import ChangedRow, Comparison, Finding
from ..rewards import columns_of
from .comparisons import compare_shares
from .corpus import MacroF1, compare_corpus
from .findings import on_answers
from .looks import looks, on_looks
from .measure import Answer
from .outcome import Arm, Looks, Outcome, changed_row
from .rewarded import Weighted, compare_rewards
from .rows import Question, Row
from .scores import Score, Values, versions
from .subject import Drawing, Subject, unanswered

_PER_LABEL: Final = 5
"""Answers to a label, on average, from which on answers are taken for labels."""


@dataclass(frozen=True)
class Asked:
    """A question, and the row that it is made of."""

    question: Question
    row: Row

    @property
    def expected(self) -> str:
        """The right answer without blanks around it; empty where there is none."""
        return (self.question.expected or "").strip()

    @property
    def columns(self) -> dict[str, Any]:
        """What rewards and scores are told of the row: its columns, with the right answer as its `reference`."""
        known = {} if self.question.expected is None else {"reference": self.question.expected}
        return {**known, **self.row.columns}


@dataclass(frozen=True)
class Answered:
    """What one model answered, and per reward (NaN: no opinion) and per score what each answer is worth."""

    answers: list[Answer]
    rewards: list[list[float]] = field(default_factory=list)
    scores: list[Values] = field(default_factory=list)

    @property
    def looks(self) -> Looks:
        """How the answers look, whatever they are worth."""
        return looks(self.answers)

    def only(self, places: Sequence[int]) -> Answered:
        """The same of some of the answers."""
        return Answered(
            [self.answers[place] for place in places],
            [[values[place] for place in places] for values in self.rewards],
            [one if isinstance(one, Finding) else [one[place] for place in places] for one in self.scores],
        )


@dataclass(frozen=True)
class Answers:
    """Greedy answers to held-out questions.

    Attributes:
        asked: At least one question.
        max_new_tokens: Tokens after which an answer is cut.
        split: Path of the rows.
        match: Compare with the expected answers, which every question then has.
        rewards: What answers are rewarded for.
        scores: What they are scored by.
        answer_tokens: Mean length of the expected answers.
        groups: By row, what it belongs to.
        taught: The models that were taught to end their answers, so that it is told where they don't.
    """

    asked: Sequence[Asked]
    max_new_tokens: int
    split: str
    match: bool
    rewards: Sequence[Weighted] = ()
    scores: Sequence[Score] = ()
    answer_tokens: float = 0.0
    groups: Mapping[int, Hashable] = field(default_factory=dict)
    taught: Sequence[Arm] = ("tuned",)
    needs_model: ClassVar[bool] = False

    def take(self, subject: Subject, progress: Progress) -> Answered:
        """Ask the model everything, and say what its answers are worth."""
        answers = subject.answers([one.question for one in self.asked], Drawing(self.max_new_tokens), progress)
        given = self._given(answers)
        return Answered(
            answers, [reward(**given) for reward in self.rewards], [score.take(given) for score in self.scores]
        )

    def without(self, rows: Container[int], taken: Answered) -> tuple[Answers, Answered] | None:
        """See Divisible."""
        places = [place for place, one in enumerate(self.asked) if one.row.number not in rows]
        left = replace(self, asked=[self.asked[place] for place in places])
        return (left, taken.only(places)) if places else None

    def compare(self, base: Answered, tuned: Answered) -> Outcome:
        """Rewards, scores and exact match, as far as they are asked for, of the questions that both models answered."""
        silent = [*unanswered("base", base.answers, self.split), *unanswered("tuned", tuned.answers, self.split)]
        pairs = zip(base.answers, tuned.answers, strict=True)
        places = [place for place, pair in enumerate(pairs) if not any(answer.refused for answer in pair)]
        if not places:
            return Outcome(findings=silent)
        both = replace(self, asked=[self.asked[place] for place in places])
        outcome = both._compare(base.only(places), tuned.only(places))
        return replace(outcome, findings=[*outcome.findings, *silent])

    def _compare(self, base: Answered, tuned: Answered) -> Outcome:
        before, after = base.looks, tuned.looks
        right = self._right(base), self._right(tuned)
        match = compare_shares("exact_match", *right, self._groups) if self.match else None
        rewarded, found = compare_rewards(self.rewards, base.rewards, tuned.rewards, self._groups, self.split)
        scored, failed = self._compare_scores(base, tuned)
        found += [*failed, *on_looks(before, after, self.split)]
        rates: dict[Arm, float] = {"base": before.stop_rate, "tuned": after.stop_rate}
        rates = {arm: rate for arm, rate in rates.items() if arm in self.taught}
        found += on_answers(match, self.answer_tokens, self.split, stop_rates=rates, limit=self.max_new_tokens)
        matched = [*([match] if match else []), *self._compare_labels(base, tuned)]
        return Outcome(
            comparisons=[*rewarded, *scored, *matched],
            findings=found,
            changed=self._changed(base, tuned),
            sides=(before, after),
            versions=versions(self.scores),
        )

    def _given(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """What a trainer would pass to a reward: all answers at once, with the columns of their rows."""
        turns = [one.question.turns for one in self.asked]
        chat = not isinstance(turns[0], str)
        return {
            "prompts": turns,
            "completions": [
                [{"role": "assistant", "content": answer.text}] if chat else answer.text for answer in answers
            ],
            "completion_ids": [answer.ids for answer in answers],
            **columns_of([one.columns for one in self.asked]),
        }

    @property
    def _groups(self) -> list[Hashable] | None:
        return [self.groups[one.row.number] for one in self.asked] if self.groups else None

    def _compare_scores(self, base: Answered, tuned: Answered) -> tuple[list[Comparison], list[Finding]]:
        taken = zip(self.scores, base.scores, tuned.scores, strict=True)
        told = [score.compare(before, after, self._groups, self.split) for score, before, after in taken]
        return [one for comparisons, _ in told for one in comparisons], [one for _, found in told for one in found]

    def _compare_labels(self, base: Answered, tuned: Answered) -> list[Comparison]:
        """Macro-F1, where the expected answers are a few labels, each of several rows."""
        labels = list(dict.fromkeys(one.expected for one in self.asked))
        if not self.match or not 2 <= len(labels) <= min(MOST_OPTIONS, len(self.asked) / _PER_LABEL):
            return []
        macro = MacroF1(labels)

        def counts(taken: Answered) -> list[list[float]]:
            pairs = zip(taken.answers, self.asked, strict=True)
            return [macro.counts(answer.text.strip(), one.expected) for answer, one in pairs]

        return [compare_corpus("macro_f1", counts(base), counts(tuned), macro.total, self._groups)]

    def _right(self, taken: Answered) -> list[bool]:
        pairs = zip(taken.answers, self.asked, strict=True)
        return [answer.text.strip() == one.expected for answer, one in pairs]

    def _worth(self, taken: Answered) -> list[float | None]:
        """What each answer is worth: by the first score, or by being right; nothing where neither is known."""
        if self.scores:
            return self.scores[0].worth(taken.scores[0])
        return list(map(float, self._right(taken))) if self.match else []

    def _changed(self, base: Answered, tuned: Answered) -> list[ChangedRow]:
        """Rows whose answers are worth more or less than they were, the most changed ones first."""
        worth = self._worth(base), self._worth(tuned)
        graded = not {*worth[0], *worth[1]} <= {0.0, 1.0, None}
        rows = zip(self.asked, base.answers, tuned.answers, *worth, strict=False)
        found = [
            (abs(new - old), self._row(one, (said, now), (old, new), graded=graded))
            for one, said, now, old, new in rows
            if old is not None and new is not None and old != new
        ]
        return [row for _, row in sorted(found, key=lambda pair: -pair[0])]

    def _row(
        self, one: Asked, answers: tuple[Answer, Answer], worth: tuple[float, float], *, graded: bool
    ) -> ChangedRow:
        base, tuned = (answer.text.strip() for answer in answers)
        texts = (one.question.prompt, one.question.expected or "", base, tuned)
        row = changed_row(one.row.number, *texts, fixed=worth[1] > worth[0])
        return row.model_copy(update={"scores": worth if graded else None})
