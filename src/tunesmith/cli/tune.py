"""`tunesmith tune DATA --model MODEL`: the whole chain."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import pipeline
from ..recipe import Recipe
from ..records import DataReport, EvalReport, Plan
from .common import add_data_options, add_json, add_output, has_errors, recipe_from_options
from .data_views import show_data
from .evaluation_view import say_where_kept, show_evaluation
from .output import Output, safe
from .plan_views import show_plan
from .views import show_receipt

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_data_options(parser)
    add_output(parser)
    add_json(parser)
    parser.epilog = (
        "Every key of a recipe can be given: --training.max_steps 30 --adapter.kind none --data.bad_rows drop. "
        "grpo and rloo need a reward: --rewards '[exact_match]'"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the whole chain on a data file."""
    return tune(Output(as_json=arguments.json), recipe_from_options(arguments), arguments.output)


def tune(output: Output, recipe: Recipe, folder: Path | None) -> int:
    """The stages one after the other, each shown; exit code 1 when one of its findings is an error."""
    folder = pipeline.prepare_run(recipe, folder)
    plan = Plan.load(folder)
    show_data(output, DataReport.load(folder), brief=True)
    show_plan(output, plan)
    output.findings(plan.findings)
    output.say("The worker loads the libraries and the model.")
    reports: list[EvalReport] = []
    with output.progress() as progress:
        receipt = pipeline.tune_prepared(folder, progress=progress, listen=progress.event, evaluated=reports.append)
    apart = [] if receipt.evaluation else reports
    if output.as_json:
        output.record(receipt)
    else:
        show_receipt(output, folder, receipt)
        for report in apart:
            show_evaluation(output, report)
    shown = {*plan.findings, *receipt.run.findings}
    findings = list(dict.fromkeys([*receipt.findings, *(found for report in apart for found in report.findings)]))
    output.findings([found for found in findings if found not in shown])
    if apart:
        say_where_kept(output, folder, pipeline.recipe_of(folder).evaluation)
    output.say(f"report: {safe(folder / 'report.html')}")
    output.next_step("chat", folder)
    return int(has_errors(findings))
