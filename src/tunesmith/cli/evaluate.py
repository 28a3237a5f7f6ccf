"""`tunesmith evaluate RUN`."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Final, get_args

from .. import pipeline
from ..errors import UsageError
from ..files import write_atomic
from ..recipe import Recipe, build_recipe
from ..recipe.evaluation import Evaluation, Task
from ..words import counted
from .common import add_json, add_run, has_errors, override, positive
from .evaluation_view import say_where_kept, show_evaluation
from .output import Output, safe

OVERRIDES = "evaluation"
_NAMED: Final = {
    "tasks": "tasks",
    "rows": "rows",
    "endpoint": "endpoint.url",
    "endpoint_model": "endpoint.model",
    "endpoint_key": "endpoint.key",
    "harness": "harness.tasks",
    "harness_path": "harness.path",
}
"""Options with a value, and the keys of the section that they stand for."""
_MEASURING: Final = ("against", "html", "no_regression", *(option for option in _NAMED if option != "rows"))
"""Options that say what is measured, and what becomes of it."""
_COUNTING: Final = (f"--{OVERRIDES}.rows", f"--{OVERRIDES}.group")
"""Keys that say how many rows there are to compare on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb; what isn't given is as the recipe in the run's folder has it."""
    add_run(parser)
    parser.epilog = (
        "How is as `evaluation:` in RUN/recipe.yaml says, which may be edited; each of its keys can be given: "
        "--evaluation.max_new_tokens 256"
    )
    parser.add_argument("--tasks", nargs="+", choices=get_args(Task), metavar="TASK", help="what to measure")
    parser.add_argument("--rows", type=positive, metavar="N", help="at most so many held-out rows")
    parser.add_argument("--against", metavar="OTHER_RUN", help="compare with this run's result, not with the base")
    parser.add_argument("--endpoint", metavar="URL", help="ask this OpenAI-compatible server for the tuned model")
    parser.add_argument("--endpoint-model", metavar="NAME", help="the tuned model's name there")
    parser.add_argument("--endpoint-key", metavar="VARIABLE", help="environment variable with the server's key")
    parser.add_argument("--no-regression", action="store_true", help="leave out what isn't the task")
    parser.add_argument("--harness", nargs="+", metavar="TASK", help="tasks of lm-evaluation-harness")
    parser.add_argument("--harness-path", metavar="DIR", help="folder with lm-evaluation-harness tasks of your own")
    parser.add_argument(
        "--rows-for", type=_share, metavar="D", help="measure nothing: say how many rows show a difference of D"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write the report as a page")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare tuned with base; exit code 1 when the report has errors, as where the success criteria aren't met."""
    output = Output(as_json=arguments.json)
    folder = pipeline.open_run(arguments.run)
    if arguments.rows_for is not None:
        _refuse_measuring(arguments)
        return _show_rows(output, folder, arguments.rows_for, _settings(arguments, folder))
    against = pipeline.open_run(arguments.against) if arguments.against else None
    settings = _settings(arguments, folder)
    if arguments.html:
        _refuse_unwritable(arguments.html)
    with output.progress() as progress:
        report = pipeline.evaluate_run(folder, settings, against=against, progress=progress)
    if arguments.html:  # first, since a reader such as `head` may close the pipe
        write_atomic(arguments.html, pipeline.evaluation_page(report))
    if arguments.json:
        output.record(report)
    else:
        show_evaluation(output, report)
    output.findings(report.findings)
    if arguments.html:
        output.say(f"wrote {safe(arguments.html)}")
    say_where_kept(output, folder, settings, against)
    output.next_step("export", folder)
    return int(has_errors(report.findings))


def _refuse_measuring(arguments: argparse.Namespace) -> None:
    """Raise a UsageError where options would do nothing, since --rows-for measures nothing."""
    idle = [f"--{name.replace('_', '-')}" for name in _MEASURING if getattr(arguments, name)]
    idle += [key for key in arguments.overrides if key not in _COUNTING]
    if idle:
        raise UsageError(
            f"--rows-for can't be given with {', '.join(idle)}.",
            why="It measures nothing, so they would do nothing.",
            fix="Leave them out; or leave --rows-for out.",
        )


def _refuse_unwritable(page: Path) -> None:
    """Raise a UsageError where a page can't be written, before anything is measured for it."""
    there = next(folder for folder in page.absolute().parents if folder.exists())
    if page.is_dir() or not there.is_dir() or not os.access(there, os.W_OK):
        raise UsageError(
            f"The page can't be written to {page}.",
            why="It is a folder." if page.is_dir() else f"{there} isn't a folder that this user may write to.",
            fix="Name a file in --html, such as evaluation.html.",
        )


def _refuse_nowhere(arguments: argparse.Namespace, recipe: Recipe) -> None:
    """Raise a UsageError where a server's model or key is given, and nobody says which server."""
    lone = next((name for name in ("model", "key") if getattr(arguments, f"endpoint_{name}")), None)
    named = arguments.endpoint or recipe.evaluation.endpoint or f"--{OVERRIDES}.endpoint.url" in arguments.overrides
    if lone and not named:
        raise UsageError(
            f"--endpoint-{lone} is given without --endpoint.",
            why="The run's recipe names no server either.",
            fix="Add the server's address: --endpoint http://127.0.0.1:8080/v1.",
        )


def _settings(arguments: argparse.Namespace, folder: Path) -> Evaluation:
    """The recipe's settings, with those of the command line in their place; its paths count from here.

    Raises:
        UsageError: a value isn't possible, or is given twice.
    """
    recipe = pipeline.recipe_of(folder)
    _refuse_nowhere(arguments, recipe)
    named = {f"--{OVERRIDES}.{key}": getattr(arguments, option) for option, key in _NAMED.items()}
    named[f"--{OVERRIDES}.regression"] = False if arguments.no_regression else None
    given = {key: json.dumps(value, ensure_ascii=False) for key, value in named.items() if value is not None}
    if twice := given.keys() & arguments.overrides.keys():
        raise UsageError(
            f"{min(twice)} is given twice.",
            why="An option of `tunesmith evaluate` stands for the same key.",
            fix="Give one of them.",
        )
    given |= arguments.overrides
    # Another server must not be sent the key of the recipe's.
    emptied = {key.removesuffix(".url"): "{}" for key in given if key.endswith(".url")}
    values = recipe.model_dump(mode="json", exclude_unset=True)
    return build_recipe(override(values, emptied | given), where="command line", folder=Path.cwd()).evaluation


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a difference of two shares, such as 0.05")
    return value


def _show_rows(output: Output, folder: Path, difference: float, settings: Evaluation) -> int:
    there, needed = pipeline.rows_needed(folder, difference, settings)
    if output.as_json:
        rows = [{"changed": one.changed, "rows": one.rows} for one in needed]
        output.record({"difference": difference, **asdict(there), "needed": rows})
        return 0
    output.table(
        f"Rows that show a difference of {difference:g} (80% power, p < 0.05)",
        ("rows that only one model gets right", "rows needed"),
        [(f"{one.changed:.0%}", f"{one.rows:,}") for one in needed],
    )
    output.show(f"This run holds out {counted(there.held_out, 'row')}; evaluation compares on {there.compared:,}.")
    if there.groups is not None:
        groups = f"They belong to {counted(there.groups, 'group')} by {safe(settings.group)}"
        output.show(f"{groups}: the more alike the rows of a group, the more groups count instead.")
    return 0
