"""Which answers a model prefers: the measures of dpo, kto and reward.

A policy's preference is the log-probability of an answer, summed over its tokens. What preference training moves is the
implicit reward of an answer y to x, beta * (log p_tuned(y|x) - log p_base(y|x)), with the base as the reference
(Rafailov et al. 2023, Direct Preference Optimization, section 4; Ethayarajh et al. 2024, KTO, section 4). Between two
runs there is no such reference, and implicit rewards are left out. A reward model's preference is its score (Bradley
and Terry 1952).
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from ..progress import Progress
from ..records import ChangedRow, Comparison, Finding
from ..rules import finding
from .comparisons import compare_groups, compare_losses, compare_means, compare_shares, compare_with_chance
from .findings import broken, longer_wins, worsened
from .measure import row_losses, sequence_scores
from .outcome import Outcome, changed_row
from .pairs import Marked, Pair
from .resampling import Groups
from .rows import Encoded, as_text
from .subject import Local

RISEN: Final = 1.1
"""Times its base to which a loss has to rise before it is told; less comes of any training on many rows."""


@dataclass(frozen=True)
class Preference:
    """How likely a language model finds the chosen and the rejected answer of each pair.

    `rewarded`: the base is what tuned started from, so that tuned has implicit rewards.
    """

    pairs: Sequence[Pair]
    beta: float
    batch_size: int
    split: str
    losses: Sequence[str]
    groups: Mapping[int, Hashable] = field(default_factory=dict)
    rewarded: bool = True
    needs_model: ClassVar[bool] = True

    def take(self, subject: Local, progress: Progress) -> list[float]:
        """Nats of all chosen answers, then of all rejected ones."""
        label = f"{subject.name}: preference"
        rows = _both(self.pairs)
        return row_losses(subject.model, rows, batch_size=self.batch_size, label=label, progress=progress)

    def without(self, rows: Container[int], taken: list[float]) -> tuple[Preference, list[float]] | None:
        """See Divisible."""
        pairs, left = _without(rows, self.pairs, taken)
        return (replace(self, pairs=pairs), left) if pairs else None

    def compare(self, base: list[float], tuned: list[float]) -> Outcome:
        """Implicit rewards against chance, which answer is likelier, and how likely the chosen ones are."""
        if found := broken("log-probability", self.split, base, tuned):
            return Outcome(findings=found)
        before, after = _margins(base, sign=-1), _margins(tuned, sign=-1)
        rewarded, found = self._compare_rewards(before, after)
        count = len(self.pairs)
        tokens = [len(pair.chosen.positions) for pair in self.pairs]
        groups = _groups(self.groups, self.pairs)
        chosen = compare_losses(base[:count], tuned[:count], tokens, "chosen_loss", groups)
        comparisons = [*rewarded, _accuracy(before, after, groups), chosen]
        findings = [*less_likely(chosen, "chosen", self.split, self.losses), *found]
        return Outcome(comparisons, findings, _changed(self.pairs, before, after))

    def _compare_rewards(
        self, before: Sequence[float], after: Sequence[float]
    ) -> tuple[list[Comparison], list[Finding]]:
        """The implicit rewards of tuned against chance; E053 where it has none beside base."""
        if not self.rewarded:
            return [], no_rewards(2)
        rewards = [self.beta * (new - old) for old, new in zip(before, after, strict=True)]
        groups = _groups(self.groups, self.pairs)
        comparisons = [
            *compare_with_chance("reward_accuracy", rewards, groups),
            compare_means("reward_margin", [0.0] * len(rewards), rewards, groups, shares=False),
        ]
        return comparisons, longer_wins(rewards, _lengths(self.pairs), self.split)


@dataclass(frozen=True)
class Scored:
    """What a reward model scores the chosen and the rejected answer of each pair with."""

    pairs: Sequence[Pair]
    pad: int
    batch_size: int
    split: str
    groups: Mapping[int, Hashable] = field(default_factory=dict)
    needs_model: ClassVar[bool] = True

    def take(self, subject: Local, progress: Progress) -> list[float]:
        """Scores of all chosen answers, then of all rejected ones."""
        return sequence_scores(
            subject.model,
            [row.ids for row in _both(self.pairs)],
            pad=self.pad,
            batch_size=self.batch_size,
            label=f"{subject.name}: scores",
            progress=progress,
        )

    def without(self, rows: Container[int], taken: list[float]) -> tuple[Scored, list[float]] | None:
        """See Divisible."""
        pairs, left = _without(rows, self.pairs, taken)
        return (replace(self, pairs=pairs), left) if pairs else None

    def compare(self, base: list[float], tuned: list[float]) -> Outcome:
        """How often, and by how much, chosen answers have the higher score; a base without a head scores at random."""
        if found := broken("score", self.split, base, tuned):
            return Outcome(findings=found)
        before, after = _margins(base), _margins(tuned)
        groups = _groups(self.groups, self.pairs)
        comparisons = [
            _accuracy(before, after, groups),
            compare_means("score_margin", before, after, groups, shares=False),
        ]
        findings = longer_wins(after, _lengths(self.pairs), self.split)
        return Outcome(comparisons, findings, _changed(self.pairs, before, after))


@dataclass(frozen=True)
class Margin:
    """How likely a language model finds answers that are marked as good or bad.

    `rewarded`: as of Preference.
    """

    answers: Sequence[Marked]
    beta: float
    batch_size: int
    split: str
    groups: Mapping[int, Hashable] = field(default_factory=dict)
    rewarded: bool = True
    needs_model: ClassVar[bool] = True

    def take(self, subject: Local, progress: Progress) -> list[float]:
        """Nats per answer."""
        rows = [marked.answer for marked in self.answers]
        label = f"{subject.name}: preference"
        return row_losses(subject.model, rows, batch_size=self.batch_size, label=label, progress=progress)

    def without(self, rows: Container[int], taken: list[float]) -> tuple[Margin, list[float]] | None:
        """See Divisible."""
        places = [place for place, marked in enumerate(self.answers) if marked.row.number not in rows]
        left = replace(self, answers=[self.answers[place] for place in places])
        return (left, [taken[place] for place in places]) if places else None

    def compare(self, base: list[float], tuned: list[float]) -> Outcome:
        """The implicit reward of desirable answers against that of undesirable ones."""
        if found := broken("log-probability", self.split, base, tuned):
            return Outcome(findings=found)
        rewards = [self.beta * (old - new) for old, new in zip(base, tuned, strict=True)]
        good, bad = self._of(rewards, desirable=True), self._of(rewards, desirable=False)
        if not good or not bad:
            label = "desirable" if good else "undesirable"
            return Outcome(findings=[finding("E012", self.split, label=label)])
        desirable = [marked for marked in self.answers if marked.desirable]
        tokens = [len(marked.answer.positions) for marked in desirable]
        of_good = _groups(self.groups, desirable)
        of_bad = _groups(self.groups, [marked for marked in self.answers if not marked.desirable])
        likely = compare_losses(
            self._of(base, desirable=True), self._of(tuned, desirable=True), tokens, "desirable_loss", of_good
        )
        told = less_likely(likely, "desirable", self.split, ())
        if not self.rewarded:
            return Outcome([likely], [*told, *no_rewards(1)])
        margin = compare_groups("reward_margin", good, bad, (of_good, of_bad) if of_good and of_bad else None)
        return Outcome([margin, likely], told)

    def _of(self, values: Sequence[float], *, desirable: bool) -> list[float]:
        """The values of the answers with one mark."""
        pairs = zip(values, self.answers, strict=True)
        return [value for value, marked in pairs if marked.desirable is desirable]


def no_rewards(count: int) -> list[Finding]:
    """E053 for so many metrics of implicit rewards, between two runs."""
    reason = "implicit rewards are told against what a run started from, not against another run"
    return [finding("E053", "task", count=count, suite="task", reason=reason)]


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


def _without(rows: Container[int], pairs: Sequence[Pair], taken: Sequence[float]) -> tuple[list[Pair], list[float]]:
    """The pairs of other rows, and what was taken of all chosen answers, then of all rejected ones, for these."""
    places = [place for place, pair in enumerate(pairs) if pair.row.number not in rows]
    both = [*places, *(place + len(pairs) for place in places)]
    return [pairs[place] for place in places], [taken[place] for place in both]


def _margins(values: Sequence[float], sign: int = 1) -> list[float]:
    """Chosen minus rejected, of values of all chosen answers followed by those of all rejected ones."""
    half = len(values) // 2
    return [sign * (chosen - rejected) for chosen, rejected in zip(values[:half], values[half:], strict=True)]


def _accuracy(before: Sequence[float], after: Sequence[float], groups: Groups | None) -> Comparison:
    right = [gain > 0 for gain in before], [gain > 0 for gain in after]
    return compare_shares("preference_accuracy", *right, groups)


def _groups(groups: Mapping[int, Hashable], answers: Sequence[Pair | Marked]) -> Groups | None:
    """What the rows of answers belong to; None where rows don't belong together."""
    return [groups[answer.row.number] for answer in answers] if groups else None


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
