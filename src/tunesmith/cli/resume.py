"""`tunesmith resume RUN`."""

from __future__ import annotations

import argparse

from .. import pipeline
from .common import add_json, add_run
from .output import Output
from .train import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_run(parser)
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="go on although rows, settings, files, versions or the machine aren't those of the checkpoint",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Continue a run from its last complete checkpoint, or start one that was only prepared."""
    return train(Output(as_json=arguments.json), pipeline.open_run(arguments.run), anyway=arguments.anyway)
