"""`tunesmith inspect DATA`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import pipeline
from ..files import write_atomic
from ..recipe.schema import Mapping
from .common import add_json, add_roles, add_source, has_errors, positive, sources
from .data_views import show_data
from .output import Output, safe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_source(parser)
    add_roles(parser, method=None)
    parser.add_argument("--model", help="measure tokens and audit labels with this model's tokenizer and template")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub model")
    parser.add_argument(
        "--max-length", type=positive, metavar="N", help="cut rows at N tokens (default: the model's context)"
    )
    parser.add_argument("--chat-template", metavar="FILE", help="Jinja file, for a model that has no chat template")
    parser.add_argument("--no-audit", action="store_true", help="leave the label audit out (it takes seconds to start)")
    parser.add_argument("--no-quality", action="store_true", help="don't examine what the rows say (seconds)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write the report as a page")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Inspect data; exit code 1 when it has findings of severity error."""
    output = Output(as_json=arguments.json)
    with output.progress() as progress:
        report = pipeline.inspect(
            sources(arguments),
            method=arguments.method,
            model=arguments.model,
            revision=arguments.revision,
            chat_template=arguments.chat_template,
            max_length=arguments.max_length,
            mapping=Mapping(**dict(arguments.mapping or ())),
            keep=dict(arguments.filter or ()),
            bad_rows=arguments.bad_rows,
            audit=not arguments.no_audit,
            quality=not arguments.no_quality,
            progress=progress,
        )
    if arguments.html:
        write_atomic(arguments.html, pipeline.data_page(report))
    if arguments.json:
        output.record(report)
    else:
        show_data(output, report)
    output.findings(report.findings)
    if arguments.html:
        output.say(f"wrote {safe(arguments.html)}")
    if not has_errors(report.findings):
        output.next_step("init", *arguments.data, "--model", arguments.model or "MODEL")
    return int(has_errors(report.findings))
