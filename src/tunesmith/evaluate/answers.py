"""What a model answers, and what that is worth: exact match, and the recipe's rewards."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..progress import Progress
from ..records import ChangedRow, Comparison, Finding
from ..rewards import Called, columns_of, outside_trainer
from ..rules import finding
from .comparisons import compare_means, compare_shares
from .findings import broken, on_answers
from .measure import Answer, greedy_answers
from .outcome import Arm, Outcome, changed_row
from .rows import Question, Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Weighted:
    """A reward, and what its values are multiplied by in the sum."""

    function: Called
    weight: float = 1.0

    @property
    def name(self) -> str:
        """As the trainer's metrics have it."""
        return self.function.__name__

    def __call__(self, **given: Any) -> list[float]:
        """A value for each completion, called as a trainer would; NaN: no opinion."""
        values: Any = self.function(**given, **outside_trainer())
        if inspect.isawaitable(values):
            values = asyncio.run(_awaited(values))
        return [math.nan if value is None else value for value in values]


async def _awaited(values: Awaitable[Any]) -> Any:
    return await values


@dataclass(frozen=True)
class Asked:
    """A question, and the row that it is made of."""

    question: Question
    row: Row


@dataclass(frozen=True)
class Answered:
    """What one model answered: an answer per question, and per reward a value for each (NaN: no opinion)."""

    answers: list[Answer]
    rewards: list[list[float]] = field(default_factory=list)

    @property
    def stop_rate(self) -> float:
        """Share of answers that ended by themselves."""
        return sum(answer.stopped for answer in self.answers) / len(self.answers)


@dataclass(frozen=True)
class Answers:
    """Greedy answers to held-out questions.

    Attributes:
        asked: At least one question.
        tokenizer: The model's.
        max_new_tokens: Tokens after which an answer is cut.
        batch_size: Questions at once.
        split: Path of the rows.
        match: Compare with the expected answers, which every question then has.
        rewards: What answers are rewarded for.
        answer_tokens: Mean length of the expected answers.
    """

    asked: Sequence[Asked]
    tokenizer: PreTrainedTokenizerBase
    max_new_tokens: int
    batch_size: int
    split: str
    match: bool
    rewards: Sequence[Weighted] = ()
    answer_tokens: float = 0.0

    def take(self, arm: Arm, model: PreTrainedModel, progress: Progress) -> Answered:
        """Ask the model everything, and reward what it says."""
        answers = greedy_answers(
            model,
            self.tokenizer,
            [one.question for one in self.asked],
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            label=f"{arm}: answers",
            progress=progress,
        )
        return Answered(answers, [self._rewarded(reward, answers) for reward in self.rewards])

    def compare(self, base: Answered, tuned: Answered) -> Outcome:
        """Exact match and rewards, as far as they are asked for."""
        right = [self._right(measured) for measured in (base, tuned)]
        match = compare_shares("exact_match", *right) if self.match else None
        rewarded, found = self._compare_rewards(base, tuned)
        found += on_answers(match, self.answer_tokens, self.split, stop_rate=tuned.stop_rate, limit=self.max_new_tokens)
        return Outcome(
            comparisons=[*rewarded, *([match] if match else [])],
            findings=found,
            changed=self._changed(base, tuned, *right) if self.match else [],
            stop_rates=(base.stop_rate, tuned.stop_rate),
        )

    def _rewarded(self, reward: Weighted, answers: Sequence[Answer]) -> list[float]:
        """The reward's values, given all answers at once with the columns of their rows."""
        rows = [one.row.content for one in self.asked]
        chat = not isinstance(rows[0]["prompt"], str)
        return reward(
            prompts=[row["prompt"] for row in rows],
            completions=[
                [{"role": "assistant", "content": answer.text}] if chat else answer.text for answer in answers
            ],
            completion_ids=[answer.ids for answer in answers],
            **columns_of(rows),
        )

    def _compare_rewards(self, base: Answered, tuned: Answered) -> tuple[list[Comparison], list[Finding]]:
        """The weighted sum of the rewards, as the trainer learns from it; then each, where there are several."""
        if not self.rewards:
            return [], []
        before, after = self._sums(base), self._sums(tuned)
        if found := broken("reward", self.split, before, after):
            return [], found
        if len({*before, *after}) == 1:
            found = [finding("E010", self.split, count=len(before), value=before[0])]
        compared = [compare_means("reward", before, after)]
        if len(self.rewards) > 1:
            for reward, old, new in zip(self.rewards, base.rewards, tuned.rewards, strict=True):
                compared += _compare_opinions(f"reward: {reward.name}", old, new)
        return compared, found

    def _sums(self, measured: Answered) -> list[float]:
        """Per answer, the sum of weight times value; no opinion counts as 0, as in TRL."""
        weights = [reward.weight for reward in self.rewards]
        return [
            sum(weight * value for weight, value in zip(weights, values, strict=True) if not math.isnan(value))
            for values in zip(*measured.rewards, strict=True)
        ]

    def _right(self, measured: Answered) -> list[bool]:
        pairs = zip(measured.answers, self.asked, strict=True)
        return [answer.text.strip() == (one.question.expected or "").strip() for answer, one in pairs]

    def _changed(
        self, base: Answered, tuned: Answered, base_right: list[bool], tuned_right: list[bool]
    ) -> list[ChangedRow]:
        rows = zip(self.asked, base.answers, tuned.answers, base_right, tuned_right, strict=True)
        return [
            changed_row(
                one.question.row,
                one.question.prompt,
                one.question.expected or "",
                before.text.strip(),
                after.text.strip(),
                fixed=after_right,
            )
            for one, before, after, before_right, after_right in rows
            if before_right != after_right
        ]


def _compare_opinions(metric: str, base: Sequence[float], tuned: Sequence[float]) -> list[Comparison]:
    """The means of a reward over the rows of which it has an opinion under both models."""
    both = [pair for pair in zip(base, tuned, strict=True) if not any(map(math.isnan, pair))]
    if not both:
        return []
    before, after = zip(*both, strict=True)
    return [compare_means(metric, before, after)]
