"""What the numbers of an evaluation mean: the E rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..records import Comparison, EvalReport, Finding
from ..records.units import metric
from ..rules import finding
from ..words import counted
from .families import hypothesis
from .outcome import Arm
from .statistics import ROWS_NEEDED
from .verdict import LIKELIHOODS, rows_of, too_few

LONG_ANSWER = 64
"""Tokens above which word-for-word equality is not to be expected of open answers."""
HARDLY_EVER = 0.05
"""Exact match below which it tells nothing, and share of unstopped answers that is worth a finding."""
PRIMARY: Final[Mapping[str, Sequence[str]]] = {
    "sft": ("exact_match", "loss", "bits_per_byte"),
    "clm": ("perplexity", "loss", "bits_per_byte"),
    "dpo": ("reward_accuracy", "reward_margin", "preference_accuracy", "exact_match"),
    "kto": ("reward_margin", "exact_match"),
    "reward": ("preference_accuracy",),
    "grpo": ("reward", "exact_match"),
    "rloo": ("reward", "exact_match"),
}
"""Method -> the metrics that its verdict rests on, the first that was taken counts."""


def exact_match_informs(comparisons: Sequence[Comparison], answer_tokens: float) -> bool:
    """Whether exact match can judge: answers are short, or a model does get long ones right (JSON, say)."""
    match = by_metric(comparisons).get("exact_match")
    return match is not None and (answer_tokens <= LONG_ANSWER or max(match.base, match.tuned) >= HARDLY_EVER)


def primary(
    method: str, comparisons: Sequence[Comparison], answer_tokens: float, named: Sequence[str] = ()
) -> str | None:
    """The metric the verdict rests on: the first that was taken of those that the recipe names, else the method's own.

    Exact match is it only where it informs, or nothing else is there. `answer_tokens` is the mean length of the
    expected answers.
    """
    metrics = by_metric(comparisons)
    order = list(PRIMARY[method])
    if not exact_match_informs(comparisons, answer_tokens):
        order.sort(key=lambda metric: metric == "exact_match")
    return next((metric for metric in (*named, *order) if metric in metrics), None)


def by_metric(comparisons: Sequence[Comparison]) -> dict[str, Comparison]:
    """The comparisons by their metrics' names."""
    return {comparison.metric: comparison for comparison in comparisons}


def broken(measure: str, split: str, base: Sequence[float], tuned: Sequence[float]) -> list[Finding]:
    """E007 for each model that some rows' numbers are NaN or infinite under."""
    counts = {
        arm: sum(not math.isfinite(value) for value in values) for arm, values in (("base", base), ("tuned", tuned))
    }
    return [
        finding("E007", split, measure=measure, arm=arm, count=count, total=len(base))
        for arm, count in counts.items()
        if count
    ]


def left_out(split: str, count: int, total: int, limit: str) -> list[Finding]:
    """E011 where rows couldn't be measured; `limit` is what they don't fit into."""
    return [finding("E011", split, count=count, total=total, limit=limit)] if count else []


def judge(report: EvalReport, *, missed: bool = False) -> list[Finding]:
    """The verdict on a report's primary metric, and on what got worse beside it: E001, E002, E003, E014.

    `missed`: so few rows may not show a difference that matters.
    """
    if report.rows < ROWS_NEEDED:
        return [finding("E001", report.split, units=counted(report.rows, "row"))]
    judged = report.judged
    if judged is None or any(found.code == "E033" for found in report.findings):
        return []
    if too_few(judged):
        enough = (judged.groups or judged.rows) >= ROWS_NEEDED
        untested = finding("E059", report.split, metric=metric(judged), units=rows_of(judged))
        return [untested if enough else finding("E001", report.split, units=rows_of(judged))]
    better = judged.significant and improved(judged)
    told = (*report.of("task"), judged)
    # One value in several units is told once.
    worse = {hypothesis(one.suite, one.metric): one for one in told if worsened(one) and one.metric not in LIKELIHOODS}
    found = [] if better or worsened(judged) else [_no_better(report, judged, worse=bool(worse), missed=missed)]
    code = "E014" if better else "E003"
    for one in worse.values():
        values: dict[str, Any] = {"metric": one.metric, "base": one.base, "tuned": one.tuned}
        found.append(finding(code, report.split, risen=judged.metric, **values))
    return found


def _no_better(report: EvalReport, judged: Comparison, *, worse: bool, missed: bool) -> Finding:
    remedy = "Look at the changed rows; "
    if report.tuned and report.tuned.empty == 1:
        remedy += "see first to why all answers of the tuned model are empty"
    elif worse:
        remedy += "see first to what got worse (E003)"
    elif missed:
        remedy += "hold out more rows first, as these may not show a difference that matters (E036)"
    else:
        remedy += "train longer, on more or cleaner data, or with a higher learning rate"
    return finding("E002", report.split, metric=judged.metric, base=judged.base, tuned=judged.tuned, remedy=remedy)


def silent(report: EvalReport) -> list[Finding]:
    """E058 for each model behind a server that said nothing to any question."""
    sides = {"base": report.base, "tuned": report.tuned}
    return [
        finding("E058", report.split, arm=arm, count=side.answers)
        for arm, side in sides.items()
        if side and side.kind == "endpoint" and side.empty == 1
    ]


def improved(comparison: Comparison) -> bool:
    """Whether tuned is on the better side of base, however little."""
    return comparison.gain(comparison.difference) > 0


def worsened(comparison: Comparison) -> bool:
    """Whether tuned is significantly worse than base."""
    return comparison.significant and not improved(comparison)


def on_answers(
    match: Comparison | None, answer_tokens: float, split: str, *, stop_rates: Mapping[Arm, float], limit: int
) -> list[Finding]:
    """E004 and E006: answers that don't stop, and answers that exact match says little of.

    Args:
        match: The comparison by exact match, where it was asked for.
        answer_tokens: Mean length of the expected answers.
        split: Path of the rows.
        stop_rates: Share of the answers that ended by themselves, of each model that was taught to end them.
        limit: Tokens after which an answer was cut.
    """
    found = [
        finding("E004", split, arm=arm, percent=100 * (1 - rate), limit=limit)
        for arm, rate in stop_rates.items()
        if 1 - rate > HARDLY_EVER
    ]
    if match is not None and not exact_match_informs([match], answer_tokens):
        found.append(finding("E006", split, tokens=round(answer_tokens)))
    return found


def longer_wins(gains: Sequence[float], lengths: Sequence[tuple[int, int]], split: str) -> list[Finding]:
    """E013 where the tuned model prefers chosen answers when they are longer, and the rejected ones otherwise.

    Args:
        gains: Per pair, above 0 where the tuned model prefers the chosen answer.
        lengths: Per pair, tokens of the chosen and of the rejected answer.
        split: Path of the rows.
    """
    from scipy.stats import binomtest

    judged = [(gain > 0, chosen - rejected) for gain, (chosen, rejected) in zip(gains, lengths, strict=True)]
    short = [right for right, more in judged if more < 0]
    long = [right for right, more in judged if more > 0]
    if min(len(short), len(long)) < ROWS_NEEDED or sum(long) <= len(long) / 2:
        return []
    if binomtest(sum(short), len(short), alternative="less").pvalue >= 0.05:
        return []
    percent = [100 * sum(group) / len(group) for group in (short, long)]
    return [finding("E013", split, count=len(short), short=percent[0], long=percent[1])]
