"""What each method adds to a plan: which loss, which reference, what it generates, how many rows make an update."""

from __future__ import annotations

import math
from typing import Any, Final

from ..recipe.schema import Recipe
from ..records import ModelFacts
from .choices import Choices
from .rows import GENERATING, UNKNOWN_CONTEXT, Rows

EFFECTIVE_BATCH: Final = {"grpo": 64, "rloo": 64}
"""Rows of an optimizer step; of the methods that aren't here, USUAL_BATCH."""
USUAL_BATCH: Final = 16
REFERENCED: Final = ("dpo", "kto")
"""Methods whose loss is relative to a reference model."""
CLASSIFYING: Final = ("reward",)
"""Methods that train a model with a score for its output, in place of a language model."""
_GENERATIONS: Final = 8
_EVALUATED: Final = 2
_JUDGED_BETA: Final = 0.04  # of DeepSeekMath's GRPO with a reward model (Shao et al. 2024)
_NEW_TOKENS: Final = 256
_ROOM: Final = 1.5  # of the longest answer that the rows have: a model that learns to stop needs some room to miss it
_LEAST_ROOM: Final = 16


def effective_batch(method: str) -> int:
    """Rows of an optimizer step; of methods that generate, the model's answers."""
    return EFFECTIVE_BATCH.get(method, USUAL_BATCH)


def choose_method(choices: Choices, recipe: Recipe, rows: Rows, model: ModelFacts) -> None:
    """What the plan decides for the recipe's method alone, before the batch is sized."""
    if recipe.method == "clm":
        _packed_text(choices)
    elif recipe.method == "dpo":
        _against_reference(choices, recipe)
        _kept_likely(choices)
    elif recipe.method == "kto":
        _against_reference(choices, recipe)
        _balanced(choices, rows)
    elif recipe.method in GENERATING:
        _groups(choices, judged=any(reward.model for reward in recipe.rewards))
        _answers(choices, rows, model)


def _packed_text(choices: Choices) -> None:
    choices.choose("packing", True, "running text has no end that matters: no token goes to padding")
    choices.choose("packing_strategy", "bfd_split", "documents longer than a row go on in another one; none is lost")


def _against_reference(choices: Choices, recipe: Recipe) -> None:
    if recipe.adapter.kind == "none":
        choices.choose(
            "precompute_ref_log_probs", True, "the reference speaks once, before training: no second model in memory"
        )
    else:
        choices.choose(
            "precompute_ref_log_probs", False, "the base without its adapter is the reference; it is there anyway"
        )
    choices.choose("beta", 0.1, "usual; lower lets the model go further from its reference")


def _kept_likely(choices: Choices) -> None:
    losses = choices.choose(
        "loss_type",
        ["sigmoid", "sft"],
        "the pairs' loss alone also makes the chosen answers unlikely; their own loss holds them",
    )
    if len(losses) > 1:
        choices.choose("loss_weights", [1.0] * len(losses), "each loss counts the same")


def _balanced(choices: Choices, rows: Rows) -> None:
    """Weights that make both labels count alike; Ethayarajh et al. 2024 ask for a ratio between 1 and 4/3."""
    wanted = sum(bool(row["label"]) for row in rows.train)
    other = len(rows.train) - wanted
    few, reason = min(wanted, other), "as many rows of each label as the other, more or less"
    if not few or max(wanted, other) <= 4 / 3 * few:
        choices.choose("desirable_weight", 1.0, reason)
        choices.choose("undesirable_weight", 1.0, reason)
        return
    reason = f"{wanted} rows are desirable and {other} aren't: both count the same in sum"
    choices.choose("desirable_weight", round(max(1.0, other / wanted), 3), reason)
    choices.choose("undesirable_weight", round(max(1.0, wanted / other), 3), reason)


def _groups(choices: Choices, *, judged: bool) -> None:
    choices.choose("num_generations", _GENERATIONS, "answers to each prompt, which are compared with each other")
    choices.choose("num_generations_eval", _EVALUATED, "enough for the mean reward of held-out prompts")
    choices.choose("temperature", 1.0, "answers of a group must differ to teach anything")
    if judged:
        choices.choose("beta", _JUDGED_BETA, "holds the model near its start: a reward model can be gamed further off")
    else:
        choices.choose("beta", 0.0, "without a reference model; rewards that can be checked need none")


def _answers(choices: Choices, rows: Rows, model: ModelFacts) -> None:
    context = model.context or UNKNOWN_CONTEXT
    room = max(1, context - rows.lengths.total.max)
    if rows.answer_tokens:
        wanted = max(_LEAST_ROOM, math.ceil(_ROOM * rows.answer_tokens / 8) * 8)
        reason = f"the longest right answer has {rows.answer_tokens} tokens; some room to stop late"
    else:
        wanted, reason = _NEW_TOKENS, "the rows have no answers to go by"
    if wanted > room:
        wanted, reason = room, f"what the longest prompt leaves of the model's context of {context:,} tokens"
    choices.choose("max_completion_length", wanted, reason)


def steps_per_pass(training: dict[str, Any], count: int, devices: int, *, drop_last: bool) -> int:
    """Optimizer steps over `count` rows, as the trainers count them.

    transformers.Trainer: batches over all devices, then updates, the last ones incomplete. GRPO and RLOO (TRL 1.16,
    RepeatSampler): whole generation batches of prompts, each used `num_iterations` times; the rest is left out.
    """
    micro: int = training["per_device_train_batch_size"] * devices
    accumulation: int = training["gradient_accumulation_steps"]
    if "num_generations" in training:
        batch: int = training.get("generation_batch_size") or micro * (
            training.get("steps_per_generation") or accumulation
        )
        prompts: int = batch // training["num_generations"]
        used: int = count // max(1, prompts) * (batch // micro) * (training.get("num_iterations") or 1)
        return max(1, math.ceil(used / accumulation))
    batches: int = count // micro if drop_last else math.ceil(count / micro)
    return max(1, math.ceil(batches / accumulation))
