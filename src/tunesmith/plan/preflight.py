"""The rules that a plan is held against before anything runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any, Final

from ..data.label_findings import cut_severity
from ..recipe.schema import Recipe
from ..records import Finding, Plan, Severity
from ..rules import finding
from .adapter_checks import check_adapter
from .conversation_checks import check_conversations
from .environment import check_versions
from .evaluation_checks import check_evaluation
from .fast import check_fast
from .fit import need
from .method_checks import check_method
from .parameters import unknown_targets
from .rates import usual_learning_rate
from .refused import check_refused
from .remote import check_launch, is_remote
from .rows import Rows
from .settings_checks import check_settings
from .sizing import devices_of
from .watching import check_watch

_NO_PUSH: Final = (
    "the recipe names the repository, and this version can't push yet",
    "Leave it out, and upload RUN/export/merged with `hf upload`.",
)
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
    "model_init_kwargs": (
        "the plan loads the model",
        "Use `dtype:` and `revision:` at the top of the recipe, and `speed: {attention: ...}`.",
    ),
    "trust_remote_code": ("model code from a repository is never run", "Leave it out."),
    "chat_template_path": ("the recipe names the template", "Set `chat_template:` at the top of the recipe."),
    "load_best_model_at_end": ("the recipe says what chooses the result", "Use `watch: {best: true}`."),
    "metric_for_best_model": ("the recipe says what chooses the result", "Use `watch: {metric: ...}`."),
    "greater_is_better": ("it follows from the metric", "Use `watch: {metric: ...}`."),
    "enable_jit_checkpoint": ("a stop that is asked for is saved anyway", "Leave it out."),
    "restore_callback_states_from_checkpoint": ("a resumed run decides by the log", "Leave it out."),
    "ignore_data_skip": ("a resumed run would train rows again", "Leave it out."),
    "save_only_model": ("a checkpoint without optimizer can't be resumed", "Leave it out."),
    "push_to_hub": _NO_PUSH,
    "hub_model_id": _NO_PUSH,
    "hub_token": ("secrets don't belong in a recipe", "Log in with `hf auth login`."),
    "deepspeed": ("the plan makes its configuration", "Use `launch: {sharding: zero2}` or zero3."),
    "fsdp": ("the plan makes its configuration", "Use `launch: {sharding: fsdp}`."),
    "fsdp_config": ("the plan makes its configuration", "Use `launch: {sharding: fsdp}`."),
    "use_cpu": ("the plan chooses the device", 'Set CUDA_VISIBLE_DEVICES="" in the environment.'),
    "dataset_text_field": ("tunesmith prepares the rows", "Use `data: {mapping: {text: COLUMN}}`."),
    "eos_token": ("the audit and the export rely on the tokenizer's own", "Set eos_token in tokenizer_config.json."),
    "save_strategy": ("a run that is killed has to resume from its last step", "Use steps, and `watch: {best: true}`."),
    "use_liger_kernel": ("TRL removes it; the plan takes the kernels that are installed", "Leave it out."),
    "report_to": ("`all` loads trackers that nobody asked for", "Name them: `report_to: [trackio, tensorboard]`."),
    "dataset_kwargs": ("tunesmith prepares the rows", "Leave it out."),
    "reward_weights": ("each reward has its own", "Use `rewards: [{name: ..., weight: ...}]`."),
    "log_completions_hub_repo": ("it publishes prompts and answers", "Leave it out."),
}
# Of these, only some values are refused.
_ALLOWED_BUT: dict[str, tuple[Any, ...]] = {"report_to": ("all", ["all"]), "save_strategy": ("best",)}
# Module that a tracker of Transformers needs, where it isn't called like the tracker.
_TRACKER_MODULES = {"neptune": "neptune", "azure_ml": "azureml", "dvclive": "dvclive"}
_KINDS: Final = {
    "none": "full fine-tuning",
    "lora": "LoRA",
    "qlora": "LoRA",
    "prompt": "prompt tuning",
    "prefix": "prefix tuning",
    "ia3": "IA3",
}
_FAR_OFF = 10.0
_MOST_TOLD = 1000
_FEW_STEPS = 10
_BF16_SAFE_RATE = 1e-4


def is_owned(name: str, value: Any) -> bool:
    """Whether a recipe may not set this argument to this value."""
    return name in OWNED and (name not in _ALLOWED_BUT or value in _ALLOWED_BUT[name])


def check_plan(plan: Plan, recipe: Recipe, owned: dict[str, Any], rows: Rows) -> Iterator[Finding]:
    """Every other P and T rule that shows before training."""
    yield from _not_built_yet(recipe)
    yield from check_launch(recipe, plan.model)
    yield from check_settings(plan, recipe)
    yield from check_fast(plan)
    yield from check_method(plan, rows, devices_of(recipe, plan.hardware))
    yield from check_refused(plan, recipe)
    yield from check_watch(plan, recipe)
    yield from check_evaluation(recipe)
    yield from _check_conversations(plan, recipe)
    yield from check_versions(plan.versions)
    for name in owned:
        reason, remedy = OWNED[name]
        yield finding("P009", f"training.{name}", name=name, reason=reason, remedy=remedy)
    yield from unknown_targets(plan.model, recipe.adapter)
    yield from check_adapter(plan, recipe)
    yield from _check_rate(plan, recipe)
    yield from _check_lengths(plan)
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


def _check_conversations(plan: Plan, recipe: Recipe) -> Iterator[Finding]:
    has_template = plan.model.has_template or recipe.chat_template is not None
    here = not is_remote(recipe)
    return check_conversations(recipe.evaluation, recipe.method, plan.model, has_template=has_template, here=here)


def _not_built_yet(recipe: Recipe) -> Iterator[Finding]:
    launch = recipe.launch
    if launch.on != "local":
        what = f"A run on {launch.on}"
        yield finding("P007", "launch.on", what=what, remedy="To train here, use `launch: {on: local}`")
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
            factor=f"{factor:.0f}" if factor < _MOST_TOLD else f"over {_MOST_TOLD:,}",
            direction="higher" if rate > usual else "lower",
            kind=_KINDS[recipe.adapter.kind],
            usual=usual,
        )
    if plan.peft is None and plan.model_kwargs["dtype"] == "bfloat16" and rate < _BF16_SAFE_RATE:
        yield finding("P010", "dtype", value=rate)


def _check_lengths(plan: Plan) -> Iterator[Finding]:
    max_length = plan.training.get("max_length")
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
            severity=cut_severity(plan.train.cut, total),
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
