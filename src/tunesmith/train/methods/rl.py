"""Learning from rewards: TRL's GRPOTrainer and RLOOTrainer, where the model writes the answers itself.

With a reward model they do what PPO did, which left TRL: answers are scored as a whole, each against others to the same
prompt, in place of PPO's value network (Ahmadian et al. 2024, Back to Basics; Shao et al. 2024, DeepSeekMath).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...data.rows import Row
from ...models.reward import RewardModel, load_reward_model
from ...recipe.rewards import Reward, read_rewards
from ...rewards import load_rewards
from ..model import load_trainable

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import GRPOTrainer, RLOOTrainer

    from ..job import Job


def build_grpo(job: Job) -> GRPOTrainer:
    """The trainer of a job that prefers what is better than the others of its group (Shao et al. 2024)."""
    from trl import GRPOConfig, GRPOTrainer

    args = job.arguments(GRPOConfig)
    return GRPOTrainer(args=args, **_parts(job, args))


def build_rloo(job: Job) -> RLOOTrainer:
    """The trainer of a job that prefers what is better than the mean of the others (Ahmadian et al. 2024)."""
    from trl import RLOOConfig, RLOOTrainer

    args = job.arguments(RLOOConfig)
    return RLOOTrainer(args=args, **_parts(job, args))


def _parts(job: Job, args: Any) -> dict[str, Any]:
    """What both trainers are made of; the weights of the rewards go into `args`."""
    rewards = read_rewards(job.plan.recipe["rewards"])
    args.reward_weights = [reward.weight for reward in rewards]
    model = job.plan.model
    if args.beta and job.plan.peft is None:
        # The trainer loads the reference by the model's name alone.
        attention = {"attn_implementation": job.plan.speed.attention} if job.plan.speed.attention else {}
        args.model_init_kwargs = {**job.plan.model_kwargs, **attention, "revision": model.revision}

    def load(reward: Reward) -> RewardModel:
        return load_reward_model(str(reward.model), reward.revision, device=args.device)

    # Before the model: what is wrong with a reward is told at once.
    functions = load_rewards(rewards, load)
    trained, peft_config = load_trainable(job.plan)
    return {
        "model": trained,
        "reward_funcs": functions,
        "train_dataset": _as_dataset(job.rows["train"]),
        "eval_dataset": _as_dataset(job.rows["eval"]) if "eval" in job.rows else None,
        "processing_class": job.tokenizer,
        "peft_config": peft_config,
        "callbacks": job.callbacks,
    }


def _as_dataset(rows: Sequence[Row]) -> Dataset:
    """Prompts as a dataset whose other columns are exactly what the rows hold, for the rewards.

    Arrow would want one type for each column, and give each message the keys of all others.
    """
    from datasets import Dataset, Features, Json, List, Value

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    features = {}
    for name, values in columns.items():
        if all(isinstance(value, str | None) for value in values):
            features[name] = Value("string")
        elif name == "prompt":
            features[name] = List(Json())
        else:
            # The feature would take a text that looks like JSON for JSON; what is encoded already stays as it is.
            features[name], columns[name] = Json(), [json.dumps(value) for value in values]
    return Dataset.from_dict(columns, features=Features(features))
