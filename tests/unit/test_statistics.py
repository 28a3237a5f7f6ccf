"""Paired statistics against published values, and properties that any paired comparison has."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.evaluate.statistics import ROWS_NEEDED, Paired, loss_interval, mcnemar, newcombe, sign_flip

counts = st.integers(0, 60)
tables = st.builds(Paired, counts, counts, counts, counts).filter(lambda table: table.rows > 0)


def swapped(table: Paired) -> Paired:
    return Paired(table.both, table.fixed, table.broken, table.neither)


@pytest.mark.parametrize(
    ("table", "low", "high", "digits"),
    [
        # Newcombe 1998, Statistics in Medicine 17:2635, table II, first example, method 10.
        (Paired(36, 2, 12, 0), 0.0569, 0.3404, 4),
        # Altman, Machin, Bryant and Gardner 2000, Statistics with Confidence, table 6.2.
        (Paired(14, 0, 5, 22), 0.011, 0.226, 3),
        # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850 (Bentur 2009: airways, before and after).
        (Paired(1, 7, 1, 12), -0.507, -0.026, 3),
    ],
)
def test_newcombe_gives_the_published_intervals(table: Paired, low: float, high: float, digits: int) -> None:
    interval = newcombe(table)
    assert round(interval.low, digits) == low
    assert round(interval.high, digits) == high
    assert interval.level == 0.95


@given(tables)
def test_newcombe_holds_the_difference_within_its_range(table: Paired) -> None:
    interval = newcombe(table)
    assert -1 <= interval.low <= table.tuned - table.base <= interval.high <= 1


@given(tables)
def test_newcombe_turns_round_when_base_and_tuned_are_swapped(table: Paired) -> None:
    interval, other = newcombe(table), newcombe(swapped(table))
    assert math.isclose(interval.low, -other.high, abs_tol=1e-12)
    assert math.isclose(interval.high, -other.low, abs_tol=1e-12)


def test_newcombe_has_width_where_every_row_changes() -> None:
    interval = newcombe(Paired(0, 0, 50, 0))
    assert interval.high == 1.0
    assert 0.8 < interval.low < 0.95


@pytest.mark.parametrize(
    ("broken", "fixed", "p_value"),
    [(0, 0, 1.0), (0, 5, 0.0625), (0, 6, 0.03125), (2, 12, 0.012939453125), (3, 3, 1.0)],
)
def test_mcnemar_counts_only_changed_rows(broken: int, fixed: int, p_value: float) -> None:
    assert mcnemar(Paired(7, broken, fixed, 9)) == pytest.approx(p_value, abs=1e-12)


@given(tables)
def test_mcnemar_is_a_probability_and_symmetric(table: Paired) -> None:
    p_value = mcnemar(table)
    assert 0 <= p_value <= 1
    assert math.isclose(p_value, mcnemar(swapped(table)), rel_tol=1e-9)


def test_paired_counts_each_cell() -> None:
    base = [True, True, True, False, False, False, False]
    tuned = [True, False, False, True, True, True, False]
    table = Paired.of(base, tuned)
    assert table == Paired(both=1, broken=2, fixed=3, neither=1)
    assert (table.base, table.tuned) == (3 / 7, 4 / 7)


losses = st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.integers(1, 20)), min_size=ROWS_NEEDED, max_size=30)


@settings(max_examples=15, deadline=None)
@given(losses)
def test_loss_interval_turns_round_when_swapped(rows: list[tuple[float, float, int]]) -> None:
    base, tuned, tokens = zip(*rows, strict=True)
    interval, other = loss_interval(base, tuned, tokens), loss_interval(tuned, base, tokens)
    assert interval is not None
    assert other is not None
    assert interval.low <= interval.high
    assert math.isclose(interval.low, -other.high, abs_tol=1e-9)
    assert math.isclose(interval.high, -other.low, abs_tol=1e-9)


def test_loss_interval_is_of_the_loss_per_token_and_weighs_rows_by_their_tokens() -> None:
    # 0.5 nats per token less on every row, whatever its length: no draw of rows can differ from that.
    tokens = [1, 10, 3, 7, 2, 5]
    interval = loss_interval([2.0 * count for count in tokens], [1.5 * count for count in tokens], tokens)
    assert interval is not None
    assert interval.low == pytest.approx(-0.5)
    assert interval.high == pytest.approx(-0.5)


def test_loss_interval_agrees_with_the_normal_one_on_many_equal_rows() -> None:
    # Differences of +-1 in equal numbers, one token each: standard error 1 / sqrt(n).
    rows = 400
    interval = loss_interval([1.0] * rows, [0.0, 2.0] * (rows // 2), [1] * rows)
    assert interval is not None
    assert interval.high == pytest.approx(1.96 / math.sqrt(rows), rel=0.1)
    assert interval.low == pytest.approx(-1.96 / math.sqrt(rows), rel=0.1)


def test_loss_interval_of_the_perplexity_is_of_the_exponentials() -> None:
    interval = loss_interval([2.0, 4.0] * 3, [1.0, 2.0] * 3, [1, 2] * 3, perplexity=True)
    assert interval is not None
    assert interval.low == pytest.approx(math.e - math.e**2)


def test_loss_interval_is_the_same_every_time_and_absent_below_six_rows() -> None:
    rows = ([3.0, 1.0, 2.5] * 2, [1.0, 1.5, 2.0] * 2, [2, 1, 3] * 2)
    assert loss_interval(*rows) is not None
    assert loss_interval(*rows) == loss_interval(*rows)
    assert loss_interval(*(column[:5] for column in rows)) is None


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([1, 1, 1], 2 / 8),
        ([-1, -2, -4, -8, -16], 2 / 32),
        ([1, 2, 3, 4, 5, 6], 2 / 64),
        # Of 16 sums of +-1 +-2 +-3 +-1, six are 5 or more from 0: 7, and 5 twice, on either side.
        ([1, 2, 3, -1], 6 / 16),
        ([3, -3], 1.0),
        ([3], 1.0),
        # Fisher 1935, The Design of Experiments, section 21, on Darwin's maize: 1,726 of 32,768. Drawn, not exact.
        ([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], pytest.approx(1726 / 32768, abs=0.005)),
    ],
)
def test_sign_flip_counts_the_sums_as_far_from_zero(differences: list[float], p_value: float) -> None:
    assert sign_flip([0.0] * len(differences), differences) == p_value


@settings(max_examples=30, deadline=None)
@given(losses)
def test_sign_flip_is_a_probability_and_symmetric(rows: list[tuple[float, float, int]]) -> None:
    base, tuned, _ = zip(*rows, strict=True)
    p_value = sign_flip(base, tuned)
    assert 0 < p_value <= 1
    assert p_value == sign_flip(tuned, base)
    assert sign_flip(base, base) == 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=1, max_size=ROWS_NEEDED - 1))
def test_sign_flip_is_never_significant_below_six_rows(rows: list[tuple[float, float]]) -> None:
    base, tuned = zip(*rows, strict=True)
    assert sign_flip(base, tuned) >= 0.0625
