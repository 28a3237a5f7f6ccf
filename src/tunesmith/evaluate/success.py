"""Whether an evaluation shows what the recipe asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..recipe.evaluation import Evaluation, Success
from ..records import Comparison, Conclusion, EvalReport, units
from ..rules import finding
from .findings import improved
from .verdict import lost, sentence

_OF_CONVERSATIONS: Final = ("E067", "E068", "E069", "E072")
"""Rules on what conversations must show; they have criteria of their own."""
_ROUNDING: Final = 1e-9
"""0.8 - 0.7 is a little less than 0.1."""


def conclude(report: EvalReport, settings: Evaluation) -> EvalReport:
    """The report with its conclusion, and with E057 where the criteria of `success:` aren't met."""
    reasons = list(unmet(report, settings.success)) if settings.success else []
    found = [finding("E057", report.split, reasons="; ".join(reasons))] if reasons else []
    if settings.conversations:
        reasons += _of_conversations(report)
    met = not reasons if settings.success or settings.conversations else None
    report = report.model_copy(update={"findings": [*report.findings, *found]})
    conclusion = Conclusion(met=met, sentence=sentence(report), reasons=reasons)
    return report.model_copy(update={"conclusion": conclusion})


def _of_conversations(report: EvalReport) -> list[str]:
    """What conversations don't show of what they must."""
    errors = [one.what for one in report.findings if one.code in _OF_CONVERSATIONS and one.severity == "error"]
    return errors if report.of("conversations") or errors else ["no conversation was graded"]


def unmet(report: EvalReport, success: Success) -> Iterator[str]:
    """What doesn't hold of the criteria, one line each."""
    metric = success.metric or report.primary
    judged = next((one for one in report.comparisons if one.metric == metric), None)
    if judged is None:
        known = ", ".join(dict.fromkeys(one.metric for one in report.comparisons)) or "nothing"
        yield f"{metric or 'a primary metric'} wasn't measured, only {known}"
    else:
        yield from _not_better(judged, success)
    if success.no_regression:
        yield from (f"{units.metric(one)} got worse, {_from_to(one)}" for one in lost(report, judged))


def _not_better(judged: Comparison, success: Success) -> Iterator[str]:
    gain = judged.difference if judged.better == "higher" else -judged.difference
    if not improved(judged):
        yield f"{units.metric(judged)} isn't better, {_from_to(judged)}"
    elif gain < success.improvement - _ROUNDING:
        yield f"{units.metric(judged)} improved by {gain:.3g}, not by {success.improvement:g}"
    if judged.p_value is None:
        yield f"{units.metric(judged)} has no p-value"
    elif judged.p_value >= success.p_value:
        yield f"{units.metric(judged)} has p = {judged.p_value:.2g}, not below {success.p_value:g}"


def _from_to(one: Comparison) -> str:
    return f"from {units.score(one, one.base)} to {units.score(one, one.tuned)}"
