"""What a run began with, and what each checkpoint was made by: a resume under anything else isn't the same run."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import yaml
from packaging.version import InvalidVersion, Version

from ..files import sha256
from ..models.source import locate
from ..plan.hardware import local_hardware
from ..plan.versions import installed_versions
from ..recipe.schema import AFTER_TRAINING
from ..records import CheckpointOrigin, Finding, Plan
from ..rules import finding

# Arguments of the trainer that say when something is told, saved or looked at, or how fast it is computed.
_HARMLESS: Final = frozenset(
    (
        *("disable_tqdm", "logging_dir", "logging_first_step", "logging_steps", "logging_strategy", "project"),
        *("report_to", "run_name", "save_on_each_node", "save_steps", "save_strategy", "save_total_limit"),
        *("log_level", "log_level_replica", "log_on_each_node", "log_completions", "num_completions_to_print"),
        *("dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory"),
        *("dataloader_prefetch_factor", "dataset_num_proc", "per_device_eval_batch_size", "skip_memory_metrics"),
        *("trackio_bucket_id", "trackio_space_id", "trackio_static_space_id", "hub_private_repo"),
    )
)
_COMPUTING: Final = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "bitsandbytes")
_MODEL_FILES: Final = (
    *("*.safetensors", "*.bin", "config.json", "adapter_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json"),
    *("preprocessor_config.json", "processor_config.json"),
)
_SAMPLE: Final = 1 << 20  # bytes at either end of a large file; all of it would take a minute for some models
_SHOWN: Final = 5


def origin_of(plan: Plan) -> CheckpointOrigin:
    """What a run of this plan is made by, here and now."""
    installed, here = installed_versions(), local_hardware()
    return CheckpointOrigin(
        # A copy: libraries change the lists that they are given.
        settings=copy.deepcopy(dict(_settings(plan))),
        rows={split.path: split.sha256 for split in (plan.train, plan.eval) if split},
        files=dict(_files(plan)),
        versions={name: installed[name] for name in _COMPUTING if name in installed},
        machine={
            "device": here.device,
            "name": here.name,
            "processes": str(plan.processes.total),
            "sharding": plan.processes.sharding,
        },
    )


def check_conditions(folder: Path, plan: Plan, checkpoint: Path | None) -> list[Finding]:
    """R003, R025 to R029 and R040: rows, settings, files, versions or a machine other than those of the run.

    `checkpoint` is the one to go on from; None: the run begins, or begins again.
    """
    splits = [split for split in (plan.train, plan.eval, plan.test) if split]
    changed = {split.path for split in splits if sha256(folder / split.path) != split.sha256}
    found = [finding("R003", path, path=path) for path in sorted(changed)]
    found += edited_recipe(folder, plan)
    if checkpoint and (checkpoint / CheckpointOrigin.filename).exists():
        found += changes(CheckpointOrigin.load(checkpoint), origin_of(plan))
    elif not checkpoint and (folder / CheckpointOrigin.filename).exists():
        differing = _differing(CheckpointOrigin.load(folder).files, dict(_files(plan)))
        found += [finding("R040", name, files=name) for name in differing[:_SHOWN]]
    return found


def own_code(plan: Plan) -> list[Path]:
    """The user's Python files that the recipe names, and the run calls."""
    rewards = [str(one.get("name", "")) for one in _rewards(plan)]
    named = [*plan.recipe.get("watch", {}).get("callbacks", []), *rewards]
    return [Path(file) for file, colon, _ in (name.rpartition(":") for name in named) if colon]


def changes(before: CheckpointOrigin, now: CheckpointOrigin) -> Iterator[Finding]:
    """R003 and R025 to R028: what differs from what a checkpoint was made by, and how bad that is."""
    for path in _differing(before.rows, now.rows):
        yield finding("R003", path, path=path)
    if differing := _differing(before.settings, now.settings):
        yield finding("R025", "plan", what=_told(differing, before.settings, now.settings))
    differing = _differing(before.files, now.files)
    others = [name for name in differing if Path(name).name != name]
    if of_base := [name for name in differing if name not in others]:
        yield finding("R026", "model", files=", ".join(of_base[:_SHOWN]))
    for name in others[:_SHOWN]:
        yield finding("R026", name, files=name)
    for name in _differing(before.versions, now.versions):
        was, is_ = before.versions.get(name, "absent"), now.versions.get(name, "absent")
        yield finding("R027", name, severity="error" if _far(was, is_) else "note", package=name, was=was, now=is_)
    if differing := _differing(before.machine, now.machine):
        only_name = differing == ["name"]
        what = _told(differing, before.machine, now.machine)
        yield finding("R028", "machine", severity="warning" if only_name else "error", what=what)


def edited_recipe(folder: Path, plan: Plan) -> Iterator[Finding]:
    """R029 where the run folder's recipe doesn't train as the one that the plan was made of."""
    try:
        written = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return  # it is a copy, for people; the plan has it too
    before, now = _trained_by(plan.recipe), _trained_by(written if isinstance(written, dict) else {})
    if differing := _differing(before, now):
        yield finding("R029", "recipe.yaml", what=_told(differing, before, now))


def _trained_by(recipe: dict[str, Any]) -> dict[str, Any]:
    return dict(_flat({name: value for name, value in recipe.items() if name not in AFTER_TRAINING}))


def _settings(plan: Plan) -> Iterator[tuple[str, Any]]:
    yield "method", plan.method
    yield "model", plan.model.name
    yield "layout", plan.layout
    yield "loss_on", plan.loss_on
    yield "rewards", plan.recipe.get("rewards", [])
    parts = {"training": plan.training, "model_kwargs": plan.model_kwargs, "quantization": plan.quantization or {}}
    if plan.peft:
        parts["adapter"] = {"kind": plan.peft.config, **plan.peft.arguments}
    for name, value in _flat(parts):
        if name.removeprefix("training.") not in _HARMLESS:
            yield name, value


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _files(plan: Plan) -> Iterator[tuple[str, str]]:
    for path in _model_files(Path(plan.model.location)):
        yield path.name, _fingerprint(path)
    others = [Path(adapter.path) for adapter in plan.model.earlier]
    others += [Path(plan.model.tokenizer)] if plan.model.tokenizer else []
    others += chain(*(_folders(one["model"]) for one in _rewards(plan) if one.get("model")))
    template = plan.recipe.get("chat_template")
    for path in [*map(Path, [template] if template else []), *own_code(plan), *chain(*map(_model_files, others))]:
        if path.is_file():
            yield str(path.resolve()), _fingerprint(path)


def _folders(model: str) -> list[Path]:
    """Where the files of a reward model lie: a run's result, its base, and the adapters between them."""
    if not Path(model).expanduser().is_dir():
        return []
    source = locate(model)
    return [Path(source.location), *(Path(adapter.path) for adapter in source.earlier)]


def _model_files(folder: Path) -> list[Path]:
    """The files of a model or an adapter; none of a name on the Hub, where a revision says what is meant."""
    return sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern)})


def _fingerprint(path: Path) -> str:
    """SHA-256 of a file's size and of its ends, which are all of it where it is small."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _rewards(plan: Plan) -> list[dict[str, Any]]:
    """The recipe's rewards; one that is only a name is written as such."""
    return [{"name": one} if isinstance(one, str) else one for one in plan.recipe.get("rewards", [])]


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _told(names: list[str], before: dict[str, Any], now: dict[str, Any]) -> str:
    told = [f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in names[:_SHOWN]]
    more = len(names) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")


def _far(before: str, now: str) -> bool:
    """Whether two versions differ in more than their patch level."""
    try:
        return Version(before).release[:2] != Version(now).release[:2]
    except InvalidVersion:
        return True
