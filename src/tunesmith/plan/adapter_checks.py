"""The rules on what an adapter can't do, and on an earlier run's adapter that a run starts from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ..recipe import Recipe
from ..recipe.adapter import LOW_RANK, VIRTUAL, Adapter
from ..records import EarlierAdapter, Finding, ModelFacts, Plan
from ..rules import finding

_LOW_RANK_KEYS = ("r", "alpha", "dropout", "targets", "dora", "rslora", "init", "tokens")
_KEYS: Final = {
    "none": ("tokens",),
    "lora": _LOW_RANK_KEYS,
    "qlora": _LOW_RANK_KEYS,
    "ia3": ("targets",),
    "prompt": ("virtual_tokens",),
    "prefix": ("virtual_tokens",),
}
"""Keys of `adapter:` that a kind looks at."""
_TYPES: Final = {
    "lora": "LORA",
    "qlora": "LORA",
    "ia3": "IA3",
    "prompt": "PROMPT_TUNING",
    "prefix": "PREFIX_TUNING",
}
"""PEFT's type of each kind."""
_NOT_MERGED: Final = (
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "CPT",
    "CARTRIDGE",
    "ADAPTION_PROMPT",
    "XLORA",
)
"""PEFT's types without merge_and_unload. Source: the tuners of PEFT 0.21."""


def check_adapter(plan: Plan, recipe: Recipe) -> Iterator[Finding]:
    """P056 to P063."""
    adapter, model = recipe.adapter, plan.model
    for setting, problem, remedy in _clashes(recipe, plan):
        yield finding("P056", "adapter", setting=setting, problem=problem, remedy=remedy)
    yield from _idle(adapter, model)
    yield from _earlier(recipe, model)
    if adapter.kind in VIRTUAL and recipe.export.gguf:
        yield finding("P061", "export.gguf", kind=adapter.kind.capitalize())
    if adapter.kind == "qlora":
        yield finding("P063", "adapter.kind", model=model.name)


_Clash = tuple[str, str, str]
"""Settings that don't go together, why, and what to do."""


def _clashes(recipe: Recipe, plan: Plan) -> Iterator[_Clash]:
    adapter = recipe.adapter
    if adapter.mutates_base:
        setting = f"init {adapter.init} with"
        problem = "the adapter is saved as one for the unchanged base, and that keeps LoRA's two matrices alone"
        for other in (name for name, given in {"dora": adapter.dora, "tokens": adapter.tokens}.items() if given):
            yield f"{setting} {other}", problem, f"Leave `init` out, or `{other}`"
        if adapter.kind == "qlora":
            problem = "it changes the base's weights, which are in 4 bits here"
            yield f"{setting} kind qlora", problem, "Leave `init` out, or take `kind: lora`"
    if adapter.tokens and adapter.kind not in ("none", *LOW_RANK):
        setting = f"tokens with kind {adapter.kind}"
        yield setting, "PEFT trains no embeddings beside it", "Take `kind: lora`, or leave `tokens` out"
    if adapter.kind == "qlora" and recipe.method == "reward" and plan.model_kwargs.get("dtype") == "float32":
        problem = "TRL puts the head that gives the score into bf16, and the rest computes in float32"
        yield "kind qlora with method reward in float32", problem, "Set `dtype: bfloat16`"
    if adapter.kind in VIRTUAL:
        yield from _virtual_clashes(adapter, plan.training)
    if adapter.kind == "none" and (plan.model.earlier or plan.model.embeddings):
        yield from _lost_reference(recipe, plan.training)


def _virtual_clashes(adapter: Adapter, training: dict[str, Any]) -> Iterator[_Clash]:
    kind = f"kind {adapter.kind}"
    if adapter.kind == "prefix" and training.get("gradient_checkpointing"):
        problem = "blocks that are computed again don't see the prefix, and their shapes no longer agree"
        remedy = "Set `training: {gradient_checkpointing: false}` with a smaller batch, or take `kind: prompt`"
        yield f"{kind} with gradient_checkpointing", problem, remedy
    packed = next((name for name in ("packing", "padding_free") if training.get(name)), None)
    if packed:
        problem = "of all the documents in a row only the first would follow the virtual tokens"
        yield f"{kind} with {packed}", problem, f"Set `training: {{{packed}: false}}`, or take `kind: lora`"


def _lost_reference(recipe: Recipe, training: dict[str, Any]) -> Iterator[_Clash]:
    """Of trainers that load their reference by the model's name; dpo and kto are given theirs."""
    if recipe.method in ("grpo", "rloo") and training.get("beta"):
        problem = "the trainer's reference would be the base without what the earlier run added"
        remedy = "Set `training: {beta: 0}`, train an adapter, or take RUN/export/merged as `model:`"
        yield f"all weights of an adapted model with method {recipe.method} and beta", problem, remedy


def _idle(adapter: Adapter, model: ModelFacts) -> Iterator[Finding]:
    """P057 for keys that the kind, or the earlier adapter, doesn't look at."""
    given = _given(adapter)
    unused = [name for name in given if name not in _KEYS[adapter.kind]]
    if unused:
        reason = f"kind {adapter.kind} has no such setting"
        yield _does_nothing(unused, reason, "Leave them out, or choose another kind")
    if adapter.earlier == "continue" and not model.earlier:
        yield _does_nothing(["earlier"], f"{model.name} is no earlier run's adapter", "Leave it out")
    if model.continues:
        theirs = [name for name in given if name in _KEYS[adapter.kind] and not _agrees(adapter, name, model)]
        if theirs:
            yield _does_nothing(theirs, "the earlier adapter is trained on as it is", "Leave them out, or merge it")


def _given(adapter: Adapter) -> list[str]:
    """Keys that differ from their defaults, but for what is trained and how to go on."""
    defaults = Adapter()
    names = (name for name in Adapter.model_fields if name not in ("kind", "earlier"))
    return [name for name in names if getattr(adapter, name) != getattr(defaults, name)]


def _agrees(adapter: Adapter, name: str, model: ModelFacts) -> bool:
    """Whether the earlier adapter has what the recipe says of it."""
    settings = model.earlier[-1].settings
    known: dict[str, Any] = {
        "r": settings.get("r"),
        "alpha": settings.get("lora_alpha"),
        "dora": settings.get("use_dora", False),
        "rslora": settings.get("use_rslora", False),
        "virtual_tokens": settings.get("num_virtual_tokens"),
    }
    return name in known and getattr(adapter, name) == known[name]


def _does_nothing(keys: list[str], reason: str, remedy: str) -> Finding:
    return finding("P057", "adapter", keys=", adapter.".join(keys), count=len(keys), reason=reason, remedy=remedy)


def _earlier(recipe: Recipe, model: ModelFacts) -> Iterator[Finding]:
    """P058 to P060 and P062, on the earlier runs' adapters."""
    adapter = recipe.adapter
    merged = model.earlier[:-1] if model.continues else model.earlier
    for one in merged:
        if one.kind in _NOT_MERGED:
            yield finding("P058", "model", path=one.path, kind=one.kind)
    if any(one.task == "SEQ_CLS" for one in merged) and recipe.method != "reward":
        yield finding("P062", "model", model=model.name)
    if merged and adapter.kind == "qlora":
        yield finding("P060", "adapter.kind", model=model.name)
    if model.continues and (problem := _cannot_continue(recipe, model.earlier[-1])):
        remedy = "Set `adapter: {kind: ...}` to the earlier one's kind, or leave `earlier` out: then it is merged first"
        yield finding("P059", "adapter.earlier", problem=problem, remedy=remedy)


def _cannot_continue(recipe: Recipe, earlier: EarlierAdapter) -> str:
    """Why the earlier adapter can't be what the recipe trains; empty where it can."""
    adapter = recipe.adapter
    if adapter.kind == "none":
        return "all weights are to be trained, not the adapter"
    if earlier.kind in _NOT_MERGED:
        return f"PEFT loads an adapter of kind {earlier.kind} for use alone, not to train it"
    if _TYPES[adapter.kind] != earlier.kind:
        return f"it is of kind {earlier.kind}, and the recipe trains {adapter.kind}"
    if (earlier.task == "SEQ_CLS") != (recipe.method == "reward"):
        return "one of the two is a reward model, the other a language model"
    if adapter.tokens:
        return "tokens can't be added to an adapter that is there already"
    return ""
