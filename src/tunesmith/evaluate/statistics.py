"""Intervals and tests for paired comparisons: pure functions over counts and per-row sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..records import Interval
from .resampling import LEVEL, bootstrap_interval, permutation_p

if TYPE_CHECKING:
    import numpy as np

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
    def changed(self) -> int:
        """Rows that just one of the models gets right."""
        return self.broken + self.fixed

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
    """Two-sided exact McNemar test: the probability of so uneven a split of the changed rows by chance (1 if none).

    McNemar 1947, Note on the sampling error of the difference between correlated proportions, Psychometrika 12:153-157.
    Exact means that at most 5% of evaluations without a difference come out as significant; as counts are whole it is
    fewer: of 500 rows 4.2% where 40% change, 3.7% where 10% do, and 2.9% of 100 rows where 20% do. The mid-p test would
    come to 4.9%, 4.9% and 4.6% (Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91), but
    guarantees nothing, and finds five rows that change alike significant.
    """
    from scipy.stats import binomtest

    return float(binomtest(table.fixed, table.changed).pvalue) if table.changed else 1.0


def loss_interval(
    base: Sequence[float],
    tuned: Sequence[float],
    tokens: Sequence[float],
    *,
    perplexity: bool = False,
    units: str = "rows",
) -> Interval | None:
    """Confidence interval of tuned - base in loss per token, by the paired bootstrap over rows.

    Rows are drawn, not tokens: tokens of one row aren't independent. The same draws serve both models.

    Args:
        base: Per row, or per group of rows, summed negative log-likelihood under base, in nats.
        tuned: The same under tuned.
        tokens: The number of tokens summed over.
        perplexity: Give the interval of the difference of exp(loss) rather than of the loss.
        units: What is drawn, for the method's name.

    Returns:
        The interval, or None below `ROWS_NEEDED`: so few rows often move one way by chance, and no draw then spans 0.
    """
    if len(tokens) < ROWS_NEEDED:
        return None

    def difference(base_: np.ndarray, tuned_: np.ndarray, tokens_: np.ndarray, axis: int = -1) -> Any:
        count = tokens_.sum(axis=axis)
        before, after = base_.sum(axis=axis) / count, tuned_.sum(axis=axis) / count
        return exp(after) - exp(before) if perplexity else after - before

    from numpy import exp

    return bootstrap_interval((base, tuned, tokens), difference, units)


def sign_flip(base: Sequence[float], tuned: Sequence[float]) -> float:
    """Two-sided paired permutation test that base and tuned have the same loss: row by row, their names are swapped.

    The statistic is the difference of the summed losses. Swapping leaves each row's tokens as they are, so it ranks
    the permutations just as the difference in loss per token does. Exact up to 13 rows, as all 2**rows permutations
    are then no more than `RESAMPLES`; drawn at random above (Fisher 1935, The Design of Experiments, section 21).
    Groups of rows are swapped as one, by their sums.

    Args:
        base: Per row, or per group of rows, summed negative log-likelihood under base, in nats.
        tuned: The same under tuned.

    Returns:
        The p-value; 1 when no row differs, and for a single row.
    """
    if len(base) < 2:
        return 1.0
    differences = [after - before for before, after in zip(base, tuned, strict=True)]
    return permutation_p((differences,), _total)


def _total(differences: np.ndarray, axis: int = -1) -> Any:
    return differences.sum(axis=axis)


def standardized(base: Sequence[float], tuned: Sequence[float], weights: Sequence[float]) -> float | None:
    """d_z: the difference of the weighted means, in standard deviations of the differences.

    With equal weights it is the mean difference over its rows' standard deviation (Cohen 1988, Statistical Power
    Analysis for the Behavioral Sciences, section 2.3.5); with others, as tokens are, the deviation is that of the
    ratio's residuals d - D * w over the mean weight (Cochran 1977, Sampling Techniques, section 6.3), d being a row's
    difference, w its weight, and D the difference of the weighted means.

    Returns:
        The effect, or None where all rows differ alike, or there is one row.
    """
    spread = deviation(base, tuned, weights)
    return (sum(tuned) - sum(base)) / sum(weights) / spread if spread else None


def deviation(base: Sequence[float], tuned: Sequence[float], weights: Sequence[float]) -> float:
    """Standard deviation of the differences as `standardized` has it, in the metric's unit; 0 for a single row."""
    rows = len(weights)
    if rows < 2:
        return 0.0
    ratio = (sum(tuned) - sum(base)) / sum(weights)
    triples = zip(base, tuned, weights, strict=True)
    residuals = [after - before - ratio * weight for before, after, weight in triples]
    squares = math.fsum(residual * residual for residual in residuals)
    # Rounding leaves a little where rows differ all alike.
    largest = max(map(abs, (*base, *tuned)))
    spread = math.sqrt(squares / (rows - 1))
    return spread / (sum(weights) / rows) if spread > 1e-12 * largest else 0.0


def cohens_h(table: Paired) -> float:
    """Effect size of two shares: 2 asin sqrt(tuned) - 2 asin sqrt(base) (Cohen 1988, section 6.2)."""
    return 2 * math.asin(math.sqrt(table.tuned)) - 2 * math.asin(math.sqrt(table.base))
