"""Two groups of different rows: against exact counts, the normal approximation, and properties of any such test."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.evaluate.groups import group_interval, group_permutation


@pytest.mark.parametrize(
    ("one", "other", "p_value"),
    [
        ([4, 5, 6], [1, 2, 3], 2 / 20),
        ([5, 6, 7, 8], [1, 2, 3, 4], 2 / 70),
        ([2, 1], [1, 2], 1.0),
        # Sums of two out of 1, 2, 3, 10: only 1 + 2 and 3 + 10 are as far apart.
        ([3, 10], [1, 2], 2 / 6),
        ([1], [2, 3], 1.0),
        ([2, 2], [2, 2], 1.0),
        # Of 126 ways to take four, three sum to 43 or less: 43 itself, 0 11 12 16 and 0 11 12 19.
        ([0, 11, 12, 20], [16, 19, 22, 24, 29], 2 * 3 / 126),
    ],
)
def test_permutations_as_far_apart_are_counted(one: list[float], other: list[float], p_value: float) -> None:
    assert group_permutation(one, other) == pytest.approx(p_value)


groups = st.lists(st.floats(-10, 10), min_size=3, max_size=12)


@settings(max_examples=20, deadline=None)
@given(groups, groups)
def test_the_test_is_a_probability_and_the_interval_turns_round(one: list[float], other: list[float]) -> None:
    assert 0 < group_permutation(one, other) <= 1
    interval, turned = group_interval(one, other), group_interval([-value for value in one], [-v for v in other])
    assert interval is not None
    assert turned is not None
    assert interval.low <= interval.high
    assert math.isclose(interval.low, -turned.high, abs_tol=1e-9)


def test_the_interval_agrees_with_the_normal_one_on_many_rows() -> None:
    # Variance 1 in each group: the standard error of the difference is sqrt(1/200 + 1/400).
    interval = group_interval([0.0, 2.0] * 100, [-1.0, 1.0] * 200)
    assert interval is not None
    error = 1.96 * math.sqrt(1 / 200 + 1 / 400)
    assert interval.low == pytest.approx(1 - error, abs=0.02)
    assert interval.high == pytest.approx(1 + error, abs=0.02)


def test_two_rows_in_a_group_are_too_few_for_an_interval() -> None:
    assert group_interval([1.0, 2.0], [1.0, 2.0, 3.0]) is None
    assert group_interval([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) is not None
