"""Rows that belong together: drawn and swapped as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.evaluate.comparisons import (
    compare_groups,
    compare_losses,
    compare_means,
    compare_perplexities,
    compare_shares,
    compare_with_chance,
    non_inferior,
)
from tunesmith.evaluate.resampling import summed

PAIRS = [number // 2 for number in range(16)]


def test_rows_are_summed_by_group_in_the_order_of_the_groups() -> None:
    assert summed(["b", "a", "b", None], [1, 2, 3, 4], [0.5, 0, 0.5, 0]) == [[4, 2, 4], [1.0, 0, 0]]
    assert summed([], []) == [[]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-99, 99)), min_size=1))
def test_sums_by_group_hold_what_the_rows_hold(rows: list[tuple[int, int]]) -> None:
    groups, values = zip(*rows, strict=True)
    (sums,) = summed(groups, values)
    assert (sum(sums), len(sums)) == (sum(values), len(set(groups)))


def test_as_many_witnesses_as_groups() -> None:
    # 16 rows are better alike, two of each group: 2 / 2**8, not 2 / 2**16.
    compared = compare_means("f1", [0.0] * 16, [0.5, 0.25] * 7 + [0.5, 0.2], PAIRS)
    assert (compared.rows, compared.groups, compared.p_value) == (16, 8, 2 / 2**8)
    assert compared.difference == pytest.approx(0.375, abs=0.01)
    assert compared.interval is not None
    assert compared.interval.method == "expanded percentile bootstrap over groups of rows, 9,999 resamples"
    assert compared.test == "paired sign-flip permutation of groups of rows, two-sided"
    alone = compare_means("f1", [0.0] * 16, [0.5, 0.25] * 8)
    assert (alone.groups, alone.test) == (None, "paired sign-flip permutation of rows, two-sided")


def test_shares_in_groups_have_the_rows_values_and_the_groups_test() -> None:
    right = [True, True] * 7 + [False, True]
    compared = compare_shares("exact_match", [False] * 16, right, PAIRS)
    assert (compared.base, compared.tuned, compared.groups, compared.p_value) == (0.0, 15 / 16, 8, 2 / 2**8)
    assert compared.effect is not None
    assert compared.effect.name == "Cohen's h"
    assert compared.detectable is not None


def test_scores_of_0_and_1_in_groups_are_compared_as_shares_in_groups() -> None:
    base, tuned = [0.0, 1.0] * 8, [1.0] * 12 + [0.0] * 4
    one = compare_means("contains", base, tuned, PAIRS)
    assert one == compare_shares("contains", [value == 1 for value in base], [value == 1 for value in tuned], PAIRS)


def test_losses_in_groups_are_per_token_of_all_rows() -> None:
    base, tuned, tokens = [2.0, 6.0] * 8, [1.0, 2.0] * 8, [1, 3] * 8
    loss = compare_losses(base, tuned, tokens, groups=PAIRS)
    assert (loss.base, loss.tuned, loss.groups, loss.p_value) == (2.0, 0.75, 8, 2 / 2**8)
    (perplexity,) = compare_perplexities(loss, base, tuned, tokens, PAIRS)
    assert (perplexity.groups, perplexity.p_value) == (8, 2 / 2**8)
    # All groups are alike, so every draw of groups is, too; rows are not.
    assert perplexity.interval is not None
    assert perplexity.interval.low == pytest.approx(perplexity.interval.high)
    rows = compare_perplexities(loss, base, tuned, tokens)[0].interval
    assert rows is not None
    assert rows.low < rows.high - 0.1


@pytest.mark.parametrize(("groups", "interval"), [(5, False), (6, True)])
def test_below_six_groups_nothing_is_claimed(groups: int, interval: bool) -> None:
    of_rows = [number % groups for number in range(30)]
    tuned = [1.0 + number for number in range(30)]
    compared = compare_means("score", [0.0] * 30, tuned, of_rows)
    assert (compared.interval is not None) == interval
    assert (compared.detectable is not None) == interval
    assert compared.significant == interval


def test_gains_against_chance_in_groups_leave_out_groups_that_decide_nothing() -> None:
    gains = [2.0, 1.0] * 6 + [0.0, 0.0] + [3.0, 0.0]
    (compared,) = compare_with_chance("reward_accuracy", gains, PAIRS)
    assert (compared.rows, compared.groups) == (13, 7)
    assert (compared.base, compared.tuned, compared.p_value) == (0.5, 1.0, 2 / 2**7)


def test_two_samples_in_groups_are_as_many_witnesses_as_groups() -> None:
    good, bad = [1.0, 2.0, 0.0, 3.0, 1.5, 0.5, 2.5, 1.0], [0.0, 1.0, -1.0, 0.5, 2.0, -0.5, 0.0, 1.0]
    alone = compare_groups("reward_margin", good, bad)
    single = compare_groups("reward_margin", good, bad, (range(8), range(8, 16)))
    twice = compare_groups("reward_margin", good * 2, bad * 2, ([*range(8)] * 2, [*range(8, 16)] * 2))
    assert (alone.groups, single.groups, twice.groups, twice.rows) == (None, 16, 16, 32)
    assert alone.test == "t-test over rows, robust (CR2), two-sided"
    assert twice.test == "t-test over groups of rows, robust (CR2), two-sided"
    assert single.p_value == alone.p_value
    # Each row told twice is no more than told once.
    assert twice.p_value == pytest.approx(alone.p_value)
    few = compare_groups("reward_margin", good, bad, ([0, 1, 2, 3, 4, 4, 4, 4], range(8, 16)))
    assert (few.interval, few.p_value, few.test, few.significant) == (None, None, None, False)


def test_groups_that_all_differ_alike_have_no_interval() -> None:
    for compared in (
        compare_shares("exact_match", [False] * 16, [True] * 16, PAIRS),
        compare_shares("exact_match", [True] * 16, [True] * 16, PAIRS),
        compare_means("score", [0.1] * 16, [0.85] * 16, PAIRS),
        compare_means("contains", [0.0] * 40, [0.0] * 40),
        *compare_with_chance("reward_accuracy", [1.0] * 16, PAIRS),
    ):
        assert compared.interval is None
        assert non_inferior(compared, 0.9).kept is False
    assert compare_shares("exact_match", [True] * 16, [True] * 15 + [False], PAIRS).interval is not None
