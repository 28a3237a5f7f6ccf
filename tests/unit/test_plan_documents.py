"""Lengths as a histogram, and what a batch of them is padded to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.plan.documents import Documents, worth_grouping

LENGTHS = st.lists(st.integers(1, 5000), min_size=1, max_size=200)


def test_lengths_and_a_histogram_of_them_are_the_same() -> None:
    assert Documents.of([7, 3, 7]) == Documents.of({3: 1, 7: 2}) == Documents(((3, 1), (7, 2)))
    assert (Documents.of([7, 3, 7]).rows, Documents.of([7, 3, 7]).tokens) == (3, 17)
    assert Documents.of([7, 3]).shares == ((3, 0.5), (7, 0.5))


def test_rows_are_cut_and_empty_ones_left_out() -> None:
    assert Documents.of([10, 900, 0, 2000], longest=512).counts == ((10, 1), (512, 2))
    assert Documents.of([]).mean == 0


@given(LENGTHS, st.integers(1, 4))
def test_the_longest_of_a_batch_is_what_all_draws_give(lengths: list[int], rows: int) -> None:
    few = lengths[:6]
    drawn = [max(draw) for draw in itertools.product(few, repeat=rows)]
    expected = sum(length * share for length, share in Documents.of(few).longest_of(rows))
    assert expected == pytest.approx(sum(drawn) / len(drawn))
    assert sum(share for _, share in Documents.of(lengths).longest_of(rows)) == pytest.approx(1)


def test_many_different_lengths_are_put_together_and_the_tokens_stay() -> None:
    documents = Documents.of(range(1, 40_001))
    assert len(documents.counts) <= 512
    assert documents.rows == 40_000
    assert documents.tokens == pytest.approx(40_000 * 40_001 / 2, rel=1e-3)


def test_grouping_is_worth_it_where_padding_takes_a_tenth_of_the_tokens() -> None:
    """Two rows of 100 or 100 + d: at random the longer of them on average 100 + 0.75 d, alike 100 + 0.5 d."""
    assert not worth_grouping(Documents.of([100, 150]), 2)  # 125 of 137.5: 9.1%
    assert worth_grouping(Documents.of([100, 160]), 2)  # 130 of 145: 10.3%
    assert not worth_grouping(Documents.of([10, 1000]), 1)
    assert not worth_grouping(Documents.of([500] * 9), 16)
    assert not worth_grouping(Documents.of([]), 4)
    assert worth_grouping(Documents.of([100] * 99 + [4000]), 16)  # the 95th percentile is the median
