"""Steps that see all rows: what they find doesn't depend on how the work is shared."""

from __future__ import annotations

import contextlib
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.steps import convert, dedup, near
from tunesmith.data.steps.dedup import repeats, within
from tunesmith.data.steps.work import Work, share, writing


def digests(values: list[int]) -> Any:
    """An array of digests, one per value, in reading order."""
    return np.array([(value * 2**59, value, order) for order, value in enumerate(values)], dtype=convert.DIGEST)


@given(st.lists(st.integers(0, 9)))
def test_the_first_of_equal_rows_stays(values: list[int]) -> None:
    expected = {order: values.index(value) for order, value in enumerate(values) if values.index(value) != order}
    assert {int(gone): int(kept) for gone, kept in repeats(digests(values))} == expected


def test_digests_that_agree_in_one_half_only_are_others() -> None:
    halves = np.array([(1, 1, 0), (1, 2, 1), (2, 1, 2), (1, 1, 3)], dtype=convert.DIGEST)
    assert repeats(halves).tolist() == [[3, 0]]


@given(st.lists(st.lists(st.integers(0, 31), max_size=8), min_size=1, max_size=4))
def test_buckets_hold_every_digest_once(tmp_path_factory: pytest.TempPathFactory, chunks: list[list[int]]) -> None:
    work = Work(tmp_path_factory.mktemp("work"))
    for number, chunk in enumerate(chunks):
        made = np.sort(digests(chunk))
        work.save("digests", f"{number:08}", made)
    buckets = [dedup._bucket(work, bucket) for bucket in range(dedup.BUCKETS)]
    assert sorted(int(low) for bucket in buckets for low in bucket["low"]) == sorted(chain.from_iterable(chunks))
    owners = [{int(low) for low in bucket["low"]} for bucket in buckets]
    assert sum(map(len, owners)) == len(set(chain.from_iterable(chunks)))


@given(st.integers(0, 40), st.integers(1, 9))
def test_tasks_share_units_without_gap_or_overlap(units: int, tasks: int) -> None:
    shares = [share(list(range(units)), rank, tasks) for rank in range(tasks)]
    assert sorted(chain.from_iterable(shares)) == list(range(units))


def test_the_pairs_of_a_chunk() -> None:
    pairs = np.array([[2, 0], [5, 1], [9, 0]], dtype="<u8")
    assert within(pairs, 3, 9) == {5: 1, 9: 0}
    assert within(pairs, 0, 2) == {2: 0}
    assert within(pairs, 6, 8) == {}


def test_what_is_compared_leaves_out_what_many_rows_share() -> None:
    row = {
        "messages": [
            {"role": "system", "content": "You are kind."},
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "Me."},
        ],
        "tools": '[{"name": "search"}]',
    }
    text = near.text_of(row)
    assert "Who?" in text
    assert "Me." in text
    assert "kind" not in text
    assert "search" not in text


def test_a_file_stands_under_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with contextlib.suppress(ZeroDivisionError), writing(path) as file:
        file.write("half")
        raise ZeroDivisionError
    assert list(path.parent.iterdir()) == []
    with writing(path) as file:
        file.write("whole\n")
    assert path.read_bytes() == b"whole\n"
