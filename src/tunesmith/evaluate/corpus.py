"""Scores that aren't means over rows, but are made of what all rows add up to: BLEU, chrF, macro-F1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..records import Comparison
from .resampling import Groups, bootstrap_interval, permutation_p, summed
from .statistics import ROWS_NEEDED

if TYPE_CHECKING:
    import numpy as np

Counts = Sequence[float]
"""What one row adds to the score."""


@dataclass(frozen=True)
class MacroF1:
    """The mean over the labels of their F1: a label that is rare counts as much as one that is frequent.

    F1 of a label is 2 * right / (said + wanted); one that is neither said nor wanted has none. An answer that is no
    label is wrong, and no label's own (Opitz and Burst 2019, Macro F1 and macro F1, "averaged F1").
    """

    labels: Sequence[str]

    def counts(self, said: str, wanted: str) -> list[float]:
        """For each label: whether it is rightly said, and how often it is said or wanted."""
        return [
            value
            for label in self.labels
            for value in (float(said == wanted == label), float(said == label) + float(wanted == label))
        ]

    def total(self, counts: Counts) -> float:
        """The score, from 0 to 1, of rows whose counts add up to these."""
        f1s = [2 * right / there for right, there in zip(counts[::2], counts[1::2], strict=True) if there]
        return sum(f1s) / len(f1s) if f1s else 0.0


def compare_corpus(
    metric: str,
    base: Sequence[Counts],
    tuned: Sequence[Counts],
    total: Callable[[Counts], float],
    groups: Groups | None = None,
) -> Comparison:
    """The scores of all rows.

    The interval is the paired bootstrap's over rows (Koehn 2004, Statistical significance tests for machine translation
    evaluation), the p-value that of the permutation test in which a row's answers change sides (Riezler and Maxwell
    2005, On some pitfalls in automatic evaluation and significance testing for MT, "approximate randomization").

    Args:
        metric: The score's name.
        base: Of each row, what base's answer adds.
        tuned: The same of tuned's.
        total: The score of counts that were added up.
        groups: What rows belong to; groups are drawn and swapped as one.
    """
    import numpy as np

    before, after = _units(base, groups), _units(tuned, groups)

    def drawn(indices: np.ndarray, **_axis: int) -> Any:
        times = np.apply_along_axis(np.bincount, -1, indices.astype(int), minlength=len(before))
        return _totals(times @ after, total) - _totals(times @ before, total)

    def swapped(signs: np.ndarray, **_axis: int) -> Any:
        middle, half = (before + after).sum(axis=0) / 2, signs @ (after - before) / 2
        return _totals(middle + half, total) - _totals(middle - half, total)

    units = "groups of rows" if groups else "rows"
    values = total(before.sum(axis=0)), total(after.sum(axis=0))
    p_value = permutation_p([[1.0] * len(before)], swapped) if len(before) > 1 else 1.0
    enough = len(before) >= ROWS_NEEDED
    interval = bootstrap_interval([range(len(before))], drawn, units) if enough else None
    return Comparison(
        metric=metric,
        better="higher",
        rows=len(base),
        groups=len(before) if groups else None,
        base=values[0],
        tuned=values[1],
        difference=values[1] - values[0],
        # Where all draws come to the same, as with answers that are all right, they tell nothing of others.
        interval=interval if interval and interval.low < interval.high else None,
        p_value=p_value,
        test=f"paired permutation of {units}, two-sided",
        significant=p_value < 0.05,
    )


def _units(counts: Sequence[Counts], groups: Groups | None) -> np.ndarray:
    """The counts of each row, or each group: (units, counts)."""
    import numpy as np

    return np.array(summed(groups, *zip(*counts, strict=True))).T if groups else np.array(counts, dtype=float)


def _totals(sums: np.ndarray, total: Callable[[Counts], float]) -> Any:
    """The score of each vector of counts along the last axis."""
    import numpy as np

    return np.apply_along_axis(lambda counts: total(counts.tolist()), -1, sums)
