"""`tunesmith init DATA --model MODEL`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import pipeline
from ..errors import UsageError
from ..files import write_atomic
from ..recipe.schema import Mapping
from ..recipe.template import recipe_text
from ..words import counted
from .common import add_data_options, add_json, has_errors
from .output import Output, safe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_data_options(parser)
    parser.add_argument(
        "--recipe", type=Path, default=Path("recipe.yaml"), metavar="FILE", help="file to write (default: recipe.yaml)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the file")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write a commented recipe that fits the data."""
    output = Output(as_json=arguments.json)
    if arguments.recipe.exists() and not arguments.force:
        raise UsageError(
            f"{arguments.recipe} is there already.",
            why="A recipe is never overwritten unasked.",
            fix="Give --force, or another name with --recipe.",
        )
    mapping, keep = dict(arguments.mapping or ()), dict(arguments.filter or ())
    report = pipeline.inspect(
        arguments.data,
        method=arguments.method,
        model=arguments.model,
        mapping=Mapping(**mapping),
        keep=keep,
        bad_rows=arguments.bad_rows,
        audit=False,
    )
    verdict = next(verdict for verdict in report.verdicts if verdict.method == arguments.method)
    if verdict.status == "INCOMPATIBLE":
        raise UsageError(
            f"{arguments.data} isn't made for {arguments.method}.",
            why=verdict.reason,
            fix=f"`tunesmith inspect {arguments.data}` says what it is made for; else give another file.",
        )
    text = recipe_text(
        data=arguments.data,
        model=arguments.model,
        method=arguments.method,
        test=arguments.test,
        mapping={**(verdict.mapping or {}), **mapping},
        keep={**(verdict.filter or {}), **keep},
        bad_rows=arguments.bad_rows,
        remark=f"{counted(report.rows + report.rows_invalid, 'row')}, {verdict.status}: {verdict.reason}",
        folder=arguments.recipe.resolve().parent,
    )
    write_atomic(arguments.recipe, text)
    if arguments.json:
        output.record({"recipe": str(arguments.recipe), "verdict": verdict.model_dump()})
    output.show(f"wrote {safe(arguments.recipe)}")
    # What D004 asks for, the recipe says now.
    helped = bool(verdict.mapping or verdict.filter)
    left = [found for found in report.findings if not (helped and found.code == "D004")]
    output.findings(left)
    output.next_step("plan", arguments.recipe)
    return int(has_errors(left))
