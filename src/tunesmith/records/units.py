"""The values of a comparison in words and in their units, as terminal, report, card and verdict all tell them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from ..words import counted
from .evaluation import Comparison, EvalReport, Leakage, Side, SuiteName

NONE: Final = "\u2013"
SUITES: Final[dict[SuiteName, str]] = {
    "task": "The task",
    "regression": "What isn't the task",
    "harness": "lm-evaluation-harness",
    "conversations": "Conversations",
}
"""What the suites are called, in the order in which they are told."""

_NAMES: Final = {
    "exact_match": "exact match",
    "normalized_match": "normalised match",
    "contains": "contains the answer",
    "numeric": "equal number",
    "math": "equal in mathematics",
    "json": "valid JSON",
    "json_schema": "JSON by its schema",
    "json_fields": "right fields",
    "token_f1": "token F1",
    "macro_f1": "macro F1",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "think_format": "think format",
    "choice_accuracy": "multiple choice",
    "choice_accuracy_per_byte": "multiple choice, per byte",
    "loss": "held-out loss",
    "bits_per_byte": "held-out bits per byte",
    "chosen_loss": "loss of chosen answers",
    "desirable_loss": "loss of desirable answers",
    "preference_accuracy": "preference accuracy",
    "reward_accuracy": "accuracy of implicit rewards",
    "reward_margin": "margin of implicit rewards",
    "score_margin": "margin of scores",
    "reward": "mean reward",
    "neutral_bits_per_byte": "neutral text, bits per byte",
    "instructions_followed": "instructions followed",
    "harmful_refused": "harmful asks refused",
    "harmless_not_refused": "harmless asks not refused",
    "conversation_score": "conversations, by the rubric",
    "conversation_safety": "conversations, by safety",
}
_SHARES: Final = ("exact_match", "preference_accuracy", "reward_accuracy", "choice_accuracy", "instructions_followed")
_UNITS: Final = {
    "loss": "nats per token",
    "chosen_loss": "nats per token",
    "desirable_loss": "nats per token",
    "bits_per_byte": "bits per byte",
    "neutral_bits_per_byte": "bits per byte",
    "bleu": "points from 0 to 100",
    "chrf": "points from 0 to 100",
}


def metric(comparison: Comparison) -> str:
    """A comparison's metric in words; the name of a user's own as it is."""
    return _NAMES.get(comparison.metric, comparison.metric)


def unit(comparison: Comparison) -> str:
    """What the values are counted in; empty for shares, which say so, and for bare numbers."""
    return _UNITS.get(comparison.metric, "")


def score(comparison: Comparison, value: float) -> str:
    """A value of the comparison's metric."""
    if comparison.metric == "perplexity":
        return f"{value:.3g}"
    return percent(value) if _is_share(comparison) else number(value)


def change(comparison: Comparison, value: float, digits: int = 4) -> str:
    """A difference in the comparison's metric, with its sign."""
    if _is_share(comparison):
        return f"{100 * value:+.1f} points"
    if comparison.metric == "perplexity":
        return f"{value:+.3g}"
    return number(value, digits, sign="+")


def interval(comparison: Comparison, digits: int = 4) -> str:
    """The comparison's confidence interval, or a dash."""
    found = comparison.interval
    if found is None:
        return NONE
    low, high = (change(comparison, end, digits) for end in (found.low, found.high))
    return f"{low.removesuffix(' points')} to {high}"


def size(comparison: Comparison, value: float) -> str:
    """How large a difference in the comparison's metric is, whichever way it goes."""
    return change(comparison, abs(value)).removeprefix("+")


def p_value(value: float | None) -> str:
    """A p-value, not more exact than anybody needs."""
    if value is None:
        return NONE
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def judged_p(comparison: Comparison) -> float | None:
    """The p-value that significance rests on: the adjusted one, where there is such."""
    return comparison.p_value if comparison.adjusted is None else comparison.adjusted


def outcome(comparison: Comparison) -> str:
    """What the comparison shows: better, worse, kept (no worse than is accepted), unclear, or that it has no test."""
    if comparison.lost:
        return "worse"
    if comparison.significant and comparison.gain(comparison.difference) > 0:
        return "better"
    if comparison.kept:
        return "kept"
    return "not tested" if comparison.p_value is None and comparison.kept is None else "unclear"


def correction(comparisons: Sequence[Comparison]) -> str:
    """Which p-values of a table are corrected for being many; nothing where none is another for it."""
    if all(one.adjusted in (None, one.p_value) for one in comparisons):
        return ""
    alone = [metric(one) for one in comparisons if one.adjusted is None and one.p_value is not None]
    return f"p: by Holm's correction over this table{', but for ' if alone else ''}{', '.join(alone)}."


def could_show(comparisons: Sequence[Comparison]) -> str:
    """The least differences that unclear metrics would have shown, where that is known."""
    told = [
        f"{metric(one)} {size(one, one.detectable)}"
        for one in comparisons
        if one.detectable is not None and outcome(one) == "unclear"
    ]
    return f"Unclear; these differences would show with a power of 80 %: {', '.join(told)}." if told else ""


def leaked(leakage: Leakage, by: str = "training") -> str:
    """How many held-out rows training saw, or that of another run."""
    rows = counted(leakage.rows, "held-out row")
    return f"Of {rows} {by} saw {leakage.exact:,} exactly and {leakage.near:,} nearly."


def arms(report: EvalReport) -> tuple[str, str]:
    """What the columns of both models are headed by."""
    return ("other run", "this run") if report.base and report.base.kind == "run" else ("base", "tuned")


def versus(report: EvalReport) -> str:
    """Which model is compared with which, by name where that isn't a run's result with its own base."""
    usual = all(side is None or side.kind == kind for side, kind in ((report.base, "base"), (report.tuned, "run")))
    if usual or report.base is None or report.tuned is None:
        return "Tuned against base"
    return f"{name(report.tuned)} against {name(report.base)}"


def name(side: Side) -> str:
    """What a model is called: a run by its folder's name alone."""
    return PurePath(side.name).name if side.kind == "run" else side.name


def changes(*, graded: bool) -> dict[str, str]:
    """What kinds of changed rows are called: an answer that scores more isn't fixed yet."""
    return {"fixed": "better", "broken": "worse"} if graded else {"fixed": "fixed", "broken": "broken"}


def number(value: float | None, digits: int = 4, *, sign: str = "") -> str:
    """A number to so many significant digits, large ones without an exponent; `sign` as in format specifications."""
    if value is None:
        return NONE
    return f"{value:{sign},.0f}" if 10.0**digits <= abs(value) < 1e15 else f"{value:{sign}.{digits}g}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 as a percentage."""
    return NONE if share is None else f"{100 * share:.{digits}f} %"


def _is_share(comparison: Comparison) -> bool:
    # Cohen's h is the effect size of two shares, whatever a user or a task called them.
    effect = comparison.effect
    return comparison.metric in _SHARES or (effect is not None and effect.name == "Cohen's h")
