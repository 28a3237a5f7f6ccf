"""`tunesmith evaluate RUN`."""

from __future__ import annotations

import argparse

from .. import pipeline
from .common import add_json, add_run, has_errors
from .output import Output
from .views import show_evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_run(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare tuned with base; exit code 1 when the report has errors."""
    output = Output(as_json=arguments.json)
    folder = pipeline.open_run(arguments.run)
    with output.progress() as progress:
        report = pipeline.evaluate_run(folder, progress=progress)
    if arguments.json:
        output.record(report)
    else:
        show_evaluation(output, report)
    output.findings(report.findings)
    output.next_step("export", folder)
    return int(has_errors(report.findings))
