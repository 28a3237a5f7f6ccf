"""Numbers of two models as comparisons: the difference, how sure it is, and whether chance would do it.

Where `groups` tell what rows belong to (a document, a customer, a persona), the groups are drawn and swapped as one:
rows of one group are no independent witnesses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from ..records import Comparison, Effect, Interval
from .power import detectable_effect, detectable_share
from .resampling import LEVEL, Groups, summed
from .statistics import (
    ROWS_NEEDED,
    Paired,
    cohens_h,
    deviation,
    loss_interval,
    mcnemar,
    newcombe,
    sign_flip,
    standardized,
)
from .unpaired import robust_t

Better = Literal["higher", "lower"]
MOST_PERPLEXITY = 1e6
"""Perplexity above which a model knows nothing of the rows, and a difference of perplexities tells nothing."""


def compare_losses(
    base: Sequence[float],
    tuned: Sequence[float],
    tokens: Sequence[int],
    metric: str = "loss",
    groups: Groups | None = None,
) -> Comparison:
    """The loss in nats per token: `base` and `tuned` are summed over each row's `tokens`."""
    return _weighted(metric, "lower", base, tuned, tokens, groups)


def compare_perplexities(
    loss: Comparison,
    base: Sequence[float],
    tuned: Sequence[float],
    tokens: Sequence[int],
    groups: Groups | None = None,
) -> list[Comparison]:
    """The perplexity, exp of the loss per token, unless it is huge; `loss` compares the same losses."""
    # A row's loss bounds any resample's: exp of it must be a finite float.
    highest = max(row / count for one in (base, tuned) for row, count in zip(one, tokens, strict=True))
    if max(loss.base, loss.tuned) > math.log(MOST_PERPLEXITY) or highest >= 700:
        return []
    before, after = math.exp(loss.base), math.exp(loss.tuned)
    columns = summed(groups, base, tuned, tokens) if groups else (base, tuned, tokens)
    update = {
        "metric": "perplexity",
        "base": before,
        "tuned": after,
        "difference": after - before,
        "interval": loss_interval(*columns, perplexity=True, units=_units(groups)),
        "detectable": None if loss.detectable is None else before * -math.expm1(-loss.detectable),
    }
    # Equal losses are equal perplexities: one test serves both, and one effect size.
    return [loss.model_copy(update=update)]


def compare_shares(
    metric: str,
    base: Sequence[bool],
    tuned: Sequence[bool],
    groups: Groups | None = None,
    *,
    better: Better = "higher",
) -> Comparison:
    """Shares of the rows that each model is right on."""
    table = Paired.of(base, tuned)
    effect = Effect(name="Cohen's h", value=cohens_h(table))
    if groups:
        counted = _mean(metric, better, base, tuned, groups)
        return counted.model_copy(update={"effect": effect})
    changed = table.changed / table.rows
    return _compared(
        metric,
        better,
        table.rows,
        (table.base, table.tuned),
        newcombe(table),
        (mcnemar(table), "McNemar, exact, two-sided"),
        effect=effect,
        changed=changed,
        detectable=detectable_share(table.rows, changed),
    )


def compare_means(
    metric: str,
    base: Sequence[float],
    tuned: Sequence[float],
    groups: Groups | None = None,
    *,
    better: Better = "higher",
    shares: bool | None = None,
) -> Comparison:
    """Means over the rows of a value.

    Args:
        metric: Its name.
        base: Per row, the value of base.
        tuned: The same of tuned.
        groups: What rows belong to.
        better: Which way is better.
        shares: Whether the value can be 0 or 1 and nothing else, so that these are shares, and compared as such; by
            default it is where the rows have both, and nothing else.
    """
    if shares or (shares is None and {*base, *tuned} == {0, 1}):
        return compare_shares(metric, [value == 1 for value in base], [value == 1 for value in tuned], groups,
                              better=better)  # fmt: skip
    return _mean(metric, better, base, tuned, groups)


def compare_with_chance(metric: str, gains: Sequence[float], groups: Groups | None = None) -> list[Comparison]:
    """Share of rows with a gain above 0, against one half; nothing where no row has any.

    The sign test, in which rows without gain or loss have no voice (Dixon and Mood 1946, The statistical sign test,
    Journal of the American Statistical Association 41:557-566).
    """
    from scipy.stats import binomtest

    decided = [place for place, gain in enumerate(gains) if gain != 0]
    if not decided:
        return []
    right = [gains[place] > 0 for place in decided]
    if groups:
        of_decided = [groups[place] for place in decided]
        return [_mean(metric, "higher", [0.5] * len(right), right, of_decided)]
    result = binomtest(sum(right), len(right))
    wilson = result.proportion_ci(LEVEL, method="wilson")
    interval = Interval(low=float(wilson.low) - 0.5, high=float(wilson.high) - 0.5, level=LEVEL, method="Wilson score")
    values = (0.5, sum(right) / len(right))
    test = (float(result.pvalue), "sign test, exact, two-sided")
    return [_compared(metric, "higher", len(right), values, interval, test)]


def compare_groups(
    metric: str, good: Sequence[float], bad: Sequence[float], groups: tuple[Groups, Groups] | None = None
) -> Comparison:
    """How much higher the mean of good rows is than that of bad ones, where the base has no difference.

    `groups` are those of the good and of the bad rows.
    """
    values = 0.0, sum(good) / len(good) - sum(bad) / len(bad)
    interval, p_value = robust_t(good, bad, groups)
    test = None if p_value is None else (p_value, f"t-test over {_units(groups)}, robust (CR2), two-sided")
    count = len({*groups[0], *groups[1]}) if groups else None
    return _compared(metric, "higher", len(good) + len(bad), values, interval, test, groups=count)


def non_inferior(comparison: Comparison, margin: float) -> Comparison:
    """The comparison with whether tuned was shown not to be worse than base by more than a margin.

    So it is where the whole interval lies on the better side of the margin, which is a one-sided test at 2.5% (Piaggio
    et al. 2012, Reporting of noninferiority and equivalence randomized trials, JAMA 308:2594-2604). That a difference
    isn't significant shows nothing of the kind. Where all metrics of a suite must hold, none needs correction (Berger
    1982, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24:295-300).

    Args:
        comparison: Of a metric; without an interval nothing is shown, so it isn't kept.
        margin: The loss that is accepted, above 0, in the metric's unit.
    """
    interval = comparison.interval
    loss = None if interval is None else -interval.low if comparison.better == "higher" else interval.high
    kept = loss is not None and loss < margin
    return comparison.model_copy(update={"margin": margin, "kept": kept})


def _mean(
    metric: str, better: Better, base: Sequence[float], tuned: Sequence[float], groups: Groups | None
) -> Comparison:
    """Means over the rows; without an interval where all units differ alike.

    No draw can differ from them then, and as values are often few (right or wrong, grades), it is no rare chance.
    """
    compared = _weighted(metric, better, base, tuned, [1] * len(base), groups)
    return compared if compared.effect is not None else compared.model_copy(update={"interval": None})


def _weighted(
    metric: str,
    better: Better,
    base: Sequence[float],
    tuned: Sequence[float],
    weights: Sequence[float],
    groups: Groups | None,
) -> Comparison:
    """Weighted means over the rows: sums of values over sums of weights; `base` and `tuned` hold the summed values."""
    columns = summed(groups, base, tuned, weights) if groups else (base, tuned, weights)
    before, after = sum(base) / sum(weights), sum(tuned) / sum(weights)
    effect = standardized(*columns)
    least = detectable_effect(len(columns[0]))
    return _compared(
        metric,
        better,
        len(base),
        (before, after),
        loss_interval(*columns, units=_units(groups)),
        (sign_flip(*columns[:2]), f"paired sign-flip permutation of {_units(groups)}, two-sided"),
        groups=len(columns[0]) if groups else None,
        effect=None if effect is None else Effect(name="d_z", value=effect),
        detectable=(least * deviation(*columns) or None) if least else None,
    )


def _units(groups: object) -> str:
    return "groups of rows" if groups else "rows"


def _compared(
    metric: str,
    better: Better,
    rows: int,
    values: tuple[float, float],
    interval: Interval | None,
    test: tuple[float, str] | None,
    *,
    groups: int | None = None,
    effect: Effect | None = None,
    changed: float | None = None,
    detectable: float | None = None,
) -> Comparison:
    base, tuned = values
    p_value, name = test or (None, None)
    return Comparison(
        metric=metric,
        better=better,
        rows=rows,
        groups=groups,
        base=base,
        tuned=tuned,
        difference=tuned - base,
        interval=interval if (groups or rows) >= ROWS_NEEDED else None,  # of shares it may leave out 0 at any size
        p_value=p_value,
        test=name,
        significant=p_value is not None and p_value < 0.05,
        effect=effect,
        changed=changed,
        detectable=detectable,
    )
