"""Parameters that are trained."""

from __future__ import annotations

from ..models.lora import adapted_layers, target_names
from ..recipe.schema import Adapter
from ..records import Finding, ModelFacts
from ..rules import finding


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
    """Number of trained parameters: all, or r * (in + out) for each layer that LoRA adapts (Hu et al. 2021)."""
    if adapter.kind == "none":
        return model.parameters
    return sum(
        adapter.r * (layer.in_features + layer.out_features) * layer.count
        for layer in adapted_layers(model, adapter.targets)
    )


def unknown_targets(model: ModelFacts, adapter: Adapter) -> list[Finding]:
    """P008 for each LoRA target that names no linear layer."""
    if adapter.kind == "none" or isinstance(adapter.targets, str):
        return []
    names = target_names(model)
    return [
        finding("P008", "adapter.targets", target=target, model=model.name, names=", ".join(names))
        for target in adapter.targets
        if target not in names
    ]
