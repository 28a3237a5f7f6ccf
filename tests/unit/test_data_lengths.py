"""Histogram, recommended max_length, packing and tokens of an epoch, from lengths alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.lengths import (
    histogram,
    measures,
    packed_lengths,
    packing,
    recommend_max_length,
    trained_tokens,
)

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60).map(np.array)


@given(st.lists(st.integers(0, 100_000), min_size=1), st.integers(1, 40))
def test_each_row_is_in_one_bin(lengths: list[int], bins: int) -> None:
    found = histogram(np.array(lengths), bins)
    assert len(found.edges) == len(found.rows) + 1 <= bins + 2
    assert found.edges == sorted(set(found.edges))
    assert found.edges[0] <= min(lengths)
    assert found.edges[-1] > max(lengths)
    assert found.rows == [
        sum(low <= length < high for length in lengths)
        for low, high in zip(found.edges[:-1], found.edges[1:], strict=True)
    ]


def test_bins_are_equally_wide_on_a_log_scale() -> None:
    assert histogram(np.array([1, 15]), 4).edges == [1, 2, 4, 8, 16]


@given(LENGTHS, st.integers(1, 400))
def test_no_row_is_cut_within_the_context(lengths: np.ndarray, context: int) -> None:
    length, _ = recommend_max_length(lengths)
    assert length % 64 == 0
    assert length - 64 < lengths.max() <= length
    limited, reason = recommend_max_length(lengths, context=context)
    assert limited == min(length, context)
    assert ("context" in reason) == (context < length)


def test_a_long_tail_is_weighed() -> None:
    lengths = np.array([100] * 999 + [2000])
    length, reason = recommend_max_length(lengths)
    assert length == 2048
    assert reason == (
        "The smallest multiple of 64 that cuts no row: the longest has 2,000 tokens. 128 would hold 99% of the rows "
        "and need less memory; 1.8% of all tokens would be lost, in 1 row."
    )
    assert "99%" not in recommend_max_length(np.array([100] * 97 + [2000] * 3))[1]
    assert "99%" not in recommend_max_length(np.array([70] * 199 + [140]))[1]  # 128 instead of 192


def test_what_the_context_cuts_is_said() -> None:
    assert recommend_max_length(np.array([100, 100, 300]), context=100) == (
        100,
        "The model's context: the longest row has 300 tokens; 40.0% of all are lost, in 1 row.",
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=2500).map(np.array), st.integers(1, 80))
def test_packed_sequences_are_trl_s(lengths: np.ndarray, size: int) -> None:
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from trl import pack_dataset

    disable_progress_bar()
    ids = [list(range(length)) for length in lengths] + [[1]]  # rows that are all empty have no type
    packed = pack_dataset(Dataset.from_dict({"input_ids": ids}), size, "bfd")
    theirs = [len(row) for row in packed["input_ids"]]
    assert sorted(packed_lengths(np.append(lengths, 1), size)) == sorted(theirs)
    found = packing(np.append(lengths, 1), size)
    assert (found.sequences, found.rows, found.max_length) == (len(theirs), len(ids), size)
    assert found.fill == pytest.approx(sum(theirs) / (size * len(theirs)))


def test_what_packing_brings() -> None:
    even = packing(np.full(64, 64), 64)
    assert (even.sequences, even.fill, even.gain) == (64, 1.0, 1.0)
    mixed = packing(np.array([8] * 56 + [64] * 8), 64)
    assert (mixed.sequences, mixed.fill) == (15, 1.0)
    assert mixed.gain > 2
    nothing = packing(np.zeros(3, dtype=np.int64), 64)
    assert (nothing.sequences, nothing.gain, nothing.fill) == (0, 1.0, 0.0)


def test_trained_tokens_of_an_epoch() -> None:
    totals, prompts = np.array([10, 20, 30]), np.array([4, 12, 25])
    assert trained_tokens(totals, None, None) == 60
    assert trained_tokens(totals, None, 15) == 40
    assert trained_tokens(totals, prompts, None) == 6 + 8 + 5
    assert trained_tokens(totals, prompts, 15) == 6 + 3 + 0


def test_all_measures_at_once() -> None:
    totals = np.array([10, 20, 30])
    found = measures(totals, np.array([4, 12, 25]), max_length=15, context=20)
    assert (found.max_length, found.tokens_per_epoch) == (20, 9)
    assert found.packing == packing(totals, 20)
    assert found.fields["histogram"] == histogram(totals)
    assert measures(totals, trained=7, packs=False).tokens_per_epoch == 7
    pairs = measures(totals, packs=False)
    assert (pairs.packing, pairs.tokens_per_epoch) == (None, None)
