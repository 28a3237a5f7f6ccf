"""What several verbs share: recipe keys on the command line, and how runs are named."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import yaml

from ..errors import UsageError
from ..recipe import Recipe, build_recipe, load_recipe
from ..recipe.load import RecipeLoader, parse
from ..recipe.schema import Mapping, Method, Source
from ..records import Finding

_PATHS = {"data.train", "data.eval", "data.test", "chat_template"}


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option --json."""
    parser.add_argument("--json", action="store_true", help="print the record as JSON on stdout")


def positive(text: str) -> int:
    """A number of things, from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number from 1 on")
    return int(text)


def role_and_column(text: str) -> tuple[str, str]:
    """ROLE=COLUMN."""
    role, equals, column = text.partition("=")
    if not equals or role not in Mapping.model_fields:
        raise argparse.ArgumentTypeError(f"{text!r} isn't ROLE=COLUMN; roles are {', '.join(Mapping.model_fields)}")
    return role, column.replace("\\n", "\n")  # in templates, as a recipe's double quotes have it


def column_and_value(text: str) -> tuple[str, Any]:
    """COLUMN=VALUE, the value as YAML reads it: true, 1, text, or a list of these."""
    column, equals, value = text.partition("=")
    parsed = _value(value)
    values = parsed if isinstance(parsed, list) else [parsed]
    if not equals or not column or not values or not all(isinstance(one, str | bool | int | float) for one in values):
        known = "a text, a number, true or false, or a list of these"
        raise argparse.ArgumentTypeError(f"{text!r} isn't COLUMN=VALUE with {known}")
    return column, parsed


def add_source(parser: argparse.ArgumentParser) -> None:
    """DATA, and what says which rows of it are meant."""
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="file, folder or glob (JSON, JSONL, CSV, TSV, Parquet, text; also packed), or a dataset on the Hub; "
        "several are joined",
    )
    parser.add_argument("--config", help="configuration of a dataset on the Hub")
    parser.add_argument("--split", help="split of a dataset on the Hub (default: train)")
    parser.add_argument("--data-revision", metavar="REV", help="branch, tag or commit of a dataset on the Hub")
    parser.add_argument("--rows", type=positive, metavar="N", help="read at most N rows of each DATA")


def add_roles(parser: argparse.ArgumentParser, *, method: str | None = "sft") -> None:
    """The method, which is `method` where none is given, and which columns and rows serve it."""
    usual = method or "the one that the data is made for"
    parser.add_argument(
        "--method", choices=get_args(Method), default=method, help=f"training method (default: {usual})"
    )
    add_columns(parser)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Which columns and rows are meant, and what becomes of rows that can't be used."""
    parser.add_argument(
        "--mapping", nargs="+", type=role_and_column, metavar="ROLE=PATH", help="columns by role: prompt=question"
    )
    parser.add_argument(
        "--filter",
        nargs="+",
        type=column_and_value,
        metavar="COLUMN=VALUE",
        help="only rows with these values; COLUMN=[A, B] for either",
    )
    parser.add_argument(
        "--bad-rows", choices=("error", "drop"), default="error", help="refuse rows that can't be used, or drop them"
    )


def sources(arguments: argparse.Namespace) -> list[Source]:
    """The sources that `add_source` gathered."""
    return [
        Source(
            path=path,
            config=arguments.config,
            split=arguments.split,
            revision=arguments.data_revision,
            rows=arguments.rows,
        )
        for path in arguments.data
    ]


def add_run(parser: argparse.ArgumentParser) -> None:
    """The argument RUN."""
    parser.add_argument("run", metavar="RUN", help="run folder, a run's name under runs/, or `last`")


def add_output(parser: argparse.ArgumentParser) -> None:
    """The option --output."""
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="run folder to write (default: runs/TIME-MODEL-METHOD)"
    )


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """DATA and what a recipe needs beside it."""
    parser.add_argument("data", metavar="DATA", help="file, folder or glob with rows, or a dataset on the Hub")
    parser.add_argument("--model", required=True, help="local folder, Hub id, or builtin:small")
    parser.add_argument("--test", metavar="FILE", help="rows for the final comparison (default: a part of DATA)")
    parser.add_argument("--method", default="sft", help="training method (default: sft)")
    add_columns(parser)


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether any finding is of severity error; a verb then ends with exit code 1."""
    return any(found.severity == "error" for found in findings)


def recipe_from_file(path: str, overrides: dict[str, str]) -> Recipe:
    """The recipe in a file, with keys such as --training.max_steps replaced.

    Paths in the file count from its folder, paths on the command line from the folder the command runs in.

    Raises:
        UsageError: as load_recipe.
    """
    file = Path(path)
    if not overrides:
        return load_recipe(file)
    load_recipe(file)  # errors of the file itself are told with their line
    values, _ = parse(file.read_text(encoding="utf-8"), path)
    return build_recipe(override(values, overrides), where="command line", folder=file.resolve().parent)


def recipe_from_options(arguments: argparse.Namespace) -> Recipe:
    """The recipe that DATA, --model and dotted keys make.

    Raises:
        UsageError: an unknown key or a wrong value.
    """
    named = {"mapping": dict(arguments.mapping or ()), "filter": dict(arguments.filter or ())}
    data: dict[str, Any] = {"train": arguments.data, "bad_rows": arguments.bad_rows, **named}
    if arguments.test:
        data["test"] = arguments.test
    values = {"model": arguments.model, "method": arguments.method, "data": data}
    return build_recipe(override(values, arguments.overrides), where="command line", folder=Path.cwd())


def override(values: dict[str, Any], overrides: dict[str, str]) -> dict[str, Any]:
    """A recipe's values with keys such as `--training.max_steps` replaced; their values are YAML.

    Raises:
        UsageError: a key would lie inside another one's value.
    """
    for name, text in overrides.items():
        *path, last = name.removeprefix("--").split(".")
        section = values
        for part in path:
            if section.get(part) is None:
                section[part] = {}
            section = section[part]
            if not isinstance(section, dict):
                raise UsageError(
                    f"{name} can't be set.", why=f"{part} holds a value, not keys.", fix="Change it in the recipe."
                )
        value = _value(text)
        key = name.removeprefix("--")
        is_path = isinstance(value, str) and (key in _PATHS or (key == "model" and Path(value).is_dir()))
        section[last] = str(Path.cwd() / value) if is_path else value
    return values


def _value(text: str) -> Any:
    try:
        return yaml.load(text, Loader=RecipeLoader)
    except yaml.YAMLError:
        return text
