"""What is to be said of a model before it is fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator

from ..recipe.adapter import LOW_RANK, Adapter
from ..records import Finding, ModelFacts, Severity
from ..rules import finding
from .architectures import architectures
from .families import tuned_siblings
from .lora import adapted_layers, halved_targets


def check_model(model: ModelFacts, *, method: str, adapter: Adapter, images: bool = False) -> Iterator[Finding]:
    """Findings on the model, and on what LoRA makes of it; with `images` it is shown those of the rows."""
    if model.kind == "base" and method == "sft":
        siblings = tuned_siblings(model.name)
        remedy = f"Take {' or '.join(siblings[:2])}" if siblings else "Take its tuned version, if there is one"
        yield finding("P030", "model", model=model.name, remedy=remedy)
    if model.quantised:
        severity: Severity = "error" if adapter.kind == "none" else "warning"
        yield finding("P031", "model", severity=severity, model=model.name, how=model.quantised)
    if model.other_task:
        yield _not_causal(model, model.other_task)
    elif model.rough:
        yield finding("P032", "model", model=model.name, model_type=model.model_type)
    if not model.from_headers:
        yield _not_at_hand(model)
    if model.missing:
        promised = f"{model.parameters + model.missing:,}"
        yield finding("P043", "model", model=model.name, missing=f"{model.missing:,}", promised=promised)
    if model.vision:
        yield finding("P034", "model", model=model.name, share=_share(model.parts.vision, model))
        tower = architectures()["vision"].get(model.model_type)
        if tower and not tower.get("causal") and not images:
            yield _not_causal(model, "a class for images and text")
    if model.experts and adapter.kind in LOW_RANK:
        yield from _experts(model, adapter)


def _not_causal(model: ModelFacts, what: str) -> Finding:
    return finding("P041", "model", model=model.name, model_type=model.model_type, what=what)


def _not_at_hand(model: ModelFacts) -> Finding:
    if model.origin == "table":
        basis, remedy = f"from the table of {model.as_of}: the Hub doesn't give its files", "Plan again with a network"
    else:
        basis, remedy = "from config.json alone: no weights are at hand", "Put the weights beside it, or plan online"
    return finding("P033", "model", model=model.name, basis=basis, remedy=remedy)


def _experts(model: ModelFacts, adapter: Adapter) -> Iterator[Finding]:
    layers = adapted_layers(model, adapter.targets)
    sizes = {layer.name: (layer.in_features + layer.out_features) * layer.count for layer in layers}
    fused = sum(sizes[layer.name] for layer in model.fused if layer in layers)
    if fused:
        what = (
            f"LoRA gives each expert of {model.name} an adapter: {fused / sum(sizes.values()):.0%} of what it trains."
        )
        remedy = "To train attention alone, set `adapter: {targets: [q_proj, k_proj, v_proj, o_proj]}`."
    else:
        what = (
            f"LoRA trains no expert of {model.name}; they have {_share(model.parts.experts, model)} of its parameters."
        )
        remedy = "That is often enough; if it isn't, take a dense model of that size."
    yield finding("P040", "adapter.targets", what=what, remedy=remedy)
    if fused and adapter.dropout:
        setting, remedy = f"dropout {adapter.dropout:g}", "Leave `adapter.dropout` out."
        yield finding("P042", "adapter.dropout", setting=setting, model=model.name, remedy=remedy)
    for given, missing in halved_targets(model, adapter.targets):
        setting, remedy = f"the target {given} without {missing}", f"Name both {given} and {missing}, or neither."
        yield finding("P042", "adapter.targets", setting=setting, model=model.name, remedy=remedy)


def _share(part: int, model: ModelFacts) -> str:
    return f"{part / model.parameters:.0%}" if part else "an unknown part"
