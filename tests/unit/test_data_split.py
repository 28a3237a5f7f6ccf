"""Holding rows out."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.split import few_rows, held_out, overlap, prompt_of, split_findings

Rows = list[dict[str, Any]]


def rows_of(prompts: list[int]) -> Rows:
    return [{"prompt": f"p{prompt}", "completion": f"c{index}"} for index, prompt in enumerate(prompts)]


def divide(rows: Rows, fraction: float, seed: int, most: int = 500) -> tuple[Rows, Rows]:
    """The rows to train on and those held out."""
    held = held_out(rows, fraction, seed, most)
    return [row for index, row in enumerate(rows) if index not in held], [rows[index] for index in sorted(held)]


ROWS = st.lists(st.integers(0, 12), min_size=1, max_size=60).map(rows_of)
FRACTIONS = st.floats(0, 0.99)
SEEDS = st.integers(0, 2**32)


@given(ROWS, FRACTIONS, SEEDS, st.integers(1, 30))
def test_a_split_parts_the_rows_and_keeps_equal_prompts_together(
    rows: Rows, fraction: float, seed: int, most: int
) -> None:
    train, held = divide(rows, fraction, seed, most)
    assert sorted(row["completion"] for row in train + held) == sorted(row["completion"] for row in rows)
    assert overlap(train, held) == 0
    assert train
    index = {row["completion"]: position for position, row in enumerate(rows)}
    for side in (train, held):
        assert [index[row["completion"]] for row in side] == sorted(index[row["completion"]] for row in side)
    if fraction > 0 and len({row["prompt"] for row in rows}) > 1:
        assert held


@given(ROWS, FRACTIONS, SEEDS)
def test_the_order_of_rows_doesnt_matter(rows: Rows, fraction: float, seed: int) -> None:
    mixed = random.Random(seed).sample(rows, len(rows))
    held, again = divide(rows, fraction, seed)[1], divide(mixed, fraction, seed)[1]
    assert {row["prompt"] for row in held} == {row["prompt"] for row in again}


@given(st.integers(2, 300), st.floats(0.01, 0.5), SEEDS, st.integers(1, 40))
def test_with_distinct_prompts_the_fraction_is_met_exactly(count: int, fraction: float, seed: int, most: int) -> None:
    _, held = divide(rows_of(list(range(count))), fraction, seed, most)
    assert len(held) == min(max(1, round(fraction * count)), most, count - 1)


def test_the_seed_decides_which_rows() -> None:
    rows = rows_of(list(range(200)))
    assert divide(rows, 0.1, 1) == divide(rows, 0.1, 1)
    assert divide(rows, 0.1, 1) != divide(rows, 0.1, 2)


def test_at_most_500_rows_unless_told() -> None:
    assert len(divide(rows_of(list(range(2000))), 0.5, 0)[1]) == 500


def test_nothing_is_held_out_when_all_prompts_are_equal_or_none_is_wanted() -> None:
    assert divide(rows_of([1, 1, 1]), 0.5, 0)[1] == []
    assert divide(rows_of([1, 2, 3]), 0, 0)[1] == []


def test_when_every_prompt_is_frequent_the_rarest_is_held_out() -> None:
    _, held = divide(rows_of([1] * 10 + [2] * 5 + [3] * 8), 0.05, 0)
    assert {row["prompt"] for row in held} == {"p2"}


def test_what_counts_as_prompt() -> None:
    user, other = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    assert prompt_of({"text": "t"}) == "t"
    assert prompt_of({"prompt": "p", "completion": "c"}) == "p"
    assert prompt_of({"messages": [user, other]}) == prompt_of({"prompt": [user], "completion": [other]})
    assert prompt_of({"messages": [user, other]}) == prompt_of({"messages": [user, {**other, "content": "z"}]})
    assert prompt_of({"messages": [user, other]}) != prompt_of({"messages": [user, user, other]})


def test_d010_prompts_on_both_sides() -> None:
    train, test = rows_of([1, 2, 3]), rows_of([3, 4, 3])
    assert overlap(train, test) == 2
    found = {finding.code: finding.what for finding in split_findings(train, test, "test")}
    assert found["D010"] == "2 of 3 test prompts also stand in the training data."


def test_d010_is_silent_on_a_split_of_its_own() -> None:
    assert split_findings(*divide(rows_of(list(range(4000))), 0.1, 0), "eval") == []


@pytest.mark.parametrize(("rows", "resolution"), [(6, 100), (50, 12), (99, 7), (100, None), (0, None)])
def test_d011_few_rows_held_out(rows: int, resolution: int | None) -> None:
    found = split_findings(rows_of([10_000]), rows_of(list(range(rows))), "eval")
    assert [finding.code for finding in found] == (["D011"] if resolution else [])
    if resolution:
        said = f"Only {rows} rows are held out: differences under about {resolution} points can't be seen."
        assert found[0].what == said


@pytest.mark.parametrize(("rows", "held"), [(0, "No rows are"), (1, "Only 1 row is"), (5, "Only 5 rows are")])
def test_d011_so_few_rows_that_nothing_can_be_shown(rows: int, held: str) -> None:
    (found,) = few_rows(rows, "test")
    assert found.what == f"{held} held out: no difference can be shown."
