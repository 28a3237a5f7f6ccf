"""Parameters that are trained, and the memory that their state needs."""

from __future__ import annotations

from ..recipe.schema import Adapter
from ..records import Finding, MemoryEstimate, ModelFacts
from ..rules import finding

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def lora_arguments(adapter: Adapter) -> dict[str, object]:
    """Arguments for peft.LoraConfig."""
    return {
        "r": adapter.r,
        "lora_alpha": adapter.alpha or 2 * adapter.r,
        "lora_dropout": adapter.dropout,
        "target_modules": adapter.targets,
        "task_type": "CAUSAL_LM",
    }


def trained_parameters(model: ModelFacts, adapter: Adapter) -> int:
    """Number of trained parameters: all, or r * (in + out) for each linear layer that LoRA targets (Hu et al. 2021)."""
    if adapter.kind == "none":
        return model.parameters
    return sum(
        adapter.r * (linear.in_features + linear.out_features) * linear.count
        for linear in model.linears
        if adapter.targets == "all-linear" or linear.name in adapter.targets
    )


def unknown_targets(model: ModelFacts, adapter: Adapter) -> list[Finding]:
    """P008 for each LoRA target that names no linear layer."""
    if adapter.kind == "none" or isinstance(adapter.targets, str):
        return []
    names = sorted({linear.name for linear in model.linears})
    return [
        finding("P008", "adapter.targets", target=target, model=model.name, names=", ".join(names))
        for target in adapter.targets
        if target not in names
    ]


def state_memory(parameters: int, trained: int, dtype: str, *, adapter: bool) -> MemoryEstimate:
    """Bytes of weights, gradients and AdamW's two moments.

    Under LoRA the base's weights are frozen in `dtype` and the adapter is kept in float32 by PEFT; full fine-tuning has
    everything in `dtype`.
    """
    width = _BYTES[dtype]
    trained_width = 4 if adapter else width
    weights = parameters * width + (trained * trained_width if adapter else 0)
    gradients, optimizer = trained * trained_width, 2 * trained * trained_width
    return MemoryEstimate(
        weights=weights, gradients=gradients, optimizer=optimizer, state=weights + gradients + optimizer
    )
