"""Reading a recipe file: errors name the line, and the nearest name that would have been right."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import UsageError
from ..rules import refuse_errors
from .evaluation import Evaluation
from .rewards import Reward, is_function
from .schema import AFTER_TRAINING, Recipe, Source, is_dataset_id
from .secrets import HIDDEN, written_tokens
from .training import check_training

# Names from other tools and older guides, at the recipe's top level.
_ELSEWHERE = {
    "model_name": "model",
    "model_name_or_path": "model",
    "base_model": "model",
    "dataset": "data: {train: ...}",
    "datasets": "data: {train: ...}",
    "train_file": "data: {train: ...}",
    "trainer": "method",
    "peft": "adapter",
    "lora": "adapter: {kind: lora}",
    "peft_config": "adapter",
    "lora_r": "adapter: {r: ...}",
    "lora_alpha": "adapter: {alpha: ...}",
    "target_modules": "adapter: {targets: ...}",
    "lora_dropout": "adapter: {dropout: ...}",
    "load_in_4bit": "adapter: {kind: qlora}",
    "load_in_8bit": "a quantised base, which isn't built yet",
    "tokenizer": "nothing: the model's own tokenizer is used",
    "torch_dtype": "dtype",
    "output_dir": "the command's --output",
    "reward_funcs": "rewards: [FILE.py:NAME]",
    "reward_fn": "rewards: [FILE.py:NAME]",
    "hub_model_id": "hub: {repo: OWNER/NAME}, which isn't built yet",
    "push_to_hub": "hub: {repo: OWNER/NAME}, which isn't built yet",
    "hub_private_repo": "hub: {private: true}",
    "hub_token": "nothing: secrets don't belong in a recipe; `hf auth login` keeps the token",
    "num_processes": "launch: {processes: ...}",
    **{key: f"launch: {{{key}: ...}}" for key in ("flavor", "timeout", "budget", "namespace", "secrets", "processes")},
    **{f"launch.{key}": "launch: {flavor: ...}" for key in ("hardware", "machine", "gpu", "accelerator", "instance")},
    "launch.num_processes": "launch: {processes: ...}",
    "launch.cost": "launch: {budget: ...}",
    "launch.env": "launch: {secrets: [NAME]}, which are named here and have their values elsewhere",
    "hub.id": "hub: {repo: OWNER/NAME}, which isn't built yet",
    "hub.model_id": "hub: {repo: OWNER/NAME}, which isn't built yet",
}


_OTHER_IN_1_2 = ("bool", "timestamp", "int", "float")


class RecipeLoader(yaml.SafeLoader):
    """YAML as of 1.2: in PyYAML's 1.1 the key of `launch: {on: local}` is a boolean, a date no text, 1:30 is 90."""


RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in _OTHER_IN_1_2]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile("[-+]?(?:0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file.

    Relative paths in it count from the file's folder.

    Raises:
        UsageError: the file isn't there, isn't YAML, or has an unknown key or a wrong value.
    """
    values, lines = read_recipe(path)
    return build_recipe(values, where=str(path), lines=lines, folder=path.resolve().parent)


def edited_recipe(planned: dict[str, Any], path: Path) -> Recipe:
    """The recipe that a run was planned by, its sections of what comes after training as a file now has them.

    Args:
        planned: The plan's own copy, which holds where there is no file.
        path: The copy that people may edit; relative paths in it count from its folder.

    Raises:
        UsageError: the file isn't YAML, or has an unknown key or a wrong value in these sections.
    """
    if not path.exists():
        return Recipe.model_validate(planned)
    values, lines = read_recipe(path)
    trained_by = {name: value for name, value in planned.items() if name not in AFTER_TRAINING}
    later = {name: value for name, value in values.items() if name in AFTER_TRAINING}
    return build_recipe(trained_by | later, where=str(path), lines=lines, folder=path.resolve().parent)


def read_recipe(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of a recipe's file, unchecked, and the line (counted from 1) of each dotted key.

    Raises:
        UsageError: the file isn't there, or isn't YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"There is no recipe {path}.",
            why="The file doesn't exist.",
            fix="Write one with `tunesmith init DATA --model MODEL`.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The recipe {path} can't be read.", why=str(error), fix="A recipe is a UTF-8 YAML file."
        ) from None
    return parse(text, str(path))


def parse(text: str, where: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of a YAML document, and the line (counted from 1) of each dotted key.

    Raises:
        UsageError: not YAML, or not a mapping at the top.
    """
    try:
        node = yaml.compose(text, Loader=RecipeLoader)
        values = yaml.load(text, Loader=RecipeLoader)
        found = _key_lines(node, ())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A date that doesn't exist is a ValueError; an alias inside its own anchor never ends.
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise UsageError(
            f"{where}{line} isn't valid YAML.",
            why=getattr(error, "problem", None) or str(error).splitlines()[0],
            fix="Check indentation, colons and quotes on that line.",
        ) from None
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise UsageError(
            f"{where} isn't a recipe.",
            why="A recipe is a mapping of keys such as model, method and data.",
            fix="Write one with `tunesmith init DATA --model MODEL`.",
        )
    lines: dict[tuple[str, ...], int] = {}
    for path, number in found:
        if path in lines:
            raise UsageError(
                f"{where} line {number}: {'.'.join(path)} stands there twice.",
                why=f"YAML would silently forget what line {lines[path]} says.",
                fix="Remove one of the two, or put their keys together.",
            )
        lines[path] = number
    return values, {".".join(path): number for path, number in lines.items()}


def _key_lines(node: yaml.Node | None, prefix: tuple[str, ...]) -> list[tuple[tuple[str, ...], int]]:
    found = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = (*prefix, str(key.value))
            found.append((path, key.start_mark.line + 1))
            found += _key_lines(value, path)
    return found


def build_recipe(
    values: dict[str, Any], *, where: str = "recipe", lines: dict[str, int] | None = None, folder: Path | None = None
) -> Recipe:
    """Check `values` and make the recipe of them; relative paths count from `folder`.

    Raises:
        UsageError: an unknown key, a wrong type or a value out of range, with its line when `lines` has it.
        FindingsError: H001, a token stands in it.
    """
    lines = lines or {}
    refuse_errors(written_tokens(values, where, lines))
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where, lines) from None
    training = check_training(recipe.method, recipe.training, where, lines)
    recipe = recipe.model_copy(update={"training": training})
    return _with_absolute_paths(recipe, folder) if folder else recipe


def _explain(error: ValidationError, where: str, lines: dict[str, int]) -> UsageError:
    # An unknown key is told before the key that is missing for it, since it often is that key misspelt.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    path = _keys(first["loc"])
    key = ".".join(path)
    line = next((lines[name] for name in _prefixes(key) if name in lines), None)
    place = f"{where} line {line}" if line else where
    if first["type"] in ("extra_forbidden", "invalid_key") and path[-1] == str(first["loc"][-1]):
        return _unknown_key(path, place)
    if first["type"] == "missing":
        return UsageError(
            f"{place}: {key} is missing.",
            why=f"A recipe needs {key}.",
            fix="`tunesmith init DATA --model MODEL` writes a complete one.",
        )
    # What stands in place of a secret's name may be the secret.
    shown = HIDDEN if key.startswith("launch.secrets") else repr(first.get("input"))
    return UsageError(
        f"{place}: {key} can't be {shown}.",
        why=f"{first['msg']}.",
        fix=_example(path) or "`tunesmith schema` shows what each key takes.",
    )


def _example(path: list[str]) -> str:
    """A value that a key takes, as the recipe spells it; empty where its field has no example."""
    field = _section(path[:-1]).model_fields.get(path[-1])
    if field is None or not field.examples:
        return ""
    opened, closed = "".join(f"{section}: {{" for section in path[:-1]), "}" * len(path[:-1])
    return f"Write, for example, `{opened}{path[-1]}: {field.examples[0]}{closed}`."


def _keys(location: tuple[int | str, ...]) -> list[str]:
    """The recipe's keys in an error's location; behind them pydantic names members of unions and places in lists."""
    path: list[str] = []
    section: type[BaseModel] = Recipe
    for part in location:
        if isinstance(part, int) and section is Source:
            continue
        path.append(str(part))
        inside = _models(section.model_fields[path[-1]].annotation) if path[-1] in section.model_fields else []
        if not inside:
            break
        section = inside[0]
    return path


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _unknown_key(path: list[str], place: str) -> UsageError:
    name, section = path[-1], _section(path[:-1])
    known = list(section.model_fields)
    near = difflib.get_close_matches(name, known, n=1)
    if ".".join(path) in _ELSEWHERE:
        fix = f"tunesmith calls it {_ELSEWHERE['.'.join(path)]}."
    elif near:
        fix = f"Did you mean {near[0]}?"
    elif len(path) == 1:
        fix = f"Keys are {', '.join(known)}; arguments of the trainer go under `training:`."
    else:
        fix = f"Keys of {'.'.join(path[:-1])} are {', '.join(known)}."
    return UsageError(
        f"{place}: unknown key {'.'.join(path)}.", why="A key that isn't known would be ignored silently.", fix=fix
    )


def _section(path: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = Recipe
    for name in path:
        model = _models(model.model_fields[name].annotation)[0]
    return model


def _models(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Union, UnionType, Annotated, list):
        return [model for part in get_args(annotation) for model in _models(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    def absolute(value: Any) -> Any:
        return _from_root(value, folder) if isinstance(value, str) else value

    def found(value: Any) -> Any:
        return value if isinstance(value, str) and _is_on_the_hub(value, folder) else absolute(value)

    train = [source.model_copy(update={"path": found(source.path)}) for source in recipe.data.train]
    others = {name: found(getattr(recipe.data, name)) for name in ("eval", "test")}
    data = recipe.data.model_copy(update={"train": train, **others})
    rewards = [_located(reward, folder) for reward in recipe.rewards]
    watch = recipe.watch.model_copy(update={"callbacks": [absolute(name) for name in recipe.watch.callbacks]})
    update: dict[str, Any] = {
        "data": data,
        "chat_template": absolute(recipe.chat_template),
        "rewards": rewards,
        "watch": watch,
        "evaluation": located_evaluation(recipe.evaluation, folder),
        "model": _model(recipe.model, folder),
    }
    return recipe.model_copy(update=update)


def located_evaluation(evaluation: Evaluation, folder: Path) -> Evaluation:
    """An evaluation whose files and models' folders, named from `folder`, are named from the root."""
    update: dict[str, Any] = {"scores": [_located(score, folder) for score in evaluation.scores]}
    if (harness := evaluation.harness) and harness.path:
        update["harness"] = harness.model_copy(update={"path": _from_root(harness.path, folder)})
    if talks := evaluation.conversations:
        speakers = {name: getattr(talks, name) for name in ("simulator", "judge")}
        places = {name: _model(who, folder) for name, who in speakers.items() if isinstance(who, str)}
        if isinstance(talks.personas, str):
            places["personas"] = _from_root(talks.personas, folder)
        update["conversations"] = talks.model_copy(update=places)
    return evaluation.model_copy(update=update)


def _located(reward: Reward, folder: Path) -> Reward:
    """A reward whose file, or whose model's folder, is named from the root."""
    if reward.name and is_function(reward.name):
        return reward.model_copy(update={"name": _from_root(reward.name, folder)})
    return reward.model_copy(update={"model": _model(reward.model, folder)}) if reward.model else reward


def _model(name: str, folder: Path) -> str:
    """A model's folder named from the root; a name on the Hub or of the built-in model as it is."""
    return _from_root(name, folder) if name.startswith((".", "/")) or (folder / name).is_dir() else name


def _from_root(path: str, folder: Path) -> str:
    return str((folder / Path(path).expanduser()).resolve())


def _is_on_the_hub(name: str, folder: Path) -> bool:
    """Whether `name` can only mean a dataset on the Hub: it is spelt like an id, and no file has the name."""
    return is_dataset_id(name) and not (folder / name).exists()
