"""Counts in words: one thing is said as one."""

import re

import pytest

from tunesmith.data.rows import name_places
from tunesmith.rules import RULES, Rule, finding
from tunesmith.words import Agreeing, counted, lasting


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1000, "1,000 rows"), (1_000_001, "1,000,001 rows")]
)
def test_a_count_has_its_noun(count: int, said: str) -> None:
    assert counted(count, "row") == said


@pytest.mark.parametrize(("count", "said"), [("1", "has"), (1, "has"), ("2", "have"), ("1,001", "have"), (0, "have")])
def test_a_field_chooses_words_by_a_count(count: object, said: str) -> None:
    assert Agreeing().format("{count:has|have}", count=count) == said


def test_other_fields_are_those_of_format() -> None:
    assert Agreeing().format("{a:.1f} {b!r} {c} {{d}}", a=1, b="x", c=None) == "1.0 'x' None {d}"
    with pytest.raises(KeyError):
        Agreeing().format("{count:has|have}")


@pytest.mark.parametrize(
    ("places", "left_out", "said"),
    [
        ([3], 0, "row 3"),
        (["a:3"], 0, "row a:3"),
        ([3], 4, "rows 3 and 4 more"),
        ([3, 7], 0, "rows 3, 7"),
        ([1, 2, 3, 4, 5], 0, "rows 1, 2, 3, 4, 5"),
        ([1, 2, 3, 4, 5, 6], 1000, "rows 1, 2, 3, 4, 5 and 1,001 more"),
    ],
)
def test_rows_are_named(places: list[int | str], left_out: int, said: str) -> None:
    assert name_places(places, left_out) == said


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_no_rule_has_a_count_before_a_plural(rule: Rule) -> None:
    counts = r"\{(count|total|left|shortest)\}"
    assert not re.search(counts + r" (row|pair|conversation|answer|prompt|file|tensor|probe|character)s\b", rule.what)


def test_findings_say_it() -> None:
    details = {"field": "messages", "rows": "row 3"}
    assert finding("D006", "a", count="1", **details).what == "1 row has no messages (row 3)."
    assert finding("D006", "a", count="2", **details).what == "2 rows have no messages (row 3)."


@pytest.mark.parametrize(
    ("seconds", "text"), [(11.6, "12 seconds"), (119, "119 seconds"), (120, "2.0 minutes"), (5400, "90.0 minutes")]
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert lasting(seconds) == text
