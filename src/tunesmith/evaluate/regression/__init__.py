"""What a model should be able to do besides its task, so that forgetting shows: a small suite of our own.

It asks three things that have to do with no task. Is neutral text still as likely? Are instructions whose answers a
program can check still followed? Is what should be declined still declined, and nothing else? A few dozen questions of
each see a large loss, not a small one; how small a loss could have been seen stands beside each figure. What the base
can't do isn't counted as kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...records import Comparison, Finding
from ...rules import finding
from ..findings import worsened
from ..measures import Given
from ..outcome import Measure, Suite
from .instructions import Instructions
from .refusals import Refusals
from .text import NeutralText


def regression(given: Given) -> list[Suite]:
    """The suite, unless the settings leave it out or the model writes no text (a reward model)."""
    if not given.settings.regression or given.plan.method == "reward":
        return []
    margin = given.settings.margin
    measures: list[Measure] = [NeutralText(given.settings.batch_size, margin, given.plan.model.context or None)]
    if given.tokenizer.chat_template is None:
        return [Suite("regression", measures, [finding("E045", "regression")])]
    template = _template(given)
    return [Suite("regression", [*measures, Instructions(template, margin), Refusals(template, margin)])]


def _template(given: Given) -> dict[str, Any]:
    """What the chat template is told: as in training; not to reason, where it knows of it, as that takes too long."""
    knows = "enable_thinking" in str(given.tokenizer.chat_template)
    return {**({"enable_thinking": False} if knows else {}), **(given.plan.training.get("chat_template_kwargs") or {})}


def verdict(comparisons: Sequence[Comparison]) -> list[Finding]:
    """E041 for what was lost besides the task, E042 for what may have been, by the final p-values."""
    found = []
    for one in comparisons:
        if one.suite not in ("regression", "harness") or one.kept:
            continue
        if worsened(one):
            found.append(finding("E041", one.suite, metric=one.metric, base=one.base, tuned=one.tuned))
        elif one.kept is False and one.interval is not None:
            loss = -one.interval.low if one.better == "higher" else one.interval.high
            found.append(finding("E042", one.suite, metric=one.metric, rows=one.rows, loss=loss, margin=one.margin))
    return found
