"""`tunesmith prepare DATA --output DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from .. import pipeline
from ..errors import UsageError
from ..files import write_atomic
from ..records import Cluster, Preparation, PreparationSettings
from ..words import counted
from .common import add_json, add_roles, add_source, positive, sources
from .output import Output, safe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_source(parser)
    add_roles(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--dedup", choices=("exact", "near", "none"), default="exact", help="drop repeated rows (default: exact)"
    )
    parser.add_argument(
        "--near-threshold", type=float, default=0.8, metavar="J", help="least Jaccard similarity of near duplicates"
    )
    parser.add_argument("--eval", type=float, default=0.05, metavar="F", help="expected fraction held out (0.05)")
    parser.add_argument("--test", type=float, default=0.05, metavar="F", help="expected fraction for the end (0.05)")
    parser.add_argument(
        "--group", metavar="COLUMN", help="rows with one value of it stay on one side (default: with one prompt)"
    )
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="which rows are held out (default: 42)")
    parser.add_argument("--format", choices=("parquet", "jsonl"), default="parquet", help="(default: parquet)")
    parser.add_argument("--push", metavar="NAME", help="then push it to the Hub as the private dataset NAME")
    parser.add_argument("--yes", action="store_true", help="push without asking")
    scale = parser.add_argument_group("past one process")
    scale.add_argument("--executor", choices=("local", "datatrove"), default="local", help="who runs the steps")
    scale.add_argument("--tasks", type=positive, default=4, metavar="N", help="tasks that share a step (default: 4)")
    where = scale.add_mutually_exclusive_group()
    where.add_argument("--slurm", metavar="PARTITION", help="as jobs of Slurm, in this partition")
    where.add_argument("--ray", action="store_true", help="on a Ray cluster")
    scale.add_argument(
        "--write-pipeline", type=Path, metavar="FILE", help="only write the datatrove pipeline, to be run with Python"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make a dataset of raw rows; exit code 1 when rows can't be used and aren't to be dropped."""
    output = Output(as_json=arguments.json)
    settings = _settings(arguments)
    _check(arguments)
    if arguments.write_pipeline:
        return _write_pipeline(output, settings, arguments)
    with output.progress() as progress:
        record = pipeline.prepare_data(settings, arguments.output, cluster=_cluster(arguments), progress=progress)
    if record is None:
        return _submitted(output, arguments)
    address = _push(output, record, arguments) if arguments.push else None
    if arguments.json:
        output.record(record)
    _show(output, record, arguments.output)
    if address:
        output.show(f"pushed      {safe(address)}")
    output.findings(record.findings)
    output.next_step("inspect", arguments.output / record.files["train"].name, "--model", "MODEL")
    return 0


def _settings(arguments: argparse.Namespace) -> PreparationSettings:
    names = ("method", "dedup", "near_threshold", "eval", "test", "group", "seed", "format", "bad_rows")
    data: list[Any] = [_plain(source.model_dump(exclude_none=True)) for source in sources(arguments)]
    try:
        return PreparationSettings(
            data=data,
            mapping=dict(arguments.mapping or ()),
            filter=dict(arguments.filter or ()),
            **{name: getattr(arguments, name) for name in names},
        )
    except ValidationError as error:
        problem = error.errors()[0]
        option = f"--{problem['loc'][0]}".replace("_", "-") if problem["loc"] else "--eval and --test"
        raise UsageError(
            f"{option} can't be so.",
            why=problem["msg"].removeprefix("Value error, "),
            fix="`tunesmith prepare --help` tells about each argument.",
        ) from None


def _plain(source: dict[str, Any]) -> Any:
    return source["path"] if source.keys() == {"path"} else source


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that do nothing, before any work is done."""
    if (arguments.slurm or arguments.ray) and arguments.executor == "local" and not arguments.write_pipeline:
        raise UsageError(
            "--slurm and --ray are for --executor datatrove.",
            why="The steps run in this process otherwise.",
            fix="Add --executor datatrove, or --write-pipeline FILE.",
        )
    if arguments.push and (arguments.slurm or arguments.ray or arguments.write_pipeline):
        raise UsageError(
            "--push needs the dataset here.",
            why="It isn't there yet when this command ends.",
            fix="Repeat the command with --push and without the cluster once the dataset is there.",
        )
    if arguments.push and not arguments.yes and not sys.stdin.isatty():
        raise UsageError(
            "--push asks before it publishes, and here is nobody to ask.",
            why="There is no terminal.",
            fix="Add --yes.",
        )


def _cluster(arguments: argparse.Namespace) -> Cluster | None:
    if arguments.executor == "local" and not arguments.write_pipeline:
        return None
    where: Literal["local", "slurm", "ray"] = "slurm" if arguments.slurm else "ray" if arguments.ray else "local"
    return Cluster(where=where, tasks=arguments.tasks, partition=arguments.slurm)


def _write_pipeline(output: Output, settings: PreparationSettings, arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    assert cluster is not None
    path = write_atomic(arguments.write_pipeline, pipeline.pipeline_script(settings, arguments.output, cluster))
    if arguments.json:
        output.record({"pipeline": str(path), "output": str(arguments.output)})
    output.show(f"wrote {safe(path)}: run it with `python {safe(path)}`")
    return 0


def _submitted(output: Output, arguments: argparse.Namespace) -> int:
    if arguments.json:
        output.record({"submitted": True, "output": str(arguments.output)})
    output.show(f"Submitted. The dataset is complete once {safe(arguments.output / Preparation.filename)} is there.")
    return 0


def _push(output: Output, record: Preparation, arguments: argparse.Namespace) -> str | None:
    rows = sum(file.rows for file in record.files.values())
    size = sum(file.bytes for file in record.files.values())
    question = f"Push {counted(rows, 'row')} ({size:,} bytes) to the private dataset {safe(arguments.push)}? [y/N] "
    if not arguments.yes:
        output.say(question)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            output.say("Not pushed.")
            return None
    return pipeline.push_data(arguments.output, record, arguments.push)


def _show(output: Output, record: Preparation, folder: Path) -> None:
    output.table(
        f"Dataset in {folder} for {record.settings.method}",
        ("step", "rows in", "rows out", "why"),
        [
            (step.name, f"{step.rows_in:,}", f"{step.rows_out:,}", "\n".join(_reasons(step.reasons)))
            for step in record.steps
        ],
    )
    rows = record.steps[-1].rows_out
    output.table(
        "Files",
        ("file", "rows", "share", "bytes"),
        [
            *((f.name, f"{f.rows:,}", f"{f.rows / rows:.1%}", f"{f.bytes:,}") for f in record.files.values()),
            (record.rejected.name, f"{record.rejected.rows:,}", "", f"{record.rejected.bytes:,}"),
        ],
    )


def _reasons(reasons: dict[str, int]) -> list[str]:
    return [f"{count:,} {reason}" for reason, count in reasons.items()]
