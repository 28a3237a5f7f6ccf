"""How small a difference so many rows show, and how many rows a difference needs: power 80% at p < 0.05, two-sided."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..errors import UsageError
from .statistics import ROWS_NEEDED

POWER: Final = 0.8
ALPHA: Final = 0.05
LEAST: Final = 0.001
"""Differences of shares below it need millions of rows."""
_CHANGED: Final = (0.1, 0.25, 0.5)
"""Shares of rows on which base and tuned may differ; two models that guess right half the time differ on 0.5."""


@dataclass(frozen=True)
class Needed:
    """Rows that show a difference of two shares, where so many of the rows change either way.

    Attributes:
        changed: Share of the rows on which just one of the models is right.
        rows: How many there must be.
    """

    changed: float
    rows: int


def rows_for(difference: float) -> list[Needed]:
    """Rows that show a difference of two shares of right answers, before anything is known of the models.

    It rests on how many rows change for better or worse. The first is the least that is possible: all of them change
    the same way. A mean of scores from 0 to 1 needs no more rows than shares do whose rows change as often.

    Args:
        difference: From `LEAST` to 1, of either sign.

    Raises:
        UsageError: it isn't.
    """
    least = abs(difference)
    if not LEAST <= least <= 1:
        raise UsageError(
            f"A difference of {difference:g} can't be planned for.",
            why="Scores lie between 0 and 1, and so do their differences.",
            fix=f"Give a difference from {LEAST:g} to 1: 0.05 is 5 of 100 rows.",
        )
    shares = [least, *(changed for changed in _CHANGED if changed > least)]
    return [Needed(changed, rows_for_share(least, changed)) for changed in shares]


def rows_for_share(difference: float, changed: float) -> int:
    """Rows on which the exact McNemar test shows a difference of two shares with the power asked for.

    Args:
        difference: Share of rows that only one model is right on, less that of the other; above 0.
        changed: Both shares together; at least `difference`.
    """
    return _least(lambda rows: mcnemar_power(rows, difference, changed))


def rows_for_mean(effect: float) -> int:
    """Rows, or groups of rows, that show a standardized difference d_z with the power asked for."""
    return _least(lambda rows: paired_power(rows, effect))


def detectable_share(rows: int, changed: float) -> float | None:
    """Least difference of two shares that so many rows show, where `changed` of them change; None where none can be.

    Where even a change all one way is too little to show, it is the least share of rows that would have to change so.
    """
    return _where(lambda difference: mcnemar_power(rows, difference, max(changed, difference)), rows, 1.0)


def detectable_effect(units: int) -> float | None:
    """Least standardized difference d_z that so many rows, or groups of rows, show; None where none can be."""
    return _where(lambda effect: paired_power(units, effect), units, 3.0)


def mcnemar_power(rows: int, difference: float, changed: float) -> float:
    """Chance that the exact McNemar test shows a difference: over all numbers of changed rows, and their splits.

    Duffy 1984, Asymptotic and exact power for the McNemar test and its analogue with R controls per case, Biometrics
    40:1005-1015. The arguments are those of `rows_for_share`.
    """
    import numpy as np
    from scipy.stats import binom

    spread = 6 * math.sqrt(rows * changed * (1 - changed)) + 8
    counts = np.arange(max(0, math.floor(rows * changed - spread)), min(rows, math.ceil(rows * changed + spread)) + 1)
    # The most changes for the worse that are still significant; -1 where the changed rows are too few.
    most = binom.ppf(ALPHA / 2, counts, 0.5) - 1
    better = (changed + difference) / 2 / changed
    shown = binom.cdf(most, counts, better) + binom.sf(counts - most - 1, counts, better)
    return float(binom.pmf(counts, rows, changed) @ shown)


def paired_power(units: int, effect: float) -> float:
    """Chance that a paired t-test shows a standardized difference d_z (Cohen 1988, Statistical Power Analysis, 2.3.5).

    The sign-flip test's power comes to the same from some ten units on; on fewer it is lower.
    """
    from scipy.stats import nct, t

    critical = t.ppf(1 - ALPHA / 2, units - 1)
    shift = effect * math.sqrt(units)
    above, below = float(nct.sf(critical, units - 1, shift)), float(nct.cdf(-critical, units - 1, shift))
    return above if math.isnan(below) else above + below  # SciPy gives NaN for a tail under some 1e-11


def _where(power: Callable[[float], float], units: int, highest: float) -> float | None:
    """Where a power that grows with the difference reaches what is asked for, below `highest`."""
    from scipy.optimize import brentq

    if units < ROWS_NEEDED or power(highest) < POWER:
        return None
    return float(brentq(lambda value: power(value) - POWER, 1e-9, highest, xtol=1e-6))


def _least(power: Callable[[int], float]) -> int:
    """The least number whose power is as asked for, found by halving, as power grows with rows but for small teeth."""
    high = ROWS_NEEDED
    while power(high) < POWER:
        high *= 2
    low = max(high // 2, ROWS_NEEDED - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high
