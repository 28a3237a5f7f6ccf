"""Adapter and hyperparameters for data, model and machine, each with its reason.

The guides' defaults are kept where they hold; where they don't, the reason says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ..recipe.adapter import Adapter
from ..records import Choice, ModelFacts
from .parameters import trained_parameters
from .rates import Kind, usual_epochs, usual_learning_rate

_BITS_PER_PARAMETER = 2.0
"""What a trained parameter can hold (Allen-Zhu and Li 2024, Physics of Language Models 3.3)."""
_BITS_PER_TOKEN = 1.0
"""What a token of text teaches at most, its loss in bits (Schulman et al. 2025, LoRA Without Regret)."""
KINDS: Final[tuple[Kind, ...]] = ("none", "lora", "qlora")
_SOFT: Final[dict[Kind, str]] = {"prompt": "prompt tuning", "prefix": "prefix tuning", "ia3": "IA3"}
_RANKS = (16, 32, 64, 128, 256)
_WARM_UP = 0.05
_EPOCHS = {"dpo": 1, "kto": 1, "reward": 1, "grpo": 1, "rloo": 1}
"""Epochs in TRL 1.16's own scripts for the methods that learn from preferences or rewards."""


class Advice(NamedTuple):
    """A value and why it is so."""

    value: Any
    reason: str


def capacity(model: ModelFacts, rank: int, targets: str | list[str] = "all-linear") -> float:
    """Tokens whose content an adapter of this rank can hold, by the two constants above."""
    adapter = Adapter.model_validate({"kind": "lora", "r": rank, "targets": targets})
    return trained_parameters(model, adapter) * _BITS_PER_PARAMETER / _BITS_PER_TOKEN


def adapter_for(model: ModelFacts, tokens: int, fits: Mapping[Kind, bool]) -> Advice | None:
    """Whether to train all weights, LoRA or QLoRA; None where none of them fits: another kind doesn't help then.

    Args:
        model: The model.
        tokens: Of one pass over the training rows.
        fits: Which kinds fit into the memory; those that aren't named are taken to fit.
    """
    full, lora, qlora = (fits.get(kind, True) for kind in KINDS)
    holds = not model.linears or tokens <= capacity(model, _RANKS[-1])
    beyond = f"{_count(tokens)} tokens are more than an adapter of rank {_RANKS[-1]} can hold"
    if full and not holds:
        return Advice("none", beyond)
    if lora and full:
        return Advice("lora", f"an adapter holds {_count(tokens)} tokens, and then learns as much as all weights would")
    if lora:
        return Advice("lora", "all weights don't fit in memory" + ("" if holds else f", though {beyond}"))
    if qlora:
        return Advice("qlora", "LoRA on 16-bit weights doesn't fit; on 4 bits it does, some 30% slower (torchtune)")
    return None


def rank_for(model: ModelFacts, tokens: int, targets: str | list[str] = "all-linear") -> Advice:
    """The smallest of the usual ranks whose adapter can hold the rows."""
    if not model.linears:
        return Advice(_RANKS[0], "usual; the model's layers aren't known")
    for size in _RANKS:
        if capacity(model, size, targets) >= tokens:
            held = _count(capacity(model, size, targets))
            return Advice(size, f"holds about {held} tokens; the rows have {_count(tokens)}")
    return Advice(_RANKS[-1], f"the largest usual one; {_count(tokens)} tokens are more than it can hold")


def learning_rate_for(model: ModelFacts, kind: Kind, method: str = "sft") -> Advice:
    """The usual peak rate."""
    rate, full = (usual_learning_rate(model.parameters, one, method) for one in (kind, KINDS[0]))
    size = f"{model.parameters / 1e9:,.1f} B" if model.parameters >= 1e9 else f"{model.parameters / 1e6:,.1f} M"
    by = "" if method == "sft" else f" by {method}"
    if kind == "none":
        return Advice(rate, f"usual for full fine-tuning{by} of {size} parameters")
    if kind not in KINDS:
        return Advice(rate, f"usual for {_SOFT[kind]}")
    return Advice(rate, f"usual for LoRA{by} of {size} parameters: {rate / full:.2g} times that of full fine-tuning")


def epochs_for(tokens: int, method: str = "sft") -> Advice:
    """Passes over the rows.

    Args:
        tokens: Of one pass.
        method: As TRL names it.
    """
    if method in _EPOCHS:
        return Advice(_EPOCHS[method], f"{method} overfits its pairs or prompts on the second pass")
    if method == "clm":
        return Advice(1, "running text is read once; a second pass teaches it by heart")
    many = usual_epochs(tokens)
    reason = {
        3: "few enough that a second and third pass still teach; watch the held-out loss",
        2: "a third pass would add days and little else",
        1: "rows of this number repeat one another already",
    }
    return Advice(many, f"{_count(tokens)} tokens a pass: {reason[many]}")


def warm_up_for(steps: int) -> Advice:
    """Optimizer steps of rising learning rate."""
    return Advice(max(1, round(_WARM_UP * steps)), "5% of the steps; guides take 3 to 10%")


def advise(model: ModelFacts, adapter: Adapter, tokens: int, fits: Mapping[Kind, bool]) -> list[Choice]:
    """What the recipe trains and would better train otherwise: the adapter's kind and rank, where they differ.

    None where nothing fits: the remedies then say what to change.

    Args:
        model: The model.
        adapter: The recipe's.
        tokens: Of one pass over the training rows.
        fits: Which kinds of training fit into the memory.
    """
    kind = adapter_for(model, tokens, fits)
    if kind is None or adapter.kind not in KINDS:
        return []
    advised = {"adapter.kind": kind} if kind.value != adapter.kind else {}
    if adapter.kind in ("lora", "qlora") and kind.value != "none":
        rank = rank_for(model, tokens, adapter.targets)
        advised |= {"adapter.r": rank} if rank.value > adapter.r else {}
    return [Choice(name=name, value=one.value, reason=one.reason, source="plan") for name, one in advised.items()]


def _count(tokens: float) -> str:
    """A number of tokens as people say it."""
    for size, unit in ((1e9, "billion"), (1e6, "million")):
        if tokens >= size:
            return f"{tokens / size:.3g} {unit}"
    return f"{tokens:,.0f}"
