"""The rules on single settings of a resolved plan: intervals, precision, LoRA's scale, what 4 bits need."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator

from ..recipe import Recipe
from ..recipe.adapter import LOW_RANK
from ..records import Finding, Plan, Severity
from ..rules import finding

_WORTH_SAVING = 20
"""Steps of a run from which on a checkpoint is missed."""
_LOGS = 30
"""Entries of the training log that the guard's widest window takes."""
_ALPHA_FAR_OFF = 8.0
"""Times that alpha may be larger or smaller than the rank: QLoRA's paper has 16 at rank 64, guides 32 at rank 8."""


# Optimizers of Transformers, by how their names begin -> module that they import, and the package that brings it.
_OPTIMIZERS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("adamw_bnb", "adamw_8bit", "paged_", "ademamix", "lion_", "rmsprop_bnb"), ("bitsandbytes", "bitsandbytes")
    ),
    **dict.fromkeys(("adamw_torch_4bit", "adamw_torch_8bit"), ("torchao", "torchao")),
    **dict.fromkeys(("lomo", "adalomo"), ("lomo_optim", "lomo-optim")),
    "galore_": ("galore_torch", "galore-torch"),
    "apollo_": ("apollo_torch", "apollo-torch"),
    "grokadamw": ("grokadamw", "grokadamw"),
    "schedule_free_": ("schedulefree", "schedulefree"),
    "stable_adamw": ("optimi", "torch-optimi"),
    "adamw_anyprecision": ("torchdistx", "torchdistx"),
    "adamw_torch_xla": ("torch_xla", "torch-xla"),
    "adamw_torch_npu": ("torch_npu", "torch-npu"),
}


def check_settings(plan: Plan, recipe: Recipe) -> Iterator[Finding]:
    """P022 to P026, P028, P036, P038 and P086."""
    yield from _intervals(plan)
    yield from _logs(plan)
    if recipe.launch.on == "local":
        yield from _optimizer(plan)
    yield from _four_bits(plan, recipe)
    yield from _precision(plan)
    kwargs = plan.training.get("gradient_checkpointing_kwargs") or {}
    if plan.peft and plan.training.get("gradient_checkpointing") and kwargs.get("selective"):
        yield finding("P036", "training.gradient_checkpointing_kwargs")
    adapter = recipe.adapter
    if adapter.kind in LOW_RANK and adapter.alpha:
        ratio = adapter.alpha / adapter.r
        if not 1 / _ALPHA_FAR_OFF <= ratio <= _ALPHA_FAR_OFF:
            yield finding("P028", "adapter.alpha", alpha=adapter.alpha, ratio=ratio, rank=adapter.r)


def interval(training: dict[str, object], name: str, steps: int) -> int | None:
    """Steps between two evaluations (`name` eval), checkpoints (save) or logs (logging); None where it isn't by steps.

    A number below 1 is a share of all steps, rounded up (Trainer, Transformers 5.23).
    """
    every = training.get(f"{name}_steps")
    if training.get(f"{name}_strategy") != "steps" or not isinstance(every, int | float):
        return None
    return math.ceil(steps * every) if every < 1 else int(every)


def _optimizer(plan: Plan) -> Iterator[Finding]:
    name = str(plan.training.get("optim", ""))
    for start, (module, package) in _OPTIMIZERS.items():
        if name.startswith(start) and importlib.util.find_spec(module) is None:
            yield finding("P038", "training.optim", optimizer=name, package=package)


def _intervals(plan: Plan) -> Iterator[Finding]:
    evaluates, saves = (interval(plan.training, name, plan.steps) for name in ("eval", "save"))
    if evaluates and evaluates > plan.steps:
        yield finding("P022", "training.eval_steps", every=evaluates, steps=plan.steps)
        evaluates = None
    strategy = plan.training.get("save_strategy")
    never = strategy == "no" or (strategy == "epoch" and plan.epochs <= 1)
    if plan.steps >= _WORTH_SAVING and (never or (saves and saves >= plan.steps)):
        setting = f"save_strategy is {strategy}" if never else f"save_steps is {saves}"
        yield finding("P023", "training.save_strategy", setting=setting, steps=plan.steps)
    if evaluates and saves and evaluates % saves and saves % evaluates:
        yield finding("P024", "training.eval_steps", evaluates=evaluates, saves=saves)


def _logs(plan: Plan) -> Iterator[Finding]:
    strategy, every = plan.training.get("logging_strategy"), interval(plan.training, "logging", plan.steps)
    if every:
        logs = plan.steps // every
    elif strategy == "epoch":
        logs = math.ceil(plan.epochs)
    elif strategy == "no":
        logs = 0
    else:
        return  # as the plan chooses
    if logs < min(_LOGS, plan.steps):
        severity: Severity = "note" if logs else "warning"
        yield finding("P086", "training.logging_steps", severity=severity, logs=logs, steps=plan.steps)


def _four_bits(plan: Plan, recipe: Recipe) -> Iterator[Finding]:
    if recipe.adapter.kind != "qlora":
        return
    if plan.hardware.device == "mps":
        remedy = "Use `adapter: {kind: lora}`, or a machine with an NVIDIA GPU"
        yield finding("P025", "adapter.kind", lacks="a GPU of NVIDIA's or a CPU, and the run is on mps", remedy=remedy)
    elif recipe.launch.on == "local" and importlib.util.find_spec("bitsandbytes") is None:
        yield finding("P025", "adapter.kind", lacks="bitsandbytes", remedy="Run `pip install 'bitsandbytes>=0.50'`")


def _precision(plan: Plan) -> Iterator[Finding]:
    half, brain = bool(plan.training.get("fp16")), bool(plan.training.get("bf16"))
    gpu = plan.hardware.device == "cuda"
    if half and brain:
        remedy = "Leave fp16 out: bf16 has the range of fp32"
        yield finding("P026", "training.fp16", setting="fp16 and bf16", problem="only one can be on", remedy=remedy)
    if plan.peft is None and plan.model_kwargs["dtype"] == "float16":
        problem = "all weights are trained in fp16, whose gradients underflow and can't be unscaled"
        remedy = "Set `dtype: float32` (with `training: {fp16: true}` to compute in fp16), or use LoRA"
        yield finding("P026", "dtype", setting="dtype float16", problem=problem, remedy=remedy)
    if gpu and brain and not plan.hardware.bf16:
        problem = f"{plan.hardware.name} has no bf16 and emulates it many times slower"
        remedy = "Leave bf16 out: the plan then computes in float32, or say `training: {fp16: true}`"
        yield finding("P026", "training.bf16", severity="warning", setting="bf16", problem=problem, remedy=remedy)
