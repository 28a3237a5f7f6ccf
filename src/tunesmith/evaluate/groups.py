"""Interval and test for two groups of different rows, where nothing is paired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..records import Interval
from .statistics import LEVEL, RESAMPLES, ROWS_NEEDED

if TYPE_CHECKING:
    import numpy as np


def group_interval(one: Sequence[float], other: Sequence[float]) -> Interval | None:
    """Confidence interval of mean(one) - mean(other), by the percentile bootstrap that draws from each group.

    Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 8.3.

    Returns:
        The interval, or None where a group has fewer than half of `ROWS_NEEDED`.
    """
    if min(len(one), len(other)) < ROWS_NEEDED / 2:
        return None
    import numpy as np
    from scipy.stats import bootstrap

    result = bootstrap(
        (np.asarray(one), np.asarray(other)),
        _difference,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1_000,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    method = f"percentile bootstrap within both groups, {RESAMPLES:,} resamples"
    return Interval(low=float(low), high=float(high), level=LEVEL, method=method)


def group_permutation(one: Sequence[float], other: Sequence[float]) -> float:
    """Two-sided permutation test that both groups have the same distribution: rows change groups at random.

    The statistic is the difference of the means, the p-value twice its smaller tail. Exact where there are no more than
    `RESAMPLES` ways to divide the rows, drawn at random with a fixed seed above (Pitman 1937, Significance tests which
    may be applied to samples from any populations, Supplement to the Journal of the Royal Statistical Society
    4:119-130).

    Returns:
        The p-value; 1 where either group has a single row or no two rows differ.
    """
    if min(len(one), len(other)) < 2 or len({*one, *other}) == 1:
        return 1.0
    import numpy as np
    from scipy.stats import permutation_test

    result = permutation_test(
        (np.asarray(one), np.asarray(other)),
        _difference,
        permutation_type="independent",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1_000,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def _difference(one: np.ndarray, other: np.ndarray, axis: int = -1) -> Any:
    return one.mean(axis=axis) - other.mean(axis=axis)
