"""`tunesmith demo`: the whole chain on the built-in model and task."""

from __future__ import annotations

import argparse
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from .. import pipeline
from ..demo import task
from ..files import write_atomic
from ..recipe import load_recipe
from .common import add_json
from .output import Output, safe
from .tune import tune


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--output", type=Path, metavar="DIR", help="run folder to write (default: runs/demo-TIME)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the demo's rows and recipe, then tune."""
    output = Output(as_json=arguments.json)
    folder = arguments.output or pipeline.RUNS / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    inputs = pipeline.new_folder(folder.with_name(folder.name + "-input"))
    task.write(inputs)
    recipe = write_atomic(inputs / "recipe.yaml", (files("tunesmith.demo") / "recipe.yaml").read_bytes())
    output.say(f"Support messages to JSON tickets, on the built-in model. Data and recipe are in {safe(inputs)}.")
    return tune(output, load_recipe(recipe), folder)
