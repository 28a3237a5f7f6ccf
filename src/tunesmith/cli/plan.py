"""`tunesmith plan RECIPE [--output DIR]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import pipeline
from ..records import Plan
from ..words import counted
from .common import add_json, has_errors, recipe_from_file
from .output import Output, safe
from .plan_views import show_options, show_plan

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("recipe", metavar="RECIPE", help="recipe file; keys can be replaced: --training.max_steps 30")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="also write a run folder: plan and rows, ready to train"
    )
    parser.add_argument(
        "--all", action="store_true", help="show every choice, and of compared machines peaks and speeds"
    )
    parser.add_argument(
        "--exact", action="store_true", help="memory by the trainer's own step under fake tensors, without weights"
    )
    parser.add_argument(
        "--compare", action="store_true", help="what the run would take on other machines, in full, by LoRA and QLoRA"
    )
    parser.add_argument("--probe", action="store_true", help="train a few steps here, and take the time from these")
    parser.add_argument("--live", action="store_true", help="ask the Hub for the prices of today")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan a recipe; exit code 1 when the plan has errors, which write no run folder."""
    output = Output(as_json=arguments.json)
    recipe = recipe_from_file(arguments.recipe, arguments.overrides)
    how = {name: getattr(arguments, name) for name in ("exact", "compare", "live", "probe")}
    with output.progress() as progress:
        folder = (
            pipeline.prepare_run(recipe, arguments.output, listen=progress.event, **how) if arguments.output else None
        )
        plan = Plan.load(folder) if folder else pipeline.make_plan(recipe, listen=progress.event, **how)
    if arguments.json:
        output.record(plan)
    else:
        show_plan(output, plan, every_choice=arguments.all)
        if plan.options:
            show_options(output, plan, details=arguments.all)
    if folder:
        output.show(f"run folder  {safe(folder)}")
        for name, split in (("train", plan.train), ("eval", plan.eval), ("test", plan.test)):
            if split is not None:
                output.show(f"{name:<11} {counted(split.rows, 'row')} in {safe(split.path)}")
    output.findings(plan.findings)
    if folder:
        output.next_step("resume", folder)
    elif not has_errors(plan.findings):
        keys = [word for key in arguments.overrides.items() for word in key]
        output.next_step("train", arguments.recipe, *keys)
    return int(has_errors(plan.findings))
