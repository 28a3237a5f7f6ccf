"""The `training:` section: TRL's own field names, checked against the installed config class without importing it.

Importing TRL's config classes imports torch, which takes seconds. Their dataclass fields stand in the source as plain
annotated assignments, so they are read from there; a contract test holds them equal to `dataclasses.fields`.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import math
from pathlib import Path
from typing import Any, Literal, Union, get_origin

from pydantic import TypeAdapter, ValidationError

from ..errors import EnvironmentLacksError, UsageError

# Method -> (file in the trl package, class). The base classes follow from the source.
CONFIGS = {
    "sft": ("trainer/sft_config.py", "SFTConfig"),
    "clm": ("trainer/sft_config.py", "SFTConfig"),
    "dpo": ("trainer/dpo_config.py", "DPOConfig"),
    "kto": ("trainer/kto_config.py", "KTOConfig"),
    "reward": ("trainer/reward_config.py", "RewardConfig"),
    "grpo": ("trainer/grpo_config.py", "GRPOConfig"),
    "rloo": ("trainer/rloo_config.py", "RLOOConfig"),
}

_BASES = {
    "_BaseConfig": ("trl", "trainer/base_config.py"),
    "TrainingArguments": ("transformers", "training_args.py"),
}

# Names from older guides -> what to write today. Source: MIGRATION notes of TRL 1.x and Transformers 5, checked against
# the installed versions in November 2026.
OLD_NAMES = {
    "max_seq_length": "`max_length`",
    "max_prompt_length": "`max_length` (prompts are no longer cut apart)",
    "warmup_ratio": "`warmup_steps` (a fraction below 1 is a share of all steps)",
    "tokenizer": "nothing: the model's own tokenizer is used (in TRL: processing_class)",
    "reward_fn": "`rewards: [FILE.py:NAME]` at the top of the recipe, which belongs to method grpo",
    "reward_funcs": "`rewards: [FILE.py:NAME]` at the top of the recipe, which belongs to method grpo",
    "evaluation_strategy": "`eval_strategy`",
    "logging_dir": "nothing: logs go to the run folder and to Trackio",
    "load_in_4bit": "`adapter: {kind: qlora}`",
    "load_in_8bit": "nothing: a quantised base isn't built yet",
    "overwrite_output_dir": "nothing: each run has a folder of its own",
    "torch_dtype": "`dtype` at the top of the recipe",
    "dtype": "`dtype` at the top of the recipe",
    "no_cuda": 'the environment variable CUDA_VISIBLE_DEVICES=""',
    "per_gpu_train_batch_size": "`per_device_train_batch_size`",
    "per_gpu_eval_batch_size": "`per_device_eval_batch_size`",
    "dataset_batch_size": "nothing: TRL no longer batches the preparation",
    "num_of_sequences": "nothing: TRL packs rows of `max_length` tokens (`packing: true`)",
    "chars_per_token": "nothing: TRL packs by tokens, not by characters (`packing: true`)",
    "neftune_alpha": "`neftune_noise_alpha`",
    "push_to_hub_token": "nothing: secrets don't belong in a recipe; log in with `hf auth login`",
    "push_to_hub_model_id": "nothing: pushing isn't built yet; upload RUN/export/merged with `hf upload`",
    "group_by_length": '`train_sampling_strategy: "group_by_length"`',
    "fsdp_transformer_layer_cls_to_wrap": "nothing: `launch: {processes: N, sharding: fsdp}` wraps each block",
    "lora_r": "`adapter: {r: ...}`",
    "lora_alpha": "`adapter: {alpha: ...}`",
    "learning_rate_scheduler": "`lr_scheduler_type`",
    "lr_scheduler": "`lr_scheduler_type`",
    "epochs": "`num_train_epochs`",
    "num_epochs": "`num_train_epochs`",
    "batch_size": "`per_device_train_batch_size`",
    "lr": "`learning_rate`",
}

# Values at which a trainer does nothing or divides by zero, and lower bounds, that the config classes don't check.
_NOT_ZERO = ("num_train_epochs", "max_steps", "logging_steps", "save_steps", "eval_steps")
_AT_LEAST: dict[str, float] = {
    "learning_rate": 0,
    "num_train_epochs": 0,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_length": 1,
    "max_steps": -1,
    "weight_decay": 0,
    "warmup_steps": 0,
    "max_grad_norm": 0,
    "save_steps": 0,
    "eval_steps": 0,
    "logging_steps": 0,
    "save_total_limit": 1,
    "seed": 0,
}

_SCALARS: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "dict": dict[str, Any],
    "list": list[Any],
    "None": None,
}


def check_training(method: str, training: dict[str, Any], where: str, lines: dict[str, int]) -> dict[str, Any]:
    """The trainer's arguments with names, types and signs checked; numbers that YAML gives as text become numbers.

    Raises:
        UsageError: a name that the installed class doesn't have (with its replacement or the nearest), a wrong type,
            or a value out of range.
    """
    if not training:
        return training
    fields = config_fields(method)
    checked = {}
    for name, value in training.items():
        line = lines.get(f"training.{name}")
        place = f"{where} line {line}" if line else where
        if name not in fields:
            raise _unknown(name, place, CONFIGS[method][1], fields)
        checked[name] = _check_value(name, value, fields[name], place)
    return checked


def _unknown(name: str, place: str, config: str, fields: dict[str, str]) -> UsageError:
    if name in OLD_NAMES:
        why, today = f"The installed trl.{config} has no such argument; older guides do.", OLD_NAMES[name]
        nothing, _, reason = today.partition("nothing: ")
        fix = f"Leave it out: {reason}." if reason and not nothing else f"Use {today}."
    else:
        near = difflib.get_close_matches(name, fields, n=1)
        why = f"The installed trl.{config} has no such argument."
        fix = f"Did you mean {near[0]}?" if near else f"The TRL documentation of {config} lists them."
    return UsageError(f"{place}: unknown training argument {name}.", why=why, fix=fix)


def _check_value(name: str, value: Any, annotation: str, place: str) -> Any:
    def wrong(why: str, fix: str = "Correct the value, or leave it out so that the plan chooses.") -> UsageError:
        return UsageError(f"{place}: training.{name} can't be {value!r}.", why=why, fix=fix)

    if isinstance(value, bool) and "bool" not in annotation:
        raise wrong(f"It must be of type {annotation}.")
    if name == "loss_type" and isinstance(value, str) and annotation == "list[str]":
        value = [value]  # DPOConfig takes both
    try:
        checked = _adapter(annotation).validate_python(value)
    except ValidationError:
        values = [value for part in annotation.split(" | ") for value in _enum_values(part)]
        if not values:
            raise wrong(f"It must be of type {annotation}.") from None
        near = difflib.get_close_matches(str(value), values, n=1)
        why = f"It must be one of {', '.join(values)}."
        raise (wrong(why, f"Did you mean {near[0]}?") if near else wrong(why)) from None
    if isinstance(checked, float) and not math.isfinite(checked):
        raise wrong("It must be a finite number.")
    if name in _NOT_ZERO and checked == 0:
        raise wrong("With 0 nothing would be trained, or the trainer would divide by it.")
    least = _AT_LEAST.get(name)
    if least is not None and isinstance(checked, int | float) and checked < least:
        raise wrong(f"It must be at least {least:g}.")
    return checked


@functools.cache
def _adapter(annotation: str) -> TypeAdapter[Any]:
    kind = _type_of(ast.parse(annotation, mode="eval").body)
    return TypeAdapter(kind)


def _type_of(node: ast.expr) -> Any:
    """The Python type of an annotation; enums are their values, other classes are open."""
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            kinds = [_type_of(left), _type_of(right)]
            if any(
                get_origin(kind) is Literal for kind in kinds
            ):  # `SchedulerType | str`: the text is one of the enum's
                kinds = [kind for kind in kinds if kind is not str]
            return Any if Any in kinds else Union[tuple(kinds)]  # noqa: UP007 - a union made at run time
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name)) if name in _SCALARS:
            return _SCALARS[name]
        case ast.Name(id=name) if values := _enum_values(name):
            return Literal.__getitem__(values)
    return Any


@functools.cache
def _enum_values(name: str) -> tuple[str, ...]:
    """The values of one of Transformers' enums of texts, from its source; empty when there is none of that name."""
    for file in ("trainer_utils.py", "training_args.py"):
        for node in ast.parse((_package_folder("transformers") / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                values = [item.value for item in node.body if isinstance(item, ast.Assign)]
                return tuple(str(value.value) for value in values if isinstance(value, ast.Constant))
    return ()


@functools.cache
def config_fields(method: str) -> dict[str, str]:
    """Name -> annotation of every field of the method's installed config class, base classes included.

    Raises:
        EnvironmentLacksError: TRL or Transformers isn't installed, or has another shape.
    """
    file, name = CONFIGS[method]
    return _fields("trl", file, name)


def _fields(package: str, file: str, name: str) -> dict[str, str]:
    tree = ast.parse((_package_folder(package) / file).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            break
    else:
        raise EnvironmentLacksError(
            f"The installed {package} has no {name} in {file}.",
            why="This version has another shape than those tunesmith was tested with.",
            fix="Install a tested version (constraints.txt), for example `pip install 'trl==1.16.0'`.",
        )
    fields: dict[str, str] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in _BASES:
            fields |= _fields(*_BASES[base.id], base.id)
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            annotation = ast.unparse(item.annotation)
            if not annotation.startswith("ClassVar") and not _hidden(item.value):
                fields[item.target.id] = annotation.strip("'\"")
    return fields


def _hidden(value: ast.expr | None) -> bool:
    """Whether a dataclass field is not an argument (`field(init=False)`)."""
    return isinstance(value, ast.Call) and any(
        keyword.arg == "init" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        for keyword in value.keywords
    )


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentLacksError(
            f"{package} isn't installed.",
            why="The recipe's `training:` section is checked against its config class.",
            fix=f"pip install {package}",
        )
    return Path(next(iter(spec.submodule_search_locations)))
