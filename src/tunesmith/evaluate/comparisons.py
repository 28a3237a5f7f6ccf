"""Numbers of two models as comparisons: the difference, how sure it is, and whether chance would do it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from ..records import Comparison, Interval
from .groups import group_interval, group_permutation
from .statistics import LEVEL, Paired, loss_interval, mcnemar, newcombe, sign_flip

MOST_PERPLEXITY = 1e6
"""Perplexity above which a model knows nothing of the rows, and a difference of perplexities tells nothing."""
_SIGN_FLIP = "paired sign-flip permutation of rows, two-sided"


def compare_losses(
    base: Sequence[float], tuned: Sequence[float], tokens: Sequence[int], metric: str = "loss"
) -> Comparison:
    """The loss in nats per token: `base` and `tuned` are summed over each row's `tokens`."""
    before, after = sum(base) / sum(tokens), sum(tuned) / sum(tokens)
    return _compared(
        metric,
        "lower",
        len(tokens),
        (before, after),
        loss_interval(base, tuned, tokens),
        sign_flip(base, tuned),
        _SIGN_FLIP,
    )


def compare_perplexities(loss: Comparison, base: Sequence[float], tuned: Sequence[float],
                         tokens: Sequence[int]) -> list[Comparison]:  # fmt: skip
    """The perplexity, exp of the loss per token, unless it is huge; `loss` compares the same losses."""
    # A row's loss bounds any resample's: exp of it must be a finite float.
    highest = max(row / count for one in (base, tuned) for row, count in zip(one, tokens, strict=True))
    if max(loss.base, loss.tuned) > math.log(MOST_PERPLEXITY) or highest >= 700:
        return []
    before, after = math.exp(loss.base), math.exp(loss.tuned)
    interval = loss_interval(base, tuned, tokens, perplexity=True)
    # Equal losses are equal perplexities: one test serves both.
    update = {"metric": "perplexity", "base": before, "tuned": after, "difference": after - before}
    return [loss.model_copy(update={**update, "interval": interval})]


def compare_shares(metric: str, base: Sequence[bool], tuned: Sequence[bool]) -> Comparison:
    """Shares of the rows that each model is right on."""
    table = Paired.of(base, tuned)
    return _compared(
        metric,
        "higher",
        table.rows,
        (table.base, table.tuned),
        newcombe(table),
        mcnemar(table),
        "McNemar, exact, two-sided",
    )


def compare_means(metric: str, base: Sequence[float], tuned: Sequence[float]) -> Comparison:
    """Means over the rows of a value that had better be high."""
    rows = len(base)
    return _compared(
        metric,
        "higher",
        rows,
        (sum(base) / rows, sum(tuned) / rows),
        loss_interval(base, tuned, [1] * rows),
        sign_flip(base, tuned),
        _SIGN_FLIP,
    )


def compare_with_chance(metric: str, gains: Sequence[float]) -> list[Comparison]:
    """Share of rows with a gain above 0, against one half; nothing where no row has any.

    The sign test, in which rows without gain or loss have no voice (Dixon and Mood 1946, The statistical sign test,
    Journal of the American Statistical Association 41:557-566).
    """
    from scipy.stats import binomtest

    decided = [gain > 0 for gain in gains if gain != 0]
    if not decided:
        return []
    result = binomtest(sum(decided), len(decided))
    wilson = result.proportion_ci(LEVEL, method="wilson")
    interval = Interval(low=float(wilson.low) - 0.5, high=float(wilson.high) - 0.5, level=LEVEL, method="Wilson score")
    values = (0.5, sum(decided) / len(decided))
    return [
        _compared(metric, "higher", len(decided), values, interval, float(result.pvalue), "sign test, exact, two-sided")
    ]


def compare_groups(metric: str, good: Sequence[float], bad: Sequence[float]) -> Comparison:
    """How much higher the mean of good rows is than that of bad ones, where the base has no difference."""
    return _compared(
        metric,
        "higher",
        len(good) + len(bad),
        (0.0, sum(good) / len(good) - sum(bad) / len(bad)),
        group_interval(good, bad),
        group_permutation(good, bad),
        "permutation of the labels, two-sided",
    )


def _compared(
    metric: str,
    better: Literal["higher", "lower"],
    rows: int,
    values: tuple[float, float],
    interval: Interval | None,
    p_value: float,
    test: str,
) -> Comparison:
    base, tuned = values
    return Comparison(
        metric=metric,
        better=better,
        rows=rows,
        base=base,
        tuned=tuned,
        difference=tuned - base,
        interval=interval,
        p_value=p_value,
        test=test,
        significant=p_value < 0.05,
    )
