"""`tunesmith runs list|show|logs|stop`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import pipeline
from ..launch import local
from ..track.events import FILENAME
from .common import add_json, add_run
from .curves import show_curve
from .output import Output, harmless, safe
from .views import show_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = verbs.add_parser("list", help="the runs under a folder")
    listing.add_argument("--root", type=Path, default=pipeline.RUNS, help="folder that holds the runs (default: runs)")
    add_json(listing)
    for name, text in (("show", "the record of a run"), ("stop", "save and stop a running run")):
        action = verbs.add_parser(name, help=text)
        add_run(action)
        add_json(action)
    logs = verbs.add_parser("logs", help="what a run has logged")
    add_run(logs)
    logs.add_argument("--worker", action="store_true", help="the worker's own output instead of the events")


def run(arguments: argparse.Namespace) -> int:
    """Do one of the actions."""
    if arguments.action == "list":
        return _list(arguments)
    folder = pipeline.open_run(arguments.run)
    if arguments.action == "logs":
        return _logs(folder, worker=arguments.worker)
    output = Output(as_json=arguments.json)
    record = local.settled(folder)
    if arguments.action == "stop":
        local.stop(folder)
        if arguments.json:
            output.record(record)
        output.say(f"Asked {safe(record.id)} to save and stop after its current step.")
        output.next_step("resume", folder)
        return 0
    if arguments.json:
        output.record(record)
    else:
        show_run(output, folder, record)
        show_curve(output, folder)
    output.findings(record.findings)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    output = Output(as_json=arguments.json)
    runs = [local.settled(folder) for folder, _ in pipeline.find_runs(arguments.root)]
    if arguments.json:
        output.record(runs)
        return 0
    rows = [
        (record.id, record.status, f"{record.step}/{record.steps}", _loss(record.loss), _loss(record.eval_loss))
        for record in runs
    ]
    output.table("", ("run", "status", "step", "loss", "held-out"), rows)
    if not runs:
        output.say(f"No runs under {safe(arguments.root)}.")
    return 0


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _logs(folder: Path, *, worker: bool) -> int:
    path = folder / (local.LOG if worker else FILENAME)
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            sys.stdout.write(harmless(line) + "\n")
    return 0
