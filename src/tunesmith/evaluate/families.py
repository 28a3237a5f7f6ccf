"""Many metrics at once: p-values corrected so that one that is significant by chance alone isn't taken for a find."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from ..records import Comparison, SuiteName
from .resampling import must_be_finite

_TESTED_AS: Final = {"perplexity": "loss", "bits_per_byte": "loss"}
"""Metrics that are another's values in another unit: one test serves both, so they count once."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: whatever is true, the chance of any false find stays at the level.

    Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6:65-70: the
    i-th smallest of m p-values is multiplied by m - i + 1, and is no smaller than the one before it.

    Raises:
        ValueError: a p-value isn't finite.
    """
    must_be_finite(p_values)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = min(1.0, max(highest, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def corrected(comparisons: Sequence[Comparison], leads: Collection[tuple[SuiteName, str]]) -> list[Comparison]:
    """The comparisons, those that aren't leads with Holm's correction over the others of their suite.

    Args:
        comparisons: Of all suites.
        leads: Suite and metric of those that a verdict rests on, chosen before anything was measured: each stands on
            its own, and its p-value as it is.
    """
    alone = {hypothesis(suite, metric) for suite, metric in leads}
    families: dict[SuiteName, dict[tuple[str, str], float]] = {}
    for one in comparisons:
        tested = hypothesis(one.suite, one.metric)
        if one.p_value is not None and tested not in alone:
            families.setdefault(one.suite, {}).setdefault(tested, one.p_value)
    adjusted: dict[tuple[str, str], float] = {}
    for family in families.values():
        adjusted |= dict(zip(family, holm(list(family.values())), strict=True))
    return [_adjusted(one, adjusted.get(hypothesis(one.suite, one.metric))) for one in comparisons]


def hypothesis(suite: str, metric: str) -> tuple[str, str]:
    """What is tested; metrics that are one value in several units have it in common."""
    return suite, _TESTED_AS.get(metric, metric)


def _adjusted(comparison: Comparison, p_value: float | None) -> Comparison:
    if comparison.p_value is None or p_value is None:
        return comparison
    return comparison.model_copy(update={"adjusted": p_value, "significant": p_value < 0.05})
