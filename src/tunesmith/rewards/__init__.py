"""Rewards of answers, for grpo and rloo, and scores for the evaluation: a shipped set, and the user's own functions.

`load_rewards` makes callables of a recipe's rewards, which take what TRL's trainers pass: prompts, completions,
completion_ids, every column of the rows, and give a number (or None, no opinion) for each completion.
"""

from .base import Shipped
from .called import Called, RewardError, RewardFunction, checked_numbers, in_words
from .load import load_reward, load_rewards, metric_names
from .outside import columns_of, outside_trainer, settled
from .shipped import SHIPPED, make_shipped, shipped_class
from .text import OfCorpus

__all__ = [
    "SHIPPED",
    "Called",
    "OfCorpus",
    "RewardError",
    "RewardFunction",
    "Shipped",
    "checked_numbers",
    "columns_of",
    "in_words",
    "load_reward",
    "load_rewards",
    "make_shipped",
    "metric_names",
    "outside_trainer",
    "settled",
    "shipped_class",
]
