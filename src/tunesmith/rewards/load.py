"""A recipe's rewards as callables."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ..recipe.rewards import Reward, is_function
from ..rules import FindingsError, finding
from .called import Called, RewardError, RewardFunction, called, in_words
from .own import load_own
from .shipped import make_shipped


def load_rewards(rewards: Sequence[Reward], load_model: Callable[[Reward], RewardFunction]) -> list[Called]:
    """Each reward as a trainer calls it, in their order.

    Args:
        rewards: Of a recipe. A function of the user's own is run from its file.
        load_model: Makes the callable of a reward model.

    Raises:
        UsageError: there is no such reward, or it takes other arguments.
        EnvironmentLacksError: a package that a reward needs isn't installed.
        FindingsError: P018, a function of the user's can't be loaded.
    """
    return [
        called(reward.spelt, load_model(reward) if reward.model is not None else _function(reward), name)
        for reward, name in zip(rewards, metric_names(rewards), strict=True)
    ]


def load_reward(reward: Reward) -> RewardFunction:
    """A shipped reward or a function of the user's, with its arguments.

    Raises:
        UsageError, EnvironmentLacksError: as load_rewards.
        RewardError: the function can't be loaded.
    """
    assert reward.name is not None
    if not is_function(reward.name):
        return make_shipped(reward.name, reward.arguments)
    function = load_own(reward.name)
    return functools.partial(function, **reward.arguments) if reward.arguments else function


def _function(reward: Reward) -> RewardFunction:
    try:
        return load_reward(reward)
    except RewardError as error:
        problem, remedy = in_words(reward.spelt, error, chat=False)
        found = finding("P018", "rewards", function=reward.spelt, problem=problem, remedy=remedy)
        raise FindingsError([found]) from error


def metric_names(rewards: Sequence[Reward]) -> list[str]:
    """What each reward is called in metrics: its name, its function's or its model's; a number where two are alike."""
    seen: Counter[str] = Counter()
    names = []
    for reward in rewards:
        name = reward.name.rpartition(":")[2] if reward.name else Path(str(reward.model)).name
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names
