"""What the rows can't show: too few groups, groups that are none, differences that would be missed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Final

from ..records import Comparison, Finding
from ..rules import finding
from .power import POWER, detectable_effect, rows_for_mean, rows_for_share
from .statistics import ROWS_NEEDED

MEDIUM: Final = 0.5
"""A standardized difference of medium size (Cohen 1988, Statistical Power Analysis, section 2.2.3)."""


def on_groups(values: Sequence[Hashable | None], column: str, split: str) -> list[Finding]:
    """Whether rows can be compared by groups: E033, E034, E035.

    Args:
        values: Per row, what it belongs to; None where the row doesn't say, which makes it a group of its own.
        column: Where the rows say so.
        split: Path of the rows.
    """
    without = values.count(None)
    groups = len({*values} - {None}) + without
    found = []
    if without:
        found.append(finding("E034", split, count=without, total=len(values), column=column))
    if groups == len(values) > 1 and without < len(values):
        found.append(finding("E035", split, column=column, count=groups))
    if groups < ROWS_NEEDED <= len(values):
        found.append(finding("E033", split, groups=groups, rows=len(values), column=column))
    return found


def on_power(judged: Comparison | None, improvement: float, split: str) -> list[Finding]:
    """E036 where a difference that matters may be there and not show.

    Args:
        judged: What the verdict rests on.
        improvement: The least that the recipe asks for; 0 where it asks for none: then one of medium size matters.
        split: Path of the rows.
    """
    if judged is None or judged.significant or judged.detectable is None:
        return []
    units, kind = (judged.rows, "rows") if judged.groups is None else (judged.groups, "groups")
    least = detectable_effect(units) or math.inf
    wanted = improvement or judged.detectable * MEDIUM / least
    if judged.detectable <= wanted:
        return []
    needed = rows_like(judged, wanted)
    return [
        finding(
            "E036",
            split,
            metric=judged.metric,
            units=units,
            kind=kind,
            detectable=judged.detectable,
            power=100 * POWER,
            needed=needed,
            wanted=wanted,
        )
    ]


def rows_like(comparison: Comparison, difference: float) -> int | None:
    """Rows, or groups where they were compared, that would show a difference, if they vary as those compared do.

    Args:
        comparison: Of one metric.
        difference: In the metric's unit, of either sign but not 0.

    Returns:
        The number, at least `ROWS_NEEDED`; None where the comparison doesn't tell how its rows vary.
    """
    if comparison.changed is not None:
        wanted = abs(difference)
        return rows_for_share(wanted, max(comparison.changed, wanted))
    least = detectable_effect(comparison.groups or comparison.rows)
    if comparison.detectable is None or least is None:
        return None
    return rows_for_mean(least * abs(difference) / comparison.detectable)
