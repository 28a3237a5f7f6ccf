"""Runs whose result is given, and what their evaluations say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.learnt import ROWS
from tests.support.runs import make_plan
from tunesmith.recipe.evaluation import Evaluation
from tunesmith.records import Comparison, EvalReport


def run_folder(folder: Path, result: Path, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> Path:
    """A run folder of which `result` is the tuned model."""
    make_plan(folder, rows, **changes)
    (folder / "model").symlink_to(result)
    return folder


def comparison(report: EvalReport, metric: str) -> Comparison:
    """The first comparison of a metric."""
    return next(one for one in report.comparisons if one.metric == metric)


def compared(report: EvalReport) -> dict[str, Comparison]:
    """The comparisons by metric."""
    return {one.metric: one for one in report.comparisons}


def codes(report: EvalReport) -> list[str]:
    """The codes of the findings, in their order."""
    return [finding.code for finding in report.findings]


def quick(**settings: Any) -> Evaluation:
    """Settings without the regression suite."""
    return Evaluation(regression=False, **settings)
