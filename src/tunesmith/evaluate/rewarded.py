"""The recipe's rewards, as an evaluation calls them."""

from __future__ import annotations

from ..models.reward import RewardModel, load_reward_model
from ..recipe.rewards import Reward, read_rewards
from ..records import Plan
from ..rewards import load_rewards
from .answers import Weighted


def rewards_of(plan: Plan, device: str) -> list[Weighted]:
    """The rewards of a plan's recipe, each with its weight; reward models on `device`.

    Raises:
        UsageError, EnvironmentLacksError, FindingsError: one can't be loaded.
    """
    rewards = read_rewards(plan.recipe.get("rewards", []))

    def load(reward: Reward) -> RewardModel:
        return load_reward_model(str(reward.model), reward.revision, device=device)

    functions = load_rewards(rewards, load)
    return [Weighted(function, reward.weight) for function, reward in zip(functions, rewards, strict=True)]
