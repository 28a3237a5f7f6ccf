"""What happens to each row on its own: nothing is lost, and the split depends on nothing but the row's key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.rows import BadRowError, Numbered, Row
from tunesmith.data.steps.identity import digest, side, split_key
from tunesmith.data.steps.transform import Transform

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.text(max_size=3), st.floats(allow_nan=True))


def read(row: Row) -> Row:
    """A mapping that wants a text in `a`."""
    if not isinstance(row.get("a"), str):
        raise BadRowError("D013", "a", "something else")
    return {"text": row["a"]}


def transform(**changed: Any) -> Transform:
    values: dict[str, Any] = {"read": read, "filter": {}, "group": None, "seed": 1, "held_out": 0.2, "test": 0.2}
    return Transform(**{**values, **changed})


def numbered(rows: list[Row | None]) -> list[tuple[int, Numbered]]:
    return [(at, Numbered(at + 1, row, "broken" if row is None else None)) for at, row in enumerate(rows)]


@given(st.lists(st.one_of(st.none(), st.dictionaries(st.sampled_from("abc"), VALUES))), st.integers(0, 5))
def test_every_row_is_kept_or_rejected_with_a_reason(rows: list[Row | None], at: int) -> None:
    whole = numbered(rows)
    kept, rejected = transform(filter={"b": 1}).batch(whole)
    assert sorted([one.order for one in kept] + [one.order for one in rejected]) == list(range(len(rows)))
    assert all(one.reason and one.row == rows[one.order] for one in rejected)
    assert all(one.row == {"text": rows[one.order]["a"]} for one in kept)  # type: ignore[index]
    parts = [transform(filter={"b": 1}).batch(part) for part in (whole[:at], whole[at:])]
    assert [one.digest for part in parts for one in part[0]] == [one.digest for one in kept]
    assert len(parts[0][1]) + len(parts[1][1]) == len(rejected)


def test_each_step_has_its_own_reason() -> None:
    _, rejected = transform(filter={"b": True}).batch(numbered([None, {"a": "x"}, {"a": 1, "b": True}]))
    assert [(one.step, one.code, one.reason) for one in rejected] == [
        ("read", "D001", "D001 A row that can't be parsed"),
        ("filter", None, "b isn't true"),
        ("map", "D013", "D013 Wrong type where text is needed"),
    ]
    assert [(one.field, one.found) for one in rejected] == [("row", "broken"), ("b", ""), ("a", "something else")]


@pytest.mark.parametrize(
    ("value", "wanted", "same"),
    [
        (True, True, True),
        (1, True, True),
        (True, 1, True),
        (1.0, 1, True),
        ("true", True, True),
        ("1", 1, True),
        ("1", "1", True),
        (1, "1", False),
        (None, "x", False),
        ("x", "X", False),
    ],
)
def test_a_filter_compares_values_and_the_texts_of_csv(value: Any, wanted: Any, same: bool) -> None:
    kept, _ = transform(filter={"b": wanted}).batch(numbered([{"a": "x", "b": value}]))
    assert bool(kept) == same


def test_d043_half_a_character_is_rejected_and_a_whole_one_is_not() -> None:
    kept, rejected = transform().batch(numbered([{"a": "ok \N{GRINNING FACE}"}, {"a": "half \ud83d"}]))
    assert len(kept) == 1
    assert [(one.step, one.code, one.row) for one in rejected] == [("map", "D043", {"a": "half \ud83d"})]


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.integers(0, 2**32 - 1))
def test_a_rows_side_depends_on_nothing_but_itself(texts: list[str], seed: int) -> None:
    texts = [text for text in texts if text < "\ud800" or text > "\udfff"]
    rows = [{"a": text} for text in texts if text.isprintable()]
    one_by_one = [transform(seed=seed).batch(numbered([row]))[0][0].split for row in rows]
    together, _ = transform(seed=seed).batch(numbered(list(reversed(rows))))
    assert [one.split for one in reversed(together)] == one_by_one


@given(st.text(), st.text(), st.text())
def test_equal_prompts_stay_on_one_side(prompt: str, one: str, other: str) -> None:
    keys = {split_key({"prompt": prompt, "completion": text}, None) for text in (one, other)}
    assert len(keys) == 1


def test_a_group_stays_on_one_side_and_a_row_without_one_goes_by_its_prompt() -> None:
    rows = [{"a": f"text {n}", "user": n % 7} for n in range(200)]
    kept, _ = transform(group="user").batch(numbered(rows))
    for user in range(7):
        assert len({one.split for one in kept if rows[one.order]["user"] == user}) == 1
    alone, _ = transform(group="user").batch(numbered([{"a": f"text {n}"} for n in range(200)]))
    plain, _ = transform().batch(numbered([{"a": f"text {n}"} for n in range(200)]))
    assert [one.split for one in alone] == [one.split for one in plain]
    assert {one.split for one in alone} == {"train", "eval", "test"}


def test_fractions_are_expectations() -> None:
    sides = [side(f"key {n}", 7, held_out=0.1, test=0.3) for n in range(20_000)]
    assert abs(sides.count("eval") / 20_000 - 0.1) < 0.01
    assert abs(sides.count("test") / 20_000 - 0.3) < 0.015


def test_changing_one_fraction_leaves_the_other_split_as_it_was() -> None:
    keys = [f"key {n}" for n in range(2_000)]

    def held(name: str, **fractions: float) -> set[str]:
        return {key for key in keys if side(key, 1, **fractions) == name}

    assert held("test", held_out=0.1, test=0.1) == held("test", held_out=0.5, test=0.1)
    assert held("eval", held_out=0.1, test=0.1) == held("eval", held_out=0.1, test=0.5)
    assert held("eval", held_out=0.1, test=0.1) < held("eval", held_out=0.2, test=0.1)
    assert held("test", held_out=0.0, test=0.0) == held("eval", held_out=0.0, test=0.0) == set()


def test_the_seed_draws_another_split() -> None:
    first = [side(f"key {n}", 1, held_out=0.5, test=0) for n in range(100)]
    assert first != [side(f"key {n}", 2, held_out=0.5, test=0) for n in range(100)]


def test_equal_rows_share_a_digest_whatever_the_order_of_their_keys() -> None:
    assert digest({"prompt": "a", "completion": "b"}) == digest({"completion": "b", "prompt": "a"})
    assert digest({"prompt": "a", "completion": "b"}) != digest({"prompt": "b", "completion": "a"})
