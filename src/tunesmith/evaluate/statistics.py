"""Intervals and tests for paired comparisons: pure functions over counts and per-row sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..records import Interval

LEVEL = 0.95
RESAMPLES = 9_999
ROWS_NEEDED = 6
"""Fewer rows can't reach p < 0.05 in either test, even if all change alike: 2 * 0.5**5 = 0.0625."""


@dataclass(frozen=True)
class Paired:
    """Counts of rows by whether base and tuned are right on them: the paired two-by-two table."""

    both: int
    broken: int
    fixed: int
    neither: int

    @property
    def rows(self) -> int:
        """Rows in all four cells."""
        return self.both + self.broken + self.fixed + self.neither

    @property
    def base(self) -> float:
        """Share of rows that base gets right."""
        return (self.both + self.broken) / self.rows

    @property
    def tuned(self) -> float:
        """Share of rows that tuned gets right."""
        return (self.both + self.fixed) / self.rows

    @classmethod
    def of(cls, base: Sequence[bool], tuned: Sequence[bool]) -> Paired:
        """Count rows; `base[i]` and `tuned[i]` tell of the same row."""
        pairs = list(zip(base, tuned, strict=True))
        return cls(
            both=pairs.count((True, True)),
            broken=pairs.count((True, False)),
            fixed=pairs.count((False, True)),
            neither=pairs.count((False, False)),
        )


def newcombe(table: Paired) -> Interval:
    """Confidence interval of tuned - base, two proportions over the same rows; not empty when all rows change alike.

    Wilson intervals of both proportions, put together with their correlation phi (continuity-corrected): method 10 of
    Newcombe 1998, Improved confidence intervals for the difference between binomial proportions based on paired data,
    Statistics in Medicine 17:2635-2650.
    """
    base_low, base_high = _wilson(table.both + table.broken, table.rows)
    tuned_low, tuned_high = _wilson(table.both + table.fixed, table.rows)
    phi = _correlation(table)
    below = _square_and_add(table.tuned - tuned_low, base_high - table.base, phi)
    above = _square_and_add(tuned_high - table.tuned, table.base - base_low, phi)
    difference = table.tuned - table.base
    return Interval(
        low=difference - below,
        high=difference + above,
        level=LEVEL,
        method="Newcombe 1998, method 10",
    )


def _wilson(right: int, rows: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(right, rows).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _correlation(table: Paired) -> float:
    margins = (
        (table.both + table.broken)
        * (table.fixed + table.neither)
        * (table.both + table.fixed)
        * (table.broken + table.neither)
    )
    if margins == 0:
        return 0.0
    cross = float(table.both * table.neither - table.broken * table.fixed)
    if cross > 0:
        cross = max(cross - table.rows / 2, 0.0)
    return cross / math.sqrt(margins)


def _square_and_add(left: float, right: float, phi: float) -> float:
    # Rounding can leave a tiny negative where left = right and phi = 1.
    return math.sqrt(max(0.0, left * left - 2 * phi * left * right + right * right))


def mcnemar(table: Paired) -> float:
    """Two-sided exact McNemar test: the probability of so uneven a split of the changed rows by chance (1 if none)."""
    from scipy.stats import binomtest

    changed = table.fixed + table.broken
    return float(binomtest(table.fixed, changed).pvalue) if changed else 1.0


def loss_interval(
    base: Sequence[float], tuned: Sequence[float], tokens: Sequence[int], *, perplexity: bool = False
) -> Interval | None:
    """Confidence interval of tuned - base in loss per token, by the paired percentile bootstrap over rows.

    Rows are drawn, not tokens: tokens of one row aren't independent. The same draws serve both models (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).

    Args:
        base: Per row, summed negative log-likelihood under base, in nats.
        tuned: The same under tuned.
        tokens: Per row, the number of tokens summed over.
        perplexity: Give the interval of the difference of exp(loss) rather than of the loss.

    Returns:
        The interval, or None below `ROWS_NEEDED`: so few rows often move one way by chance, and no draw then spans 0.
    """
    if len(tokens) < ROWS_NEEDED:
        return None
    import numpy as np
    from scipy.stats import bootstrap

    def difference(base_: np.ndarray, tuned_: np.ndarray, tokens_: np.ndarray, axis: int = -1) -> np.ndarray:
        count = tokens_.sum(axis=axis)
        losses = (tuned_.sum(axis=axis) / count, base_.sum(axis=axis) / count)
        after, before = (np.exp(loss) for loss in losses) if perplexity else losses
        return np.asarray(after - before)

    result = bootstrap(
        (np.asarray(base), np.asarray(tuned), np.asarray(tokens, dtype=float)),
        difference,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1_000,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return Interval(
        low=float(low),
        high=float(high),
        level=LEVEL,
        method=f"paired percentile bootstrap over rows, {RESAMPLES:,} resamples",
    )


def sign_flip(base: Sequence[float], tuned: Sequence[float]) -> float:
    """Two-sided paired permutation test that base and tuned have the same loss: row by row, their names are swapped.

    The statistic is the difference of the summed losses. Swapping leaves each row's tokens as they are, so it ranks
    the permutations just as the difference in loss per token does. Exact up to 13 rows, as all 2**rows permutations
    are then no more than `RESAMPLES`; drawn at random with a fixed seed above (Fisher 1935, The Design of
    Experiments, section 21).

    Args:
        base: Per row, summed negative log-likelihood under base, in nats.
        tuned: The same under tuned.

    Returns:
        The p-value; 1 when no row differs, and for a single row.
    """
    if len(base) < 2:
        return 1.0
    import numpy as np
    from scipy.stats import permutation_test

    def total(differences: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(differences.sum(axis=axis))

    result = permutation_test(
        (np.asarray(tuned) - np.asarray(base),),
        total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1_000,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)
