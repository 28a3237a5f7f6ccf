"""Which answers a model prefers: the measures of dpo, kto and reward.

A policy's preference is the log-probability of an answer, summed over its tokens. What preference training moves is the
implicit reward of an answer y to x, beta * (log p_tuned(y|x) - log p_base(y|x)), with the base as the reference
(Rafailov et al. 2023, Direct Preference Optimization, section 4; Ethayarajh et al. 2024, KTO, section 4). A reward
model's is its score (Bradley and Terry 1952).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..progress import Progress
from ..records import ChangedRow, Comparison, Finding
from ..rules import finding
from .comparisons import compare_groups, compare_losses, compare_means, compare_shares, compare_with_chance
from .findings import broken, longer_wins, worsened
from .measure import row_losses, sequence_scores
from .outcome import Arm, Outcome, changed_row
from .pairs import Marked, Pair
from .rows import Encoded, as_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel


RISEN: Final = 1.1
"""Times its base to which a loss has to rise before it is told; less comes of any training on many rows."""


@dataclass(frozen=True)
class Preference:
    """How likely a language model finds the chosen and the rejected answer of each pair."""

    pairs: Sequence[Pair]
    beta: float
    batch_size: int
    split: str
    losses: Sequence[str]

    def take(self, arm: Arm, model: PreTrainedModel, progress: Progress) -> list[float]:
        """Nats of all chosen answers, then of all rejected ones."""
        return row_losses(
            model, _both(self.pairs), batch_size=self.batch_size, label=f"{arm}: preference", progress=progress
        )

    def compare(self, base: list[float], tuned: list[float]) -> Outcome:
        """Implicit rewards against chance, which answer is likelier, and how likely the chosen ones are."""
        if found := broken("log-probability", self.split, base, tuned):
            return Outcome(findings=found)
        before, after = _margins(base, sign=-1), _margins(tuned, sign=-1)
        rewards = [self.beta * (new - old) for old, new in zip(before, after, strict=True)]
        count = len(self.pairs)
        tokens = [len(pair.chosen.positions) for pair in self.pairs]
        chosen = compare_losses(base[:count], tuned[:count], tokens, "chosen_loss")
        comparisons = [
            *compare_with_chance("reward_accuracy", rewards),
            compare_means("reward_margin", [0.0] * count, rewards),
            _accuracy(before, after),
            chosen,
        ]
        lost = less_likely(chosen, "chosen", self.split, self.losses)
        findings = [*lost, *longer_wins(rewards, _lengths(self.pairs), self.split)]
        return Outcome(comparisons, findings, _changed(self.pairs, before, after))


@dataclass(frozen=True)
class Scored:
    """What a reward model scores the chosen and the rejected answer of each pair with."""

    pairs: Sequence[Pair]
    pad: int
    batch_size: int
    split: str

    def take(self, arm: Arm, model: PreTrainedModel, progress: Progress) -> list[float]:
        """Scores of all chosen answers, then of all rejected ones."""
        return sequence_scores(
            model,
            [row.ids for row in _both(self.pairs)],
            pad=self.pad,
            batch_size=self.batch_size,
            label=f"{arm}: scores",
            progress=progress,
        )

    def compare(self, base: list[float], tuned: list[float]) -> Outcome:
        """How often, and by how much, chosen answers have the higher score; a base without a head scores at random."""
        if found := broken("score", self.split, base, tuned):
            return Outcome(findings=found)
        before, after = _margins(base), _margins(tuned)
        comparisons = [_accuracy(before, after), compare_means("score_margin", before, after)]
        findings = longer_wins(after, _lengths(self.pairs), self.split)
        return Outcome(comparisons, findings, _changed(self.pairs, before, after))


@dataclass(frozen=True)
class Margin:
    """How likely a language model finds answers that are marked as good or bad."""

    answers: Sequence[Marked]
    beta: float
    batch_size: int
    split: str

    def take(self, arm: Arm, model: PreTrainedModel, progress: Progress) -> list[float]:
        """Nats per answer."""
        rows = [marked.answer for marked in self.answers]
        return row_losses(model, rows, batch_size=self.batch_size, label=f"{arm}: preference", progress=progress)

    def compare(self, base: list[float], tuned: list[float]) -> Outcome:
        """The implicit reward of desirable answers against that of undesirable ones."""
        if found := broken("log-probability", self.split, base, tuned):
            return Outcome(findings=found)
        rewards = [self.beta * (old - new) for old, new in zip(base, tuned, strict=True)]
        good, bad = self._of(rewards, desirable=True), self._of(rewards, desirable=False)
        if not good or not bad:
            label = "desirable" if good else "undesirable"
            return Outcome(findings=[finding("E012", self.split, label=label)])
        tokens = [len(marked.answer.positions) for marked in self.answers if marked.desirable]
        likely = compare_losses(
            self._of(base, desirable=True), self._of(tuned, desirable=True), tokens, "desirable_loss"
        )
        margin = compare_groups("reward_margin", good, bad)
        return Outcome([margin, likely], less_likely(likely, "desirable", self.split, ()))

    def _of(self, values: Sequence[float], *, desirable: bool) -> list[float]:
        """The values of the answers with one mark."""
        pairs = zip(values, self.answers, strict=True)
        return [value for value, marked in pairs if marked.desirable is desirable]


def less_likely(comparison: Comparison, kind: str, split: str, losses: Sequence[str]) -> list[Finding]:
    """E009 where answers that were to be preferred lost likelihood, and not only a little.

    `losses` are those that dpo was trained with, empty for other methods.
    """
    if not worsened(comparison) or comparison.tuned < RISEN * comparison.base:
        return []
    if "sft" in losses:
        remedy = "Give the sft loss more weight: `training: {loss_weights: [...]}`"
    else:
        advice = f"`training: {{loss_type: [{', '.join([*(losses or ['sigmoid']), 'sft'])}]}}`"
        remedy = f"Hold the good answers: {'' if losses else 'dpo with '}{advice}"
    return [finding("E009", split, kind=kind, base=comparison.base, tuned=comparison.tuned, remedy=remedy)]


def _both(pairs: Sequence[Pair]) -> list[Encoded]:
    return [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]


def _margins(values: Sequence[float], sign: int = 1) -> list[float]:
    """Chosen minus rejected, of values of all chosen answers followed by those of all rejected ones."""
    half = len(values) // 2
    return [sign * (chosen - rejected) for chosen, rejected in zip(values[:half], values[half:], strict=True)]


def _accuracy(before: Sequence[float], after: Sequence[float]) -> Comparison:
    return compare_shares("preference_accuracy", [gain > 0 for gain in before], [gain > 0 for gain in after])


def _lengths(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """Tokens of the answers; of whole rows where no token is marked, which have the prompt in common."""
    return [(len(pair.chosen.ids), len(pair.rejected.ids)) for pair in pairs]


def _changed(pairs: Sequence[Pair], before: Sequence[float], after: Sequence[float]) -> list[ChangedRow]:
    """Pairs of which base and tuned prefer different answers."""
    rows = zip(pairs, before, after, strict=True)
    return [_preferred(pair, fixed=new > 0) for pair, old, new in rows if (old > 0) != (new > 0)]


def _preferred(pair: Pair, *, fixed: bool) -> ChangedRow:
    content: dict[str, Any] = pair.row.content
    prompt, chosen, rejected = (as_text(content.get(name, "")) for name in ("prompt", "chosen", "rejected"))
    before, after = (rejected, chosen) if fixed else (chosen, rejected)
    return changed_row(pair.row.number, prompt, chosen, before, after, fixed=fixed)
