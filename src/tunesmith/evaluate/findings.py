"""What the numbers of an evaluation mean: the E rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..records import Comparison, EvalReport, Finding
from ..rules import finding
from .statistics import ROWS_NEEDED

LONG_ANSWER = 64
"""Tokens above which word-for-word equality is not to be expected of open answers."""
HARDLY_EVER = 0.05
"""Exact match below which it tells nothing, and share of unstopped answers that is worth a finding."""


def exact_match_informs(comparisons: Sequence[Comparison], answer_tokens: float) -> bool:
    """Whether exact match can judge: answers are short, or a model does get long ones right (JSON, say)."""
    match = _by_metric(comparisons).get("exact_match")
    return match is not None and (answer_tokens <= LONG_ANSWER or max(match.base, match.tuned) >= HARDLY_EVER)


def primary(comparisons: Sequence[Comparison], answer_tokens: float) -> str | None:
    """The metric the verdict rests on: exact match where it informs, else the loss, else whatever there is."""
    metrics = _by_metric(comparisons)
    informative = exact_match_informs(comparisons, answer_tokens)
    order = ("exact_match", "loss") if informative else ("loss", "exact_match")
    return next((metric for metric in order if metric in metrics), None)


def _by_metric(comparisons: Sequence[Comparison]) -> dict[str, Comparison]:
    return {comparison.metric: comparison for comparison in comparisons}


def judge(
    report: EvalReport, layout: str, asked: Sequence[str], answer_tokens: float, not_numbers: Mapping[str, int]
) -> list[Finding]:
    """All findings on a report.

    Args:
        report: All but its findings.
        layout: The rows' layout.
        asked: Tasks of the recipe.
        answer_tokens: Mean length of the expected answers in tokens.
        not_numbers: Per model, rows whose loss is NaN or infinite.
    """
    found = [
        finding("E007", report.split, arm=arm, count=count, total=report.rows)
        for arm, count in not_numbers.items()
        if count
    ]
    if report.rows < ROWS_NEEDED:
        found.append(finding("E001", report.split, rows=report.rows))
    else:
        found += _verdict(report)
    found += _on_answers(report, answer_tokens)
    if "exact_match" in asked and "exact_match" not in _by_metric(report.comparisons):
        found.append(finding("E005", report.split, layout=layout))
    return found


def _verdict(report: EvalReport) -> list[Finding]:
    comparison = _by_metric(report.comparisons).get(report.primary or "")
    if comparison is None:
        return []
    improved = comparison.difference > 0 if comparison.better == "higher" else comparison.difference < 0
    if improved and comparison.significant:
        return []
    code = "E003" if comparison.significant else "E002"
    base, tuned = comparison.base, comparison.tuned
    return [finding(code, report.split, metric=comparison.metric, base=base, tuned=tuned)]


def _on_answers(report: EvalReport, answer_tokens: float) -> list[Finding]:
    found = []
    if report.stop_rate_tuned is not None and 1 - report.stop_rate_tuned > HARDLY_EVER:
        percent = 100 * (1 - report.stop_rate_tuned)
        found.append(finding("E004", report.split, percent=percent, limit=report.max_new_tokens))
    has_answers = "exact_match" in _by_metric(report.comparisons)
    if has_answers and not exact_match_informs(report.comparisons, answer_tokens):
        found.append(finding("E006", report.split, tokens=round(answer_tokens)))
    return found
