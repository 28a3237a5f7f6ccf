"""`tunesmith plan RECIPE`."""

from __future__ import annotations

import argparse

from .. import pipeline
from .common import add_json, has_errors, recipe_from_file
from .output import Output
from .views import show_plan

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("recipe", metavar="RECIPE", help="recipe file; keys can be replaced: --training.max_steps 30")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan a recipe; exit code 1 when the plan has errors."""
    output = Output(as_json=arguments.json)
    plan = pipeline.make_plan(recipe_from_file(arguments.recipe, arguments.overrides))
    if arguments.json:
        output.record(plan)
    else:
        show_plan(output, plan)
    output.findings(plan.findings)
    if not has_errors(plan.findings):
        keys = [word for key in arguments.overrides.items() for word in key]
        output.next_step("train", arguments.recipe, *keys)
    return int(has_errors(plan.findings))
