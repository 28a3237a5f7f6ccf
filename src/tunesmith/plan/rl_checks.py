"""What the trainers of grpo and rloo refuse only after the model is loaded, and what they don't resume exactly."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any, Final

from ..records import Finding, Plan
from ..rules import finding

GRPO_VALUES: Final = {
    "loss_type": ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}
"""Values that GRPOTrainer knows (TRL 1.16); others end the run at its first loss."""
_LEAST_GROUP: Final = 2


def check_generating(plan: Plan) -> Iterator[Finding]:
    """P046 and P054, of a plan whose method writes answers."""
    training = plan.training
    for name, reason, remedy in _refused(plan):
        value = training.get(name)
        yield finding("P046", f"training.{name}", name=name, value=value, reason=reason, remedy=remedy)
    steps = training.get("steps_per_generation") or 0
    if batch := training.get("generation_batch_size"):
        steps = batch // (training["per_device_train_batch_size"] * plan.processes.total)
    accumulation = training["gradient_accumulation_steps"]
    served = max(steps, accumulation) * (training.get("num_iterations") or 1) / accumulation
    if served > 1:
        yield finding("P054", "training.num_iterations", steps=served)


def _refused(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """An argument, why the trainer refuses its value, and what to do."""
    training = plan.training
    for name, known in GRPO_VALUES.items():
        if plan.method == "grpo" and training.get(name, known[0]) not in known:
            yield name, "TRL has none of that name", f"Choose among {', '.join(known)}"
    if training["num_generations"] < _LEAST_GROUP:
        yield "num_generations", "an answer is rewarded against others to its prompt", "Set it to 2 or more; 8 is usual"
    if training.get("temperature", 1.0) <= 0:
        yield "temperature", "answers to one prompt would all be the same", "Leave it out: 1.0 is usual"
    if training.get("auto_find_batch_size"):
        yield "auto_find_batch_size", "a smaller batch would cut groups of answers", "Leave it out"
    if training.get("use_vllm") and plan.recipe["launch"]["on"] == "local" and not _installed("vllm"):
        yield "use_vllm", "vllm isn't installed here", "Run `pip install 'trl[vllm]'`, or leave it out"
    if training.get("sync_ref_model"):
        yield from _reference(plan, training)


def _reference(plan: Plan, training: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if not training.get("beta"):
        yield "sync_ref_model", "with beta 0 there is no reference model", "Leave it out, or set beta above 0"
    elif plan.peft is not None:
        yield "sync_ref_model", "the base under an adapter is the reference, and stays as it is", "Leave it out"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
