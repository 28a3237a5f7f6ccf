"""How answers look: stopping, empty ones, and repetition as seq-rep-4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.evaluate.looks import looks, on_looks, repetition
from tunesmith.evaluate.measure import Answer
from tunesmith.evaluate.outcome import Looks


def looking(**changes: float) -> Looks:
    values = {"answers": 10, "stop_rate": 1.0, "empty": 0.0, "tokens": 5.0, "repetition": 0.0}
    return Looks(**(values | changes))  # type: ignore[arg-type]


def test_shares_and_means_of_answers() -> None:
    seen = looks([Answer("one", True, [1, 2]), Answer(" \n", False, [3, 3, 3, 3, 3, 3])])
    assert seen == Looks(answers=2, stop_rate=0.5, empty=0.5, tokens=4.0, repetition=pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("ids", "share"),
    [
        ([], 0.0),
        ([1, 1, 1], 0.0),
        ([1, 1, 1, 1], 0.0),
        ([1, 1, 1, 1, 1], 0.5),
        ([1, 2, 3, 4, 1, 2, 3, 4], 0.2),
        ([1, 2, 3, 4, 5, 6, 7, 8], 0.0),
        ([1, 2] * 50, 95 / 97),
    ],
)
def test_repetition_is_the_share_of_n_grams_that_were_there_before(ids: list[int], share: float) -> None:
    assert repetition(ids) == pytest.approx(share)


@given(st.lists(st.integers(0, 3), max_size=40))
def test_repetition_is_a_share_and_more_of_the_same_never_less(ids: list[int]) -> None:
    assert 0 <= repetition(ids) < 1
    if len(ids) >= 4:
        assert repetition(ids + ids) >= repetition(ids)


@pytest.mark.parametrize(
    ("base", "tuned", "codes"),
    [
        ({}, {}, []),
        ({}, {"empty": 0.2}, ["E031"]),
        ({"empty": 0.2}, {"empty": 0.2}, []),
        ({}, {"empty": 0.05}, []),
        ({}, {"repetition": 0.3}, ["E032"]),
        ({"repetition": 0.25}, {"repetition": 0.3}, []),
        ({"repetition": 0.6, "empty": 0.3}, {"repetition": 0.1}, []),
    ],
)
def test_what_is_found_of_looks(base: dict[str, float], tuned: dict[str, float], codes: list[str]) -> None:
    assert [found.code for found in on_looks(looking(**base), looking(**tuned), "data/test.jsonl")] == codes
