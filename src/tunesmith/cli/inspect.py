"""`tunesmith inspect DATA`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import pipeline
from ..recipe.schema import Mapping
from .common import add_json, has_errors, positive, role_and_column
from .output import Output
from .views import show_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("data", type=Path, metavar="DATA", help="file with rows: JSON, JSONL, CSV or Parquet")
    parser.add_argument("--model", help="measure tokens and audit labels with this model's tokenizer and template")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub model")
    parser.add_argument(
        "--max-length", type=positive, metavar="N", help="cut rows at N tokens (default: the model's context)"
    )
    parser.add_argument("--chat-template", metavar="FILE", help="Jinja file, for a model that has no chat template")
    parser.add_argument("--no-audit", action="store_true", help="leave the label audit out (it takes seconds to start)")
    parser.add_argument(
        "--mapping", nargs="+", type=role_and_column, metavar="ROLE=COLUMN", help="columns by role: prompt=question"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Inspect a file; exit code 1 when it has findings of severity error."""
    output = Output(as_json=arguments.json)
    report = pipeline.inspect(
        arguments.data,
        model=arguments.model,
        revision=arguments.revision,
        chat_template=arguments.chat_template,
        max_length=arguments.max_length,
        mapping=Mapping(**dict(arguments.mapping)) if arguments.mapping else None,
        audit=not arguments.no_audit,
    )
    if arguments.json:
        output.record(report)
    else:
        show_data(output, report)
    output.findings(report.findings)
    if not has_errors(report.findings):
        output.next_step("init", arguments.data, "--model", arguments.model or "MODEL")
    return int(has_errors(report.findings))
