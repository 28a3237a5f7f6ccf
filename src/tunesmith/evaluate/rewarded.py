"""The recipe's rewards and scores, as an evaluation calls them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..models.reward import RewardModel, load_reward_model
from ..recipe.rewards import Reward, read_rewards
from ..records import Comparison, Finding, Plan
from ..rewards import Called, load_reward, load_rewards, metric_names, outside_trainer, settled
from ..rules import finding
from .comparisons import compare_means
from .findings import broken
from .resampling import Groups
from .scores import Score


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
        values = settled(self.function(**given, **outside_trainer()))
        return [math.nan if value is None else value for value in values]


def rewards_of(plan: Plan, device: str) -> list[Weighted]:
    """The rewards of a plan's recipe, each with its weight; reward models on `device`.

    Raises:
        UsageError, EnvironmentLacksError, FindingsError: one can't be loaded.
    """
    rewards = read_rewards(plan.recipe.get("rewards", []))
    functions = load_rewards(rewards, lambda reward: _model(reward, device))
    return [Weighted(function, reward.weight) for function, reward in zip(functions, rewards, strict=True)]


def scores_of(scores: Sequence[Reward], device: str) -> list[Score]:
    """An evaluation's scores; reward models on `device`.

    Raises:
        UsageError, EnvironmentLacksError: one can't be loaded.
        RewardError: a function of the user's can't be.
    """
    return [
        Score(name, score.spelt, _model(score, device) if score.model else load_reward(score))
        for name, score in zip(metric_names(scores), scores, strict=True)
    ]


def _model(reward: Reward, device: str) -> RewardModel:
    return load_reward_model(str(reward.model), reward.revision, device=device)


def compare_rewards(
    rewards: Sequence[Weighted],
    base: Sequence[Sequence[float]],
    tuned: Sequence[Sequence[float]],
    groups: Groups | None,
    split: str,
) -> tuple[list[Comparison], list[Finding]]:
    """The weighted sum of the rewards, as the trainer learns from it; then each, where there are several.

    Args:
        rewards: The rewards.
        base: What each of them gives each of base's answers; NaN: no opinion.
        tuned: The same for tuned's.
        groups: What rows belong to.
        split: Path of the rows.
    """
    if not rewards:
        return [], []
    weights = [reward.weight for reward in rewards]
    before, after = _sums(weights, base), _sums(weights, tuned)
    if found := broken("reward", split, before, after):
        return [], found
    if len({*before, *after}) == 1:
        found = [finding("E010", split, count=len(before), value=before[0])]
    compared = [compare_means("reward", before, after, groups)]
    if len(rewards) > 1:
        for reward, old, new in zip(rewards, base, tuned, strict=True):
            compared += _compare_opinions(f"reward: {reward.name}", old, new, groups)
    return compared, found


def _sums(weights: Sequence[float], rewards: Sequence[Sequence[float]]) -> list[float]:
    """Per answer, the sum of weight times value; no opinion counts as 0, as in TRL."""
    return [
        sum(weight * value for weight, value in zip(weights, values, strict=True) if not math.isnan(value))
        for values in zip(*rewards, strict=True)
    ]


def _compare_opinions(
    metric: str, base: Sequence[float], tuned: Sequence[float], groups: Groups | None
) -> list[Comparison]:
    """The means of a reward over the rows of which it has an opinion under both models."""
    pairs = list(zip(base, tuned, strict=True))
    both = [index for index, pair in enumerate(pairs) if not any(map(math.isnan, pair))]
    if not both:
        return []
    before, after = zip(*(pairs[index] for index in both), strict=True)
    return [compare_means(metric, before, after, [groups[index] for index in both] if groups else None)]
