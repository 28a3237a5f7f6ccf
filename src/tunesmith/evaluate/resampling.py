"""Bootstrap and permutation over units that are independent of each other: rows, or groups of rows that aren't."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ..records import Interval

LEVEL = 0.95
RESAMPLES = 9_999
Groups = Sequence[Hashable]
"""Per row, what it belongs to: a document, a customer, a persona."""


def summed(groups: Groups, *columns: Sequence[float]) -> list[list[float]]:
    """Each column's sums over the rows of each group, in the order in which the groups first appear.

    Rows of one group aren't independent; their sums are, so that groups are drawn, and flipped, as a whole.
    """
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    sums = [[0.0] * len(places) for _ in columns]
    for group, *values in zip(groups, *columns, strict=True):
        for column, value in zip(sums, values, strict=True):
            column[places[group]] += value
    return sums


def must_be_finite(*samples: Sequence[float]) -> None:
    """Nothing can be told of numbers that are none; comparisons with NaN would count as all being in order.

    Raises:
        ValueError: a value isn't finite.
    """
    if not all(math.isfinite(value) for sample in samples for value in sample):
        raise ValueError("statistics are of finite numbers only")


def bootstrap_interval(samples: Sequence[Sequence[float]], statistic: Callable[..., Any], units: str) -> Interval:
    """Confidence interval of a statistic by the expanded percentile bootstrap, with a fixed seed.

    The plain percentile interval is too narrow on few units, as it lacks what sets Student's t apart from the normal
    distribution and n - 1 from n; its level is raised by both (Hesterberg 2015, What teachers should know about the
    bootstrap, The American Statistician 69:371-386: the expanded percentile interval). Over 2,000 samples each, the
    interval of 95% covers 93-97% from 10 units on where differences are about symmetric, as paired ones mostly are;
    90-93% where they are as skewed as the exponential, up to 30 units. It is far too narrow where hardly any unit
    differs at all.

    Args:
        samples: Columns of the same units, which are drawn as one (Efron and Tibshirani 1993, An Introduction to the
            Bootstrap, chapter 13).
        statistic: Of the samples, along `axis`.
        units: What is drawn, for the method's name.

    Raises:
        ValueError: a value isn't finite.
    """
    import numpy as np
    from scipy.stats import bootstrap

    must_be_finite(*samples)
    result = bootstrap(
        tuple(np.asarray(sample, dtype=float) for sample in samples),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1_000,
        confidence_level=_expanded(min(map(len, samples))),
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    method = f"expanded percentile bootstrap over {units}, {RESAMPLES:,} resamples"
    return Interval(low=float(low), high=float(high), level=LEVEL, method=method)


def _expanded(units: int) -> float:
    from scipy.stats import norm, t

    return float(1 - 2 * norm.cdf(math.sqrt(units / (units - 1)) * t.ppf((1 - LEVEL) / 2, units - 1)))


def permutation_p(samples: Sequence[Sequence[float]], statistic: Callable[..., Any]) -> float:
    """Two-sided p-value of a permutation test, twice the smaller tail.

    Exact where there are no more than `RESAMPLES` permutations, drawn at random with a fixed seed above.

    Args:
        samples: One, of differences, whose signs are flipped.
        statistic: Of the sample, along `axis`.

    Raises:
        ValueError: a value isn't finite.
    """
    import numpy as np
    from scipy.stats import permutation_test

    must_be_finite(*samples)
    result = permutation_test(
        tuple(np.asarray(sample, dtype=float) for sample in samples),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1_000,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)
