"""`tunesmith plan RECIPE [--output DIR]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import pipeline
from ..records import Plan
from .common import add_json, has_errors, recipe_from_file
from .output import Output, safe
from .views import show_plan

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("recipe", metavar="RECIPE", help="recipe file; keys can be replaced: --training.max_steps 30")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="also write a run folder: plan and rows, ready to train"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan a recipe; exit code 1 when the plan has errors, which write no run folder."""
    output = Output(as_json=arguments.json)
    recipe = recipe_from_file(arguments.recipe, arguments.overrides)
    folder = pipeline.prepare_run(recipe, arguments.output) if arguments.output else None
    plan = Plan.load(folder) if folder else pipeline.make_plan(recipe)
    if arguments.json:
        output.record(plan)
    else:
        show_plan(output, plan)
    if folder:
        output.show(f"run folder  {safe(folder)}")
        for name, split in (("train", plan.train), ("eval", plan.eval), ("test", plan.test)):
            if split is not None:
                output.show(f"{name:<11} {split.rows:,} rows in {safe(split.path)}")
    output.findings(plan.findings)
    if folder:
        output.next_step("resume", folder)
    elif not has_errors(plan.findings):
        keys = [word for key in arguments.overrides.items() for word in key]
        output.next_step("train", arguments.recipe, *keys)
    return int(has_errors(plan.findings))
