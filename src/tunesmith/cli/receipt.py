"""`tunesmith receipt RUN`."""

from __future__ import annotations

import argparse

from .. import pipeline
from .common import add_json, add_run, has_errors
from .output import Output
from .views import show_receipt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_run(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write receipt.json and report.html; exit code 1 when the receipt has errors."""
    output = Output(as_json=arguments.json)
    folder = pipeline.open_run(arguments.run)
    receipt = pipeline.write_receipt(folder)
    if arguments.json:
        output.record(receipt)
    else:
        show_receipt(output, folder, receipt)
    output.findings(receipt.findings)
    return int(has_errors(receipt.findings))
