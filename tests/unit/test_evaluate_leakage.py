"""Leakage: which held-out rows training saw, and what the scores are without them."""

from __future__ import annotations

import json
import random
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.runs import write_split
from tunesmith.data.quality.shingles import shingle
from tunesmith.evaluate.comparisons import compare_shares
from tunesmith.evaluate.leakage import beside, look, nearest, verdict
from tunesmith.evaluate.outcome import Outcome
from tunesmith.evaluate.rows import Row
from tunesmith.records import EvalReport

LONG = "Please tell the customer in two short and friendly sentences when the parcel with the lamp is going to arrive"
OTHER = "What is the capital of the country that lies to the north of Spain and to the east of the ocean"


def chat(prompt: str, answer: str = "An answer.") -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def held(*rows: dict[str, Any]) -> list[Row]:
    return [Row(number, row) for number, row in enumerate(rows, start=1)]


def codes(folder: Path, rows: list[Row], train: list[dict[str, Any]]) -> list[str]:
    return [one.code for one in look(rows, "test", folder, write_split(folder, "train", train)).findings]


def test_rows_that_training_saw_exactly_or_nearly_are_counted_and_named(tmp_path: Path) -> None:
    train = write_split(tmp_path, "train", [chat("unlike"), chat(LONG, "Tomorrow."), chat(OTHER)])
    rows = held(chat("new"), chat(LONG, "On Friday."), chat(f"{LONG} today"), chat("What is the capital of Spain"))
    seen = look(rows, "test", tmp_path, train)
    assert seen.record is not None
    assert (seen.record.rows, seen.record.exact, seen.record.near) == (4, 1, 1)
    assert seen.record.examples == [(2, 2), (3, 2)]
    assert seen.rows == {2, 3}
    assert [(one.code, one.severity) for one in seen.findings] == [("E046", "warning"), ("E047", "warning")]
    assert "1 of 4 held-out rows has a prompt that a training row has, too: row 2." in seen.findings[0].what
    assert "row 3" in seen.findings[1].what


@pytest.mark.parametrize("layout", ["text", "messages"])
def test_other_layouts_leak_by_what_is_asked(tmp_path: Path, layout: str) -> None:
    def row(text: str, answer: str) -> dict[str, Any]:
        turns = chat(text, answer)
        return {"text": text} if layout == "text" else {"messages": turns["prompt"] + turns["completion"]}

    assert codes(tmp_path, held(row(LONG, "b")), [row(LONG, "a")]) == ["E046"]
    assert codes(tmp_path, held(row(f"{LONG} now", "b")), [row(LONG, "a")]) == ["E047"]
    assert codes(tmp_path, held(row(OTHER, "a")), [row(LONG, "a")]) == []


def test_rows_with_images_leak_by_equality_alone(tmp_path: Path) -> None:
    rows = [chat(LONG) | {"images": [name]} for name in ("a.png", "b.png")]
    assert codes(tmp_path, held(rows[0]), [rows[1]]) == []
    assert codes(tmp_path, held(rows[0]), [rows[0]]) == ["E046"]


def test_a_few_near_copies_among_many_rows_are_a_note(tmp_path: Path) -> None:
    rows = held(chat(f"{LONG} soon"), *(chat(f"Question number {number}?") for number in range(200)))
    seen = look(rows, "test", tmp_path, write_split(tmp_path, "train", [chat(LONG)]))
    assert [(one.code, one.severity) for one in seen.findings] == [("E047", "note")]


def test_training_rows_that_are_gone_or_changed_are_said_to_be(tmp_path: Path) -> None:
    train = write_split(tmp_path, "train", [chat(LONG)])
    changed = train.model_copy(update={"sha256": "0" * 64})
    for split in (changed, train.model_copy(update={"path": "data/gone.jsonl"})):
        seen = look(held(chat(LONG)), "test", tmp_path, split)
        assert ([one.code for one in seen.findings], seen.record, seen.rows) == (["E049"], None, frozenset())


WORDS = [f"w{number}" for number in range(30)]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS[:6]), max_size=6).map(" ".join), min_size=1, max_size=8)


@given(TEXTS, TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
@settings(max_examples=60, deadline=None)
def test_the_nearest_text_is_that_of_the_highest_jaccard_similarity(
    texts: list[str], known: list[str], threshold: float
) -> None:
    def similarity(one: str, other: str) -> float:
        first, second = (set(shingle([text]).hashes.tolist()) for text in (one, other))
        return len(first & second) / len(first | second) if first | second else 0.0

    expected = {}
    for index, text in enumerate(texts):
        scores = [similarity(text, other) for other in known]
        if max(scores) >= threshold and max(scores) > 0:
            expected[index] = scores.index(max(scores))
    assert nearest(texts, known, threshold) == expected


def test_what_a_template_writes_around_every_prompt_makes_no_near_copies() -> None:
    random.seed(0)
    frame = "You are a helpful clerk. Read the note below and write down customer, city and item. The note says: "
    names = ["".join(random.choices("abcdefgh", k=6)) for _ in range(400)]
    texts = [f"{frame}{names[index]} {names[-index - 1]} orders a {names[index // 2]}" for index in range(200)]
    assert nearest(texts[:50], texts[50:]) == {}
    assert nearest([texts[60]], texts[50:]) == {0: 10}


def test_words_that_repeat_count_once() -> None:
    assert nearest(["a a a a a"], ["b c d", "a a a"], 1.0) == {0: 1}


def test_the_first_ten_pairs_are_named(tmp_path: Path) -> None:
    rows = [chat(f"Question {number}") for number in range(12)]
    record = look(held(*rows), "test", tmp_path, write_split(tmp_path, "train", rows)).record
    assert record is not None
    assert (record.exact, record.examples) == (12, [(number, number) for number in range(1, 11)])


def test_a_large_training_file_is_searched_in_parts() -> None:
    random.seed(0)
    known = [" ".join(random.choices(WORDS, k=60)) for _ in range(2_000)]
    assert nearest([known[1_999], f"{known[7]} w1", "w1 w2"], known) == {0: 1_999, 1: 7}


@dataclass(frozen=True)
class Right:
    """A measure of rows that are right or wrong."""

    numbers: tuple[int, ...]
    needs_model: ClassVar[bool] = False

    def take(self, subject: Any, progress: Any) -> list[bool]:
        raise NotImplementedError

    def compare(self, base: list[bool], tuned: list[bool]) -> Outcome:
        return Outcome([compare_shares("exact_match", base, tuned)])

    def without(self, rows: Container[int], taken: list[bool]) -> tuple[Right, list[bool]] | None:
        places = [place for place, number in enumerate(self.numbers) if number not in rows]
        left = replace(self, numbers=tuple(self.numbers[place] for place in places))
        return (left, [taken[place] for place in places]) if places else None


def told(seen: set[int]) -> Outcome:
    measure, base, tuned = Right(tuple(range(1, 21))), [False] * 20, [True] * 10 + [False] * 10
    return beside(measure.compare(base, tuned), measure, (base, tuned), frozenset(seen))


def report(outcome: Outcome) -> EvalReport:
    return EvalReport(
        rows=20, split="test", comparisons=outcome.comparisons, primary="exact_match", seconds=1.0, findings=[]
    )


def test_a_score_is_told_without_the_rows_that_training_saw() -> None:
    (one,) = told({1, 2}).comparisons
    assert (one.rows, one.tuned) == (20, 0.5)
    assert one.unseen is not None
    assert (one.unseen.rows, one.unseen.base, one.unseen.tuned) == (18, 0.0, 8 / 18)
    assert (one.unseen.difference, one.unseen.p_value) == (8 / 18, 2 * 0.5**8)
    assert verdict(report(told({1, 2}))) == []


@pytest.mark.parametrize("seen", [set(range(1, 11)), {1, 2, 3, 4, 5}])
def test_a_gain_that_only_seen_rows_show_is_told(seen: set[int]) -> None:
    outcome = told(seen)
    assert outcome.comparisons[0].significant
    (found,) = verdict(report(outcome))
    assert found.code == "E048"
    assert f"on the {20 - len(seen)} rows" in found.what


def test_nothing_stands_beside_a_score_where_no_row_was_seen_or_all_were() -> None:
    for seen in (set(), set(range(1, 21))):
        assert told(seen).comparisons[0].unseen is None
        assert verdict(report(told(seen))) == []


def test_a_measure_that_is_not_told_by_rows_stays_as_it_is() -> None:
    class Whole:
        needs_model: ClassVar[bool] = False

        def take(self, subject: Any, progress: Any) -> Any:
            raise NotImplementedError

        def compare(self, base: Any, tuned: Any) -> Outcome:
            raise NotImplementedError

    outcome = Outcome([compare_shares("exact_match", [True] * 8, [False] * 8)])
    assert beside(outcome, Whole(), (None, None), frozenset({1})) is outcome


def test_a_loss_on_all_rows_is_no_gain(tmp_path: Path) -> None:
    measure, base, tuned = Right(tuple(range(1, 21))), [True] * 20, [False] * 20
    outcome = beside(measure.compare(base, tuned), measure, (base, tuned), frozenset({1}))
    assert verdict(report(outcome)) == []
    assert json.loads(report(outcome).model_dump_json())["comparisons"][0]["unseen"]["rows"] == 19
