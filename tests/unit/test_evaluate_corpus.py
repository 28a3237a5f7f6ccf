"""Scores that are made of what all rows add up to, compared."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from tunesmith.evaluate.corpus import MacroF1, compare_corpus
from tunesmith.evaluate.statistics import sign_flip

LABELS = ["yes", "no", "maybe"]


def mean(counts: object) -> float:
    right, there = counts  # type: ignore[misc]
    return float(right / there)


@given(st.lists(st.tuples(st.sampled_from([*LABELS, "other"]), st.sampled_from(LABELS)), min_size=1, max_size=30))
def test_macro_f1_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    said, wanted = zip(*pairs, strict=True)
    labels = sorted(set(wanted))
    macro = MacroF1(labels)
    sums = [sum(values) for values in zip(*(macro.counts(*pair) for pair in pairs), strict=True)]
    theirs = f1_score(wanted, said, labels=labels, average="macro", zero_division=0)
    assert macro.total(sums) == pytest.approx(theirs)


def test_a_label_that_is_neither_said_nor_wanted_has_no_f1() -> None:
    assert MacroF1(LABELS).total(MacroF1(LABELS).counts("yes", "yes")) == 1.0
    assert MacroF1(LABELS).total([0.0] * 6) == 0.0


@pytest.mark.parametrize("rows", [7, 12, 40])
def test_a_mean_is_tested_as_means_are(rows: int) -> None:
    rng = random.Random(rows)
    base, tuned = ([float(rng.random() < share) for _ in range(rows)] for share in (0.4, 0.7))
    compared = compare_corpus("mean", *([[value, 1.0] for value in arm] for arm in (base, tuned)), mean)
    assert (compared.rows, compared.groups) == (rows, None)
    assert compared.difference == pytest.approx((sum(tuned) - sum(base)) / rows)
    assert compared.p_value == pytest.approx(sign_flip(base, tuned), abs=0.02)
    assert compared.interval is not None
    assert compared.interval.low < compared.difference < compared.interval.high


def test_equal_answers_show_no_difference() -> None:
    counts = [[1.0, 1.0], [0.0, 1.0]] * 4
    compared = compare_corpus("mean", counts, counts, mean)
    assert (compared.difference, compared.p_value, compared.significant) == (0.0, 1.0, False)
    # No draw of rows can differ, but other rows could.
    assert compared.interval is None


def test_few_rows_have_no_interval_and_one_row_shows_nothing() -> None:
    better = [[1.0, 1.0]] * 5
    worse = [[0.0, 1.0]] * 5
    compared = compare_corpus("mean", worse, better, mean)
    assert (compared.interval, compared.p_value, compared.significant) == (None, 0.0625, False)
    assert compare_corpus("mean", worse[:1], better[:1], mean).p_value == 1.0


def test_rows_of_a_group_change_sides_together() -> None:
    worse, better = [[0.0, 1.0]] * 12, [[1.0, 1.0]] * 12
    alone = compare_corpus("mean", worse, better, mean)
    grouped = compare_corpus("mean", worse, better, mean, groups=["a", "b", "c"] * 4)
    assert (grouped.rows, grouped.groups, grouped.p_value) == (12, 3, 0.25)
    assert (grouped.test, grouped.interval) == ("paired permutation of groups of rows, two-sided", None)
    assert alone.p_value == pytest.approx(2 * 0.5**12)
    assert (alone.significant, grouped.significant) == (True, False)
