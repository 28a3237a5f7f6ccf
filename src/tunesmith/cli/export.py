"""`tunesmith export RUN`."""

from __future__ import annotations

import argparse

from .. import pipeline
from ..recipe.schema import Export
from .common import add_json, add_run
from .output import Output
from .views import show_export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_run(parser)
    parser.add_argument(
        "--gguf",
        nargs="*",
        choices=["f16", "q8_0"],
        metavar="TYPE",
        help="GGUF types: f16, q8_0 (default: the recipe's)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export a run; exit code 1 when a check fails."""
    output = Output(as_json=arguments.json)
    folder = pipeline.open_run(arguments.run)
    settings = None if arguments.gguf is None else Export(gguf=arguments.gguf)
    with output.progress() as progress:
        manifest = pipeline.export_run(folder, settings, progress=progress)
    if arguments.json:
        output.record(manifest)
    else:
        show_export(output, manifest)
    output.findings(manifest.findings)
    output.next_step("receipt", folder)
    return 0 if manifest.passed else 1
