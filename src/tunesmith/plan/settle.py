"""What a recipe comes to on a machine: every argument of the trainer with its reason, and the step that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..recipe.adapter import VIRTUAL
from ..recipe.schema import Recipe
from ..records import Hardware, ModelFacts
from .advice import Advice, epochs_for, learning_rate_for, warm_up_for
from .choices import Choices
from .fast import choose_fast
from .memory import Step
from .methods import choose_method, steps_per_pass
from .preflight import is_owned
from .processes import choose_processes
from .rows import GENERATING, UNKNOWN_CONTEXT, Rows
from .sizing import devices_of, longest_seen, step_of
from .watching import choose_watch

_LOG_LINES = 200
_CHECKPOINTS = 5
_TEXT_LENGTH = 2048  # of packed text: most of what continued pretraining of small models has used


@dataclass(frozen=True)
class Settled:
    """A recipe settled for its rows, model and machine.

    Attributes:
        recipe, rows, model, hardware: What it was settled for.
        choices: Each value with its reason.
        training: The trainer's arguments.
        noted: The values that aren't arguments of the trainer.
        step: The training step that they make.
    """

    recipe: Recipe
    rows: Rows
    model: ModelFacts
    hardware: Hardware
    choices: Choices
    training: dict[str, Any]
    noted: dict[str, Any]
    step: Step

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return int(self.noted["steps"])

    @property
    def epochs(self) -> float:
        """Passes over the rows."""
        return float(self.noted["epochs"])

    @property
    def cut_at(self) -> int | None:
        """Tokens at which rows are cut; None where what is longer goes on in another row, or no row is cut."""
        return _cut_at(self.training)


def settle(recipe: Recipe, rows: Rows, model: ModelFacts, hardware: Hardware, *, run: str = "") -> Settled:
    """Settle every value of a run named `run`: the recipe's where it has one, but for those that the plan owns."""
    given = {name: value for name, value in recipe.training.items() if not is_owned(name, value)}
    choices = Choices(given)
    _choose(choices, recipe, rows, model, hardware, run=run)
    training, noted = choices.training(), choices.noted()
    told = {**training, "dtype": noted["dtype"], "attention": noted["attention"]}
    step = step_of(recipe, model, hardware, told, length=longest_seen(rows, training))
    return Settled(recipe, rows, model, hardware, choices, training, noted, step)


def _choose(choices: Choices, recipe: Recipe, rows: Rows, model: ModelFacts, hardware: Hardware, *, run: str) -> None:
    """Every value that the recipe leaves out, in an order in which each has what it depends on."""
    dtype = _dtype(recipe, choices, hardware)
    if recipe.method not in GENERATING:
        _lengths(choices, recipe, rows, model)
    choose_method(choices, recipe, rows, model)
    choose_fast(choices, recipe, rows, model, hardware, dtype=dtype)
    _optimizer(choices, recipe, model)
    drop_last = bool(recipe.training.get("dataloader_drop_last"))
    steps = _steps(choices, recipe, rows, devices=devices_of(recipe, hardware), drop_last=drop_last)
    _intervals(choices, recipe, steps, evaluates=bool(rows.eval))
    choose_watch(choices, recipe, evaluates=bool(rows.eval))
    _trackers(choices, run)
    _fixed(choices, recipe, rows, hardware)
    choose_processes(choices, recipe, model, hardware)
    choices.take_rest()


def _cut_at(training: dict[str, Any]) -> int | None:
    """Tokens at which rows are cut; None where what is longer goes on in another row, or no row is cut."""
    split = training.get("packing") and training.get("packing_strategy") == "bfd_split"
    return None if split else training.get("max_length")


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


def _lengths(choices: Choices, recipe: Recipe, rows: Rows, model: ModelFacts) -> None:
    context = model.context or UNKNOWN_CONTEXT
    longest = rows.lengths.total.max
    if rows.images:
        value, reason = None, f"an image's tokens can't be cut; the longest text has {longest} tokens beside them"
    elif recipe.method == "clm":
        value, reason = min(context, _TEXT_LENGTH), "rows of packed text; longer documents go on in the next one"
    elif rows.token_error:
        wanted = math.ceil(longest * (1 + rows.token_error) / 64) * 64
        value, reason = min(context, wanted), f"the longest row has about {longest} tokens, by an estimate"
    elif longest <= context:
        value, reason = min(context, math.ceil(longest / 64) * 64), f"the longest row has {longest} tokens; none is cut"
    else:
        value, reason = context, f"the model's context; the longest row has {longest} tokens"
    choices.choose("max_length", value, reason)


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
    training = choices.training()
    per_pass = steps_per_pass({**recipe.training, **training}, _counted(rows, training), devices, drop_last=drop_last)
    if choices.given("max_steps") and choices.choose("max_steps", -1, "") > 0:
        steps = choices.training()["max_steps"]
        epochs = steps / per_pass
    else:
        epochs = _take(choices, "num_train_epochs", epochs_for(sum(rows.token_counts), recipe.method))
        steps = math.ceil(per_pass * epochs)
    _take(choices, "warmup_steps", warm_up_for(steps))
    count = len(rows.train)
    choices.note("model.epochs", float(epochs), f"{count} rows, {per_pass} optimizer steps for each pass over them")
    choices.note("model.steps", steps, f"{count} rows, {per_pass} steps a pass, {epochs:.3g} epochs")
    return int(steps)


def _counted(rows: Rows, training: dict[str, Any]) -> int:
    """Rows that the trainer's loader has: those of the data, or what packing makes of them."""
    if not training.get("packing"):
        return len(rows.train)
    return rows.packed(training["max_length"], split=_cut_at(training) is None)


def _intervals(choices: Choices, recipe: Recipe, steps: int, *, evaluates: bool) -> None:
    logging = max(1, steps // _LOG_LINES)
    every = max(1, math.ceil(steps / _CHECKPOINTS))
    choices.choose("logging_strategy", "steps", "loss and gradient are watched by step")
    choices.choose("logging_steps", logging, f"about {_LOG_LINES} points on the learning curve")
    choices.choose("save_strategy", "steps", "a crash loses at most a part of the run")
    choices.choose("save_steps", every, f"{_CHECKPOINTS} checkpoints over the run")
    choices.choose("save_total_limit", 2, "the last, and one before it to go back to")
    strategy = choices.choose(
        "eval_strategy", "steps" if evaluates else "no", "held-out loss on the way" if evaluates else "no eval rows"
    )
    if evaluates:
        choices.choose("eval_steps", every, "with each checkpoint")
        if recipe.method not in GENERATING and strategy != "no":
            choices.choose("eval_on_start", True, f"{_untrained(recipe)}, to tell whether anything is learnt")


def _untrained(recipe: Recipe) -> str:
    """What is evaluated before the first step."""
    if recipe.adapter.kind in VIRTUAL:
        return "what the base does behind untrained virtual tokens"
    return "what the earlier adapter does" if recipe.adapter.earlier == "continue" else "what the untrained model does"


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


def _fixed(choices: Choices, recipe: Recipe, rows: Rows, hardware: Hardware) -> None:
    choices.choose("use_cpu", hardware.device == "cpu", f"the device is {hardware.device}")
    choices.choose("seed", recipe.seed, "seed of the recipe")
    choices.choose("data_seed", recipe.seed, "seed of the recipe")
    if recipe.method != "sft":
        pass
    elif rows.layout == "prompt-completion":
        choices.choose("completion_only_loss", True, "only the answer is trained, never the prompt")
    elif rows.loss_on == "assistant":
        choices.choose("assistant_only_loss", True, "only the assistant's turns are trained")
    choices.choose("logging_nan_inf_filter", False, "else the library logs loss 0.0 for NaN")
    choices.choose("trackio_static_space_id", False, "else a run that pushes publishes a Space, or dies")
    choices.choose("disable_tqdm", True, "tunesmith shows the progress")
