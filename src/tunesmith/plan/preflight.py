"""The rules that a plan is held against before anything runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from ..recipe.schema import Recipe
from ..records import Finding, Plan, Severity
from ..rules import finding
from .environment import check_versions
from .fit import need
from .parameters import unknown_targets
from .rates import usual_learning_rate
from .remote import check_launch, is_remote
from .rows import Rows
from .settings_checks import check_settings

# Arguments of TRL that the run folder, the plan or a later part of tunesmith owns: name -> (why, what to do).
OWNED = {
    "output_dir": ("each run has a folder of its own", "Use the command's --output."),
    "resume_from_checkpoint": ("a run is resumed from its last complete checkpoint", "Use `tunesmith resume RUN`."),
    "seed": ("the recipe has one seed for split, order and training", "Set `seed:` at the top of the recipe."),
    "data_seed": ("the recipe has one seed for split, order and training", "Set `seed:` at the top of the recipe."),
    "completion_only_loss": ("the plan sets it from the data's layout", "Leave it out."),
    "assistant_only_loss": ("the plan sets it from the data's layout", "Leave it out."),
    "logging_nan_inf_filter": ("the guard against NaN needs it off", "Leave it out."),
    "disable_tqdm": ("tunesmith shows the progress itself", "Leave it out."),
    "trackio_static_space_id": ("it publishes a Space, or ends the run", "Leave it out."),
    "model_init_kwargs": ("the plan loads the model", "Use `dtype:` and `revision:` at the top of the recipe."),
    "trust_remote_code": ("model code from a repository is never run", "Leave it out."),
    "chat_template_path": ("the recipe names the template", "Set `chat_template:` at the top of the recipe."),
    "load_best_model_at_end": (
        "the test rows would no longer be unseen",
        "Leave it out; the curve shows the best step.",
    ),
    "save_only_model": ("a checkpoint without optimizer can't be resumed", "Leave it out."),
    "push_to_hub": ("the recipe names the repository", "Set `hub: {repo: OWNER/NAME}` at the top of the recipe."),
    "hub_model_id": ("the recipe names the repository", "Set `hub: {repo: OWNER/NAME}` at the top of the recipe."),
    "hub_token": ("secrets don't belong in a recipe", "Log in with `hf auth login`."),
    "deepspeed": ("several processes aren't built yet (roadmap)", "Leave it out."),
    "fsdp": ("several processes aren't built yet (roadmap)", "Leave it out."),
    "use_cpu": ("the plan chooses the device", 'Set CUDA_VISIBLE_DEVICES="" in the environment.'),
    "dataset_text_field": ("tunesmith prepares the rows", "Use `data: {mapping: {text: COLUMN}}`."),
    "eos_token": ("the audit and the export rely on the tokenizer's own", "Set eos_token in tokenizer_config.json."),
    "save_strategy": ("the best checkpoint isn't chosen: the test rows stay unseen", "Use steps or epoch."),
    "use_liger_kernel": ("TRL removes it, and its kernels aren't built in yet (roadmap)", "Leave it out."),
    "report_to": ("`all` loads trackers that nobody asked for", "Name them: `report_to: [trackio, tensorboard]`."),
    "dataset_kwargs": ("tunesmith prepares the rows", "Leave it out."),
    "packing": ("packing isn't built yet (roadmap)", "Leave it out."),
    "eval_packing": ("packing isn't built yet (roadmap)", "Leave it out."),
    "padding_free": ("packing isn't built yet (roadmap)", "Leave it out."),
}
# Of these, only some values are refused.
_ALLOWED_BUT: dict[str, tuple[Any, ...]] = {"report_to": ("all", ["all"]), "save_strategy": ("best",)}
# Module that a tracker of Transformers needs, where it isn't called like the tracker.
_TRACKER_MODULES = {"neptune": "neptune", "azure_ml": "azureml", "dvclive": "dvclive"}
_FAR_OFF = 10.0
_FEW_STEPS = 10
_BF16_SAFE_RATE = 1e-4


def check_method(method: str) -> Iterator[Finding]:
    """P001, before the rows are read: other methods have other layouts and other arguments."""
    if method != "sft":
        yield finding("P001", "method", method=method)


def is_owned(name: str, value: Any) -> bool:
    """Whether a recipe may not set this argument to this value."""
    return name in OWNED and (name not in _ALLOWED_BUT or value in _ALLOWED_BUT[name])


def check_plan(plan: Plan, recipe: Recipe, owned: dict[str, Any], rows: Rows) -> Iterator[Finding]:
    """Every other P and T rule that shows before training."""
    yield from _not_built_yet(recipe)
    yield from check_launch(recipe, plan.model)
    yield from check_settings(plan, recipe)
    yield from check_versions(plan.versions)
    for name in owned:
        reason, remedy = OWNED[name]
        yield finding("P009", f"training.{name}", name=name, reason=reason, remedy=remedy)
    yield from unknown_targets(plan.model, recipe.adapter)
    yield from _check_rate(plan, recipe)
    yield from _check_lengths(plan)
    if recipe.training.get("save_total_limit") == 1:
        yield finding("P004", "training.save_total_limit")
    strategy = plan.training["eval_strategy"]
    if plan.eval is None and strategy != "no":
        yield finding("P011", "training.eval_strategy", strategy=strategy)
    if not is_remote(recipe):
        yield from _missing_trackers(plan)
    if plan.steps < _FEW_STEPS:
        yield finding("P005", "steps", steps=plan.steps)
    yield from _check_memory(plan)
    if rows.needs_template and not plan.model.has_template and not recipe.chat_template:
        yield finding("T005", "model", model=plan.model.name)


def _not_built_yet(recipe: Recipe) -> Iterator[Finding]:
    launch = recipe.launch
    if launch.on != "local":
        what = f"A run on {launch.on}"
        yield finding("P007", "launch.on", what=what, remedy="To train here, use `launch: {on: local}`")
    if launch.processes > 1:
        what = f"Training by {launch.processes} processes"
        yield finding(
            "P007", "launch.processes", what=what, remedy="To train by one process, leave launch.processes out"
        )
    if recipe.adapter.kind == "qlora":
        remedy = "To train now, use `adapter: {kind: lora}`"
        yield finding("P007", "adapter.kind", what="LoRA on a base in 4 bits", remedy=remedy)
    if recipe.hub.repo:
        remedy = "To train now, leave it out, and upload RUN/export/merged with `hf upload`"
        yield finding("P007", "hub.repo", what="Pushing the result", remedy=remedy)


def _check_memory(plan: Plan) -> Iterator[Finding]:
    """P006: an error where the step is larger than the device, a warning where it may be."""
    have, memory = plan.hardware.memory, plan.memory
    if need(memory) <= have:
        return
    severity: Severity = (
        "error" if memory.allocated * (1 - memory.allocated_error) + memory.context > have else "warning"
    )
    steps = [f"{one.change} (saves {_gigabytes(one.saves)})" for one in plan.remedies]
    enough = bool(plan.remedies) and plan.remedies[-1].fits
    remedy = f"In this order: {'; '.join(steps)}" if steps else "Use a smaller model"
    remedy += "" if enough else ("; even then it needs a bigger machine: `tunesmith plan RECIPE --compare` lists some")
    yield finding(
        "P006", "memory", severity=severity, need=_gigabytes(need(memory)), have=_gigabytes(have), remedy=remedy
    )


def _check_rate(plan: Plan, recipe: Recipe) -> Iterator[Finding]:
    rate = plan.training["learning_rate"]
    if rate == 0:
        yield finding("P039", "training.learning_rate")
        return
    usual = usual_learning_rate(plan.model.parameters, recipe.adapter.kind, recipe.method)
    factor = max(rate / usual, usual / rate)
    if factor >= _FAR_OFF:
        yield finding(
            "P002",
            "training.learning_rate",
            value=rate,
            factor=factor,
            direction="higher" if rate > usual else "lower",
            kind="LoRA" if plan.lora else "full fine-tuning",
            usual=usual,
        )
    if plan.lora is None and plan.model_kwargs["dtype"] == "bfloat16" and rate < _BF16_SAFE_RATE:
        yield finding("P010", "dtype", value=rate)


def _check_lengths(plan: Plan) -> Iterator[Finding]:
    max_length = plan.training["max_length"]
    if max_length is None:
        return
    if plan.model.context and max_length > plan.model.context:
        yield finding("P003", "training.max_length", max_length=max_length, context=plan.model.context)
    total = plan.train.rows
    longest = plan.train.longest or 0
    if plan.train.cut:
        cut = finding(
            "T002",
            "training rows",
            count=plan.train.cut,
            total=total,
            max_length=max_length,
            end="end",
            lost="",
            longest=longest,
        )
        beyond = plan.model.context and longest > plan.model.context
        fix = f"The model's context is {plan.model.context} tokens: shorten these rows, or split them."
        yield cut.model_copy(update={"fix": fix}) if beyond else cut


def _missing_trackers(plan: Plan) -> Iterator[Finding]:
    wanted = plan.training["report_to"]
    for tracker in [wanted] if isinstance(wanted, str) else wanted:
        if tracker != "none" and importlib.util.find_spec(_TRACKER_MODULES.get(tracker, tracker)) is None:
            yield finding("P012", "training.report_to", tracker=tracker)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
