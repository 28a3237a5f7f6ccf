"""The recipe resolved: every value that will be used, each derived one with its reason."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, replace
from typing import Any

from ..models.check import check_model
from ..recipe.schema import Recipe
from ..records import Finding, Hardware, ModelFacts, Plan
from .advice import Advice, advise, epochs_for, learning_rate_for, warm_up_for
from .choices import Choices
from .cost import estimate_cost, price_findings
from .documents import Documents, worth_grouping
from .fit import remedies
from .limits import check_cost, check_merge, check_time
from .machines import Machine, machine_here
from .memory import Step, estimate
from .outlook import outlook
from .parameters import lora_arguments, trained_parameters
from .preflight import check_plan, is_owned
from .rows import UNKNOWN_CONTEXT, Rows
from .sizing import EFFECTIVE_BATCH, check_processes, devices_of, fitting_kinds, micro_batch, step_of
from .time import calibrated
from .versions import installed_versions

_LOG_LINES = 200
_CHECKPOINTS = 5


@dataclass(frozen=True)
class Resolved:
    """A plan, with what it was made of: the step, the rows, the machine."""

    plan: Plan
    step: Step
    rows: Rows
    machine: Machine

    def having(self, **changes: Any) -> Resolved:
        """The same with other values in the plan."""
        return replace(self, plan=self.plan.model_copy(update=changes))

    def at_speed(self, step_seconds: float) -> Resolved:
        """The same with time and cost by a measured optimizer step."""
        if self.plan.time is None:
            return self
        time = calibrated(self.plan.time, self.plan.tokens_per_step / step_seconds)
        return self.having(time=time, cost=estimate_cost(time, self.machine))


def resolve(
    recipe: Recipe, rows: Rows, model: ModelFacts, hardware: Hardware, *, run: str, machine: Machine | None = None
) -> Resolved:
    """Resolve a recipe for its data, model and machine.

    `run` is the run's name; `machine` is where it will be trained, this one by default. Problems are in the plan's
    findings.
    """
    machine = machine or machine_here(hardware)
    owned = {name: value for name, value in recipe.training.items() if is_owned(name, value)}
    choices = Choices({name: value for name, value in recipe.training.items() if name not in owned})
    _choose(choices, recipe, rows, model, hardware, run=run)
    training = choices.training()
    noted = choices.noted()
    dtype = noted["dtype"]
    step = step_of(recipe, model, hardware, {**training, "dtype": dtype}, length=_longest(rows, training["max_length"]))
    per_step = step.rows * step.devices * training["gradient_accumulation_steps"]
    tokens = [min(count, step.length) for count in rows.token_counts]
    plan = Plan(
        recipe=recipe.model_dump(),
        method=recipe.method,
        model=model,
        hardware=hardware,
        layout=rows.layout,
        loss_on=rows.loss_on,
        train=rows.split("train", max_length=training["max_length"]),
        eval=rows.split("eval") if rows.eval else None,
        test=rows.split("test") if rows.test else rows.split("eval") if rows.eval else None,
        choices=choices.made,
        training=training,
        model_kwargs={"dtype": dtype},
        lora=None if recipe.adapter.kind == "none" else lora_arguments(recipe.adapter),
        trackers=["trackio"] if "trackio" in noted else [],
        parameters=model.parameters,
        parameters_trained=trained_parameters(model, recipe.adapter),
        steps=noted["steps"],
        epochs=noted["epochs"],
        tokens_per_step=round(per_step * sum(tokens) / len(tokens)),
        memory=estimate(step),
        remedies=remedies(step, hardware),
        advice=advise(model, recipe.adapter, sum(tokens), fitting_kinds(step, hardware)),
        versions=installed_versions(),
    )
    time, cost = outlook(plan, step, rows, machine)
    plan = plan.model_copy(update={"time": time, "cost": cost})
    findings = [*rows.findings, *check_plan(plan, recipe, owned, rows), *_check_machine(plan, recipe, machine)]
    return Resolved(plan, step, rows, machine).having(findings=findings)


def _choose(choices: Choices, recipe: Recipe, rows: Rows, model: ModelFacts, hardware: Hardware, *, run: str) -> None:
    """Every value that the recipe leaves out, in an order in which each has what it depends on."""
    dtype = _dtype(recipe, choices, hardware)
    max_length = _lengths(choices, rows, model)
    _batch(choices, recipe, hardware, model, rows, dtype=dtype, length=_longest(rows, max_length))
    _optimizer(choices, recipe, model)
    drop_last = bool(recipe.training.get("dataloader_drop_last"))
    steps = _steps(choices, recipe, rows, devices=devices_of(recipe, hardware), drop_last=drop_last)
    _intervals(choices, steps, bool(rows.eval))
    _trackers(choices, run)
    _fixed(choices, recipe, rows, hardware, dtype)
    choices.take_rest()


def _check_machine(plan: Plan, recipe: Recipe, machine: Machine) -> list[Finding]:
    """What the run takes against what the machine has and the recipe allows."""
    findings = [
        *check_model(plan.model, method=recipe.method, adapter=recipe.adapter),
        *check_processes(recipe, plan.hardware),
    ]
    if plan.time:
        findings += check_time(recipe, plan.time)
    if plan.cost:
        findings += check_cost(recipe, plan.cost)
        findings += price_findings([machine])
    return [*findings, *check_merge(plan, machine.ram, machine.name)]


def _longest(rows: Rows, max_length: int | None) -> int:
    """Tokens of the longest row that the trainer sees."""
    longest = max(rows.token_counts, default=1)
    return min(longest, max_length or longest)


def _dtype(recipe: Recipe, choices: Choices, hardware: Hardware) -> str:
    if recipe.dtype != "auto":
        return str(choices.note("model.dtype", recipe.dtype, "set in the recipe", from_recipe=True))
    if hardware.device != "cuda" or not hardware.bf16:
        why = "the CPU computes it fastest for small models" if hardware.device == "cpu" else "this device has no bf16"
        return str(choices.note("model.dtype", "float32", f"{why}, and no update is lost in rounding"))
    if recipe.adapter.kind == "none":
        return str(
            choices.note(
                "model.dtype", "float32", "full fine-tuning: in bf16 weights most small updates are rounded away"
            )
        )
    return str(choices.note("model.dtype", "bfloat16", "the base is frozen under LoRA; half the memory of float32"))


def _lengths(choices: Choices, rows: Rows, model: ModelFacts) -> int | None:
    context = model.context or UNKNOWN_CONTEXT
    longest = rows.lengths.total.max
    if rows.token_error:
        wanted = math.ceil(longest * (1 + rows.token_error) / 64) * 64
        value, reason = min(context, wanted), f"the longest row has about {longest} tokens, by an estimate"
    elif longest <= context:
        value, reason = min(context, math.ceil(longest / 64) * 64), f"the longest row has {longest} tokens; none is cut"
    else:
        value, reason = context, f"the model's context; the longest row has {longest} tokens"
    chosen: int | None = choices.choose("max_length", value, reason)
    return chosen


def _batch(
    choices: Choices, recipe: Recipe, hardware: Hardware, model: ModelFacts, rows: Rows, *, dtype: str, length: int
) -> None:
    given = {name: value for name, value in recipe.training.items() if value is not None}
    step = step_of(recipe, model, hardware, {**given, "dtype": dtype}, length=length)
    sizing = micro_batch(step, hardware, given)
    micro = choices.choose("per_device_train_batch_size", sizing.rows, sizing.why_rows)
    together = micro * step.devices
    accumulation = max(1, EFFECTIVE_BATCH // together)
    choices.choose(
        "gradient_accumulation_steps",
        accumulation,
        f"{together * accumulation} rows per optimizer step; about {EFFECTIVE_BATCH} are usual for SFT",
    )
    choices.choose("per_device_eval_batch_size", micro, "as in training")
    choices.choose("gradient_checkpointing", sizing.recomputes, sizing.why_recomputes)
    _packing(choices, hardware)
    if worth_grouping(Documents.of(rows.token_counts, length), micro):
        choices.choose(
            "train_sampling_strategy", "group_by_length", "lengths differ much; neighbours pad each other less"
        )


def _packing(choices: Choices, hardware: Hardware) -> None:
    if hardware.device != "cuda":
        reason = "packing needs a variable-length attention kernel; on this device it is slower"
    elif importlib.util.find_spec("flash_attn") is None:
        reason = "no flash-attn here; with SDPA the packed mask is quadratic"
    else:
        reason = "padding-free packing isn't built yet (roadmap)"
    choices.choose("packing", False, reason)


def _optimizer(choices: Choices, recipe: Recipe, model: ModelFacts) -> None:
    _take(choices, "learning_rate", learning_rate_for(model, recipe.adapter.kind, recipe.method))
    choices.choose("lr_scheduler_type", "cosine", "decays to zero, so that the last steps settle")
    choices.choose("optim", "adamw_torch_fused", "the fastest exact AdamW")
    choices.choose("weight_decay", 0.0, "fine-tuning is short; decay pulls away from the base")
    choices.choose("max_grad_norm", 1.0, "clips the rare outlier")


def _take(choices: Choices, name: str, advice: Advice) -> Any:
    return choices.choose(name, advice.value, advice.reason)


def _steps(choices: Choices, recipe: Recipe, rows: Rows, *, devices: int, drop_last: bool) -> int:
    """Optimizer steps over the training rows, counted as transformers.Trainer does."""
    count = len(rows.train)
    micro = choices.training()["per_device_train_batch_size"] * devices
    accumulation = choices.training()["gradient_accumulation_steps"]
    batches = count // micro if drop_last else math.ceil(count / micro)
    per_epoch = max(1, math.ceil(batches / accumulation))
    if choices.given("max_steps") and choices.choose("max_steps", -1, "") > 0:
        steps = choices.training()["max_steps"]
        epochs = steps / per_epoch
    else:
        epochs = _take(choices, "num_train_epochs", epochs_for(sum(rows.token_counts), recipe.method))
        steps = math.ceil(per_epoch * epochs)
    _take(choices, "warmup_steps", warm_up_for(steps))
    choices.note("model.epochs", float(epochs), f"{count} rows, {per_epoch} optimizer steps for each pass over them")
    choices.note("model.steps", steps, f"{count} rows, {micro * accumulation} per step, {epochs:.3g} epochs")
    return int(steps)


def _intervals(choices: Choices, steps: int, evaluates: bool) -> None:
    logging = max(1, steps // _LOG_LINES)
    every = max(1, math.ceil(steps / _CHECKPOINTS))
    choices.choose("logging_strategy", "steps", "loss and gradient are watched by step")
    choices.choose("logging_steps", logging, f"about {_LOG_LINES} points on the learning curve")
    choices.choose("save_strategy", "steps", "a crash loses at most a part of the run")
    choices.choose("save_steps", every, f"{_CHECKPOINTS} checkpoints over the run")
    if choices.given("save_total_limit"):
        limit = max(2, choices.choose("save_total_limit", 2, ""))
        choices.made[-1] = choices.made[-1].model_copy(update={"value": limit})
    else:
        choices.choose("save_total_limit", 2, "the last two: one counts while the next is written")
    choices.choose(
        "eval_strategy", "steps" if evaluates else "no", "held-out loss on the way" if evaluates else "no eval rows"
    )
    if evaluates:
        choices.choose("eval_steps", every, "with each checkpoint")


def _trackers(choices: Choices, run: str) -> None:
    wanted = choices.choose(
        "report_to", ["trackio"], "tunesmith feeds Trackio itself: the library's callback can end a run"
    )
    wanted = [wanted] if isinstance(wanted, str) else list(wanted or [])
    # Trackio is fed by tunesmith's own guarded callback, since the library's can end a run.
    others = [tracker for tracker in wanted if tracker not in ("trackio", "none")]
    choices.made[-1] = choices.made[-1].model_copy(update={"value": others or "none"})
    if "trackio" in wanted:
        choices.note(
            "model.trackio",
            "local",
            "on by default: `trackio show --project tunesmith`; nothing goes to the Hub unasked",
        )
    choices.choose("project", "tunesmith", "Trackio project")
    choices.choose("run_name", run, "the run folder's name")


def _fixed(choices: Choices, recipe: Recipe, rows: Rows, hardware: Hardware, dtype: str) -> None:
    mixed = hardware.device == "cuda" and hardware.bf16
    choices.choose("use_cpu", hardware.device == "cpu", f"the device is {hardware.device}")
    if not recipe.training.get("fp16"):
        choices.choose("bf16", mixed, "computes in bf16 on tensor cores" if mixed else f"computes in {dtype}")
    choices.choose("seed", recipe.seed, "seed of the recipe")
    choices.choose("data_seed", recipe.seed, "seed of the recipe")
    if rows.layout == "prompt-completion":
        choices.choose("completion_only_loss", True, "only the answer is trained, never the prompt")
    elif rows.loss_on == "assistant":
        choices.choose("assistant_only_loss", True, "only the assistant's turns are trained")
    choices.choose("logging_nan_inf_filter", False, "else the library logs loss 0.0 for NaN")
    choices.choose("trackio_static_space_id", False, "else a run that pushes publishes a Space, or dies")
    choices.choose("disable_tqdm", True, "tunesmith shows the progress")
