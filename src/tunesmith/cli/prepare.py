"""`tunesmith prepare RECIPE`."""

from __future__ import annotations

import argparse

from .. import pipeline
from ..records import Plan
from .common import add_json, add_output, recipe_from_file
from .output import Output, safe

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("recipe", metavar="RECIPE", help="recipe file; keys can be replaced: --data.eval 0.1")
    add_output(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write a run folder without training it."""
    output = Output(as_json=arguments.json)
    folder = pipeline.prepare_run(recipe_from_file(arguments.recipe, arguments.overrides), arguments.output)
    plan = Plan.load(folder)
    if arguments.json:
        output.record({"run": str(folder), "train": plan.train.model_dump(), "steps": plan.steps})
    output.show(f"run folder  {safe(folder)}")
    for name, split in (("train", plan.train), ("eval", plan.eval), ("test", plan.test)):
        if split is not None:
            output.show(f"{name:<11} {split.rows:,} rows in {split.path}")
    output.findings(plan.findings)
    output.next_step("resume", folder)
    return 0
