"""The recipe resolved: every value that will be used, each derived one with its reason."""

from __future__ import annotations

import importlib.util
import math

from ..recipe.schema import Recipe
from ..records import Finding, Hardware, ModelFacts, Plan, TokenLengths
from .choices import Choices
from .device import fit_batch
from .parameters import lora_arguments, state_memory, trained_parameters
from .preflight import check_plan, is_owned
from .rates import usual_learning_rate
from .rows import UNKNOWN_CONTEXT, Rows
from .versions import installed_versions

_EFFECTIVE_BATCH = 16
_TINY = 10_000_000
_LOG_LINES = 200
_CHECKPOINTS = 5


def resolve(recipe: Recipe, rows: Rows, model: ModelFacts, hardware: Hardware, *, run: str) -> Plan:
    """Resolve a recipe for its data, model and machine.

    `run` is the run's name. Problems are in the plan's findings.
    """
    owned = {name: value for name, value in recipe.training.items() if is_owned(name, value)}
    choices = Choices({name: value for name, value in recipe.training.items() if name not in owned})
    dtype = _dtype(recipe, choices, hardware)
    trained = trained_parameters(model, recipe.adapter)
    memory = state_memory(model.parameters, trained, dtype, adapter=recipe.adapter.kind == "lora")
    max_length = _lengths(choices, rows.lengths, model)
    _batch(choices, hardware, model, rows, free=hardware.memory - memory.state, max_length=max_length)
    _optimizer(choices, recipe, model)
    drop_last = bool(recipe.training.get("dataloader_drop_last"))
    steps, epochs = _steps(choices, len(rows.train), drop_last=drop_last)
    _intervals(choices, steps, bool(rows.eval))
    trackers = _trackers(choices, run)
    _fixed(choices, recipe, rows, hardware, dtype)
    choices.take_rest()
    training = choices.training()
    per_step = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
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
        lora=lora_arguments(recipe.adapter) if recipe.adapter.kind == "lora" else None,
        trackers=trackers,
        parameters=model.parameters,
        parameters_trained=trained,
        steps=steps,
        epochs=epochs,
        tokens_per_step=round(per_step * min(rows.lengths.total.mean, max_length)),
        memory=memory,
        versions=installed_versions(),
    )
    findings: list[Finding] = [*rows.findings, *check_plan(plan, recipe, owned, rows)]
    return plan.model_copy(update={"findings": findings})


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


def _lengths(choices: Choices, lengths: TokenLengths, model: ModelFacts) -> int:
    context = model.context or UNKNOWN_CONTEXT
    longest = lengths.total.max
    if longest <= context:
        value, reason = min(context, math.ceil(longest / 64) * 64), f"the longest row has {longest} tokens; none is cut"
    else:
        value, reason = context, f"the model's context; the longest row has {longest} tokens"
    chosen = choices.choose("max_length", value, reason)
    return int(longest if chosen is None else chosen)


def _batch(choices: Choices, hardware: Hardware, model: ModelFacts, rows: Rows, *, free: int, max_length: int) -> None:
    tiny = model.parameters <= _TINY
    if hardware.device == "cuda":
        micro, checkpointing, why = fit_batch(model, free, max_length, most=_EFFECTIVE_BATCH)
    elif tiny:
        micro, checkpointing, why = _EFFECTIVE_BATCH, False, "a tiny model: overhead per step outweighs padding"
    else:
        micro, checkpointing, why = 1, False, "on a CPU single rows without padding are fastest"
    micro = choices.choose("per_device_train_batch_size", micro, why)
    accumulation = max(1, _EFFECTIVE_BATCH // micro)
    choices.choose(
        "gradient_accumulation_steps",
        accumulation,
        f"{micro * accumulation} rows per optimizer step; about {_EFFECTIVE_BATCH} are usual for SFT",
    )
    choices.choose("per_device_eval_batch_size", micro, "as in training")
    choices.choose(
        "gradient_checkpointing",
        checkpointing,
        "activations don't fit in memory otherwise"
        if checkpointing
        else "activations fit; recomputing costs a quarter",
    )
    _packing(choices, hardware)
    spread = rows.lengths.total.p95 > 2 * rows.lengths.total.median
    if micro > 1 and spread:
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
    kind = recipe.adapter.kind
    what = "LoRA" if kind == "lora" else "full fine-tuning"
    rate = usual_learning_rate(model.parameters, kind)
    choices.choose("learning_rate", rate, f"usual for {what} of {model.parameters / 1e6:,.1f} M parameters")
    choices.choose("lr_scheduler_type", "cosine", "decays to zero, so that the last steps settle")
    choices.choose("optim", "adamw_torch_fused", "the fastest exact AdamW")
    choices.choose("weight_decay", 0.0, "fine-tuning is short; decay pulls away from the base")
    choices.choose("max_grad_norm", 1.0, "clips the rare outlier")


def _steps(choices: Choices, count: int, *, drop_last: bool) -> tuple[int, float]:
    """Optimizer steps and epochs over `count` rows, counted as transformers.Trainer does."""
    micro = choices.training()["per_device_train_batch_size"]
    accumulation = choices.training()["gradient_accumulation_steps"]
    batches = count // micro if drop_last else math.ceil(count / micro)
    per_epoch = max(1, math.ceil(batches / accumulation))
    if choices.given("max_steps") and choices.choose("max_steps", -1, "") > 0:
        steps = choices.training()["max_steps"]
        epochs = steps / per_epoch
    else:
        epochs = choices.choose("num_train_epochs", 3, "usual for SFT; watch the held-out loss")
        steps = math.ceil(per_epoch * epochs)
    choices.choose("warmup_steps", max(1, round(0.05 * steps)), "5% of the steps")
    choices.note("model.steps", steps, f"{count} rows, {micro * accumulation} per step, {epochs:.3g} epochs")
    return steps, float(epochs)


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


def _trackers(choices: Choices, run: str) -> list[str]:
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
    return ["trackio"] if "trackio" in wanted else []


def _fixed(choices: Choices, recipe: Recipe, rows: Rows, hardware: Hardware, dtype: str) -> None:
    mixed = hardware.device == "cuda" and hardware.bf16
    choices.choose("use_cpu", hardware.device == "cpu", f"the device is {hardware.device}")
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
