"""Two samples of different rows: against the matrices of the literature, Welch's error, and simulated evaluations."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from tunesmith.evaluate.unpaired import robust_t

GROUPED = [
    (range(7), range(7, 20)),
    ([0, 0, 1, 2, 3, 4, 5, 5], [0, 1, 1, 2, 3, 4, 6, 5, 5, 9]),
    (list("aabbccddeeff"), list("ghijkl")),
]


def by_matrices(values: Any, labels: Any, groups: Any) -> tuple[float, float]:
    """CR2 and its degrees of freedom, as Imbens and Kolesar 2016 write them: section IV, for any regression."""
    design = np.column_stack([np.ones_like(labels), labels])
    bread = np.linalg.inv(design.T @ design)
    maker = np.eye(len(values)) - design @ bread @ design.T
    residuals, contrast = maker @ values, np.array([0, 1])
    scores, directions = [], []
    for group in dict.fromkeys(groups):
        rows = np.array([one == group for one in groups])
        weight = (
            np.real(linalg.fractional_matrix_power(maker[np.ix_(rows, rows)], -0.5)) @ design[rows] @ bread @ contrast
        )
        scores.append(residuals[rows] @ weight)
        directions.append(maker[:, rows] @ weight)
    spread = np.linalg.eigvalsh(np.array(directions) @ np.array(directions).T)
    return float(np.sqrt(np.square(scores).sum())), float(spread.sum() ** 2 / np.square(spread).sum())


@pytest.mark.parametrize("groups", GROUPED)
def test_error_and_degrees_of_freedom_are_those_of_the_matrices(groups: tuple[list[int], list[int]]) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(1, 2, len(groups[0])), rng.normal(0, 1, len(groups[1]))
    labels = np.array([1.0] * len(one) + [0.0] * len(other))
    error, freedom = by_matrices(np.concatenate([one, other]), labels, [*groups[0], *groups[1]])
    interval, p_value = robust_t(one.tolist(), other.tolist(), groups)
    difference = one.mean() - other.mean()
    assert p_value == pytest.approx(2 * stats.t.sf(abs(difference) / error, freedom))
    assert interval is not None
    ends = stats.t.interval(0.95, freedom, difference, error)
    assert (interval.low, interval.high) == pytest.approx(ends)


def test_rows_of_their_own_have_welchs_error() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(1, 2, 20), rng.normal(0, 1, 20)
    welch = stats.ttest_ind(one, other, equal_var=False)
    interval, _ = robust_t(one.tolist(), other.tolist())
    assert interval is not None
    error = (one.mean() - other.mean()) / welch.statistic
    assert interval.high - interval.low == pytest.approx(2 * stats.t.ppf(0.975, 38) * error)


samples = st.lists(st.integers(-99, 99), min_size=6, max_size=12)


@settings(deadline=None)
@given(samples, samples)
def test_the_test_is_a_probability_that_goes_with_the_interval_and_both_turn_round(
    one: list[int], other: list[int]
) -> None:
    interval, p_value = robust_t(one, other)
    turned, same = robust_t(other, one)
    if interval is None or turned is None or p_value is None or same is None:
        assert len({*one}) == len({*other}) == 1
        return
    assert 0 < p_value <= 1
    assert p_value == pytest.approx(same)
    assert math.isclose(interval.low, -turned.high, abs_tol=1e-9)
    if abs(p_value - 0.05) > 1e-9:
        assert (p_value < 0.05) == (not interval.low <= 0 <= interval.high)


def test_what_cannot_be_told_is_not_told() -> None:
    six, five = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [11.0, 12.0, 13.0, 14.0, 15.0]
    assert robust_t(six, five) == robust_t(five, six) == (None, None)
    assert None not in robust_t(six, [*five, 16.0])
    # Six rows of five groups; samples without any spread; groups whose rows even out.
    assert robust_t(six, six[::-1], ([0, 1, 2, 3, 4, 4], range(10, 16))) == (None, None)
    assert robust_t([1.0] * 8, [0.0] * 8) == (None, None)
    assert robust_t([1.0, 2.0] * 6, [0.0] * 6, ([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], range(6, 12))) == (None, None)
    assert robust_t([0.0] * 3, [0.0] * 8) == (None, 1.0)


def found(one: tuple[int, float], other: tuple[int, float], groups: Any = None, each: int = 1) -> tuple[float, float]:
    """How often normal samples (rows, standard deviation) of equal means differ, and how often 0 is in the interval."""
    rng = np.random.default_rng(2)
    results = []
    for _ in range(2_000):
        drawn = [rng.normal(0, spread, rows // each).repeat(each) for rows, spread in (one, other)]
        results.append(
            robust_t(*((part + rng.normal(0, 0.5 * (each > 1), len(part))).tolist() for part in drawn), groups)
        )
    held = [interval is not None and interval.low <= 0 <= interval.high for interval, _ in results]
    return sum(p is not None and p < 0.05 for _, p in results) / len(results), sum(held) / len(results)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((20, 1.5), (80, 1.0)),
        ((30, 2.0), (100, 1.0)),
        ((30, 2.0), (300, 1.0)),
        ((10, 5.0), (100, 1.0)),
        ((100, 1.0), (30, 0.5)),
        ((6, 1.0), (6, 1.0)),
    ],
)
def test_samples_that_spread_differently_are_not_taken_to_differ(
    one: tuple[int, float], other: tuple[int, float]
) -> None:
    significant, held = found(one, other)
    assert 0.04 <= significant <= 0.06
    assert 0.94 <= held <= 0.96


def test_rows_that_belong_together_are_no_more_witnesses_than_their_groups() -> None:
    groups = np.repeat(np.arange(10), 4).tolist(), np.repeat(np.arange(10, 30), 4).tolist()
    significant, held = found((40, 2.0), (80, 1.0), groups, each=4)
    assert 0.04 <= significant <= 0.06
    assert 0.94 <= held <= 0.96
    assert found((40, 2.0), (80, 1.0), each=4)[0] > 0.2
