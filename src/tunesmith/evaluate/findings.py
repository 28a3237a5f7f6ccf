"""What the numbers of an evaluation mean: the E rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from ..records import Comparison, EvalReport, Finding
from ..rules import finding
from .statistics import ROWS_NEEDED

LONG_ANSWER = 64
"""Tokens above which word-for-word equality is not to be expected of open answers."""
HARDLY_EVER = 0.05
"""Exact match below which it tells nothing, and share of unstopped answers that is worth a finding."""
PRIMARY: Final[Mapping[str, Sequence[str]]] = {
    "sft": ("exact_match", "loss"),
    "clm": ("perplexity", "loss"),
    "dpo": ("reward_accuracy", "reward_margin", "exact_match"),
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


def primary(method: str, comparisons: Sequence[Comparison], answer_tokens: float) -> str | None:
    """The metric the verdict rests on: the method's own; exact match only where it informs, or nothing else is there.

    `answer_tokens` is the mean length of the expected answers.
    """
    metrics = by_metric(comparisons)
    order = list(PRIMARY[method])
    if not exact_match_informs(comparisons, answer_tokens):
        order.sort(key=lambda metric: metric == "exact_match")
    return next((metric for metric in order if metric in metrics), None)


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


def left_out(split: str, count: int, total: int, max_length: int | None) -> list[Finding]:
    """E011 where rows couldn't be measured."""
    return [finding("E011", split, count=count, total=total, limit=max_length)] if count else []


def judge(report: EvalReport) -> list[Finding]:
    """The verdict on a report's primary metric, and whether it can be trusted: E001, E002, E003, E014."""
    if report.rows < ROWS_NEEDED:
        return [finding("E001", report.split, rows=report.rows)]
    metrics = by_metric(report.comparisons)
    judged = metrics.get(report.primary or "")
    if judged is None:
        return []
    if not (judged.significant and improved(judged)):
        code = "E003" if judged.significant else "E002"
        return [finding(code, report.split, metric=judged.metric, base=judged.base, tuned=judged.tuned)]
    match = metrics.get("exact_match")
    if match is None or not match.significant or improved(match):
        return []
    return [finding("E014", report.split, metric=judged.metric, base=match.base, tuned=match.tuned)]


def improved(comparison: Comparison) -> bool:
    """Whether tuned is on the better side of base, however little."""
    return comparison.difference > 0 if comparison.better == "higher" else comparison.difference < 0


def worsened(comparison: Comparison) -> bool:
    """Whether tuned is significantly worse than base."""
    return comparison.significant and not improved(comparison)


def on_answers(
    match: Comparison | None, answer_tokens: float, split: str, *, stop_rate: float, limit: int
) -> list[Finding]:
    """E004 and E006: answers that don't stop, and answers that exact match says little of.

    Args:
        match: The comparison by exact match, where it was asked for.
        answer_tokens: Mean length of the expected answers.
        split: Path of the rows.
        stop_rate: Share of the tuned model's answers that ended by themselves.
        limit: Tokens after which an answer was cut.
    """
    found = []
    if 1 - stop_rate > HARDLY_EVER:
        found.append(finding("E004", split, percent=100 * (1 - stop_rate), limit=limit))
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
