"""`tunesmith train RECIPE`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import pipeline
from ..records import Plan
from .common import add_json, add_output, recipe_from_file
from .curves import show_curve
from .output import Output, safe
from .views import show_run

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("recipe", metavar="RECIPE", help="recipe file; keys can be replaced: --training.max_steps 30")
    add_output(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan, write the run folder and train it."""
    output = Output(as_json=arguments.json)
    folder = pipeline.prepare_run(recipe_from_file(arguments.recipe, arguments.overrides), arguments.output)
    output.findings(Plan.load(folder).findings)
    output.say(f"run folder {safe(folder)}")
    return train(output, folder)


def train(output: Output, folder: Path, *, anyway: bool = False) -> int:
    """Train a run folder with a progress bar, and tell the result; `anyway` as in `pipeline.train_run`."""
    output.say("The worker loads the libraries and the model.")
    with output.progress() as progress:
        record = pipeline.train_run(folder, progress.event, anyway=anyway)
    if output.as_json:
        output.record(record)
    else:
        show_run(output, folder, record)
        show_curve(output, folder)
    output.next_step("evaluate", folder)
    return 0
