"""Verdicts hold what they promise: rows convert, marks are understood in any spelling, mappings are found."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.formats import METHODS, Detection, detect, fragment
from tunesmith.data.label_findings import refusal_finding
from tunesmith.data.prepare import prepare, training_rows
from tunesmith.data.quality import examine
from tunesmith.data.report import inspect
from tunesmith.data.rows import BadRowError
from tunesmith.data.sources import RawData
from tunesmith.data.turns import read_messages, read_text
from tunesmith.recipe import build_recipe
from tunesmith.recipe.schema import Mapping

Rows = list[dict[str, Any]]


def put(folder: Path, rows: Rows) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def seen(rows: Rows, mapping: dict[str, str] | None = None) -> Detection:
    return detect(rows, Mapping(**(mapping or {})))


def answered(content: Any, **more: Any) -> Rows:
    return [{"role": "user", "content": "Q"}, {"role": "assistant", "content": content, **more}]


TEXT = {"type": "text", "text": "A"}


@pytest.mark.parametrize(
    "thought",
    [
        {"type": "reasoning", "text": "hm"},
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "reasoning", "reasoning": "hm"},
        {"text": "hm", "thought": True},
    ],
)
def test_reasoning_parts_are_reasoning_and_never_part_of_the_answer(thought: dict[str, Any]) -> None:
    assert read_messages(answered([thought, TEXT]), "messages")[1] == {
        "role": "assistant",
        "content": "A",
        "reasoning_content": "hm",
    }


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        (answered([TEXT, {"type": "reasoning", "text": "hm"}]), "parts of type reasoning"),
        (answered([{"type": "reasoning", "text": "hm"}, TEXT], reasoning_content="so"), "reasoning twice"),
        (answered([{"type": "reasoning", "text": None}, TEXT]), "parts of type reasoning"),
        (answered([{"type": "file", "text": "secret.pdf"}, TEXT]), "parts of type file"),
        (answered([{"type": "tool_use", "text": "f"}, TEXT]), "parts of type tool_use"),
        (answered([TEXT, {"text": "hm", "thought": True}]), "parts of type thought"),
        ([{"role": "user", "content": [{"type": "thinking", "thinking": "hm"}]}], "parts of type thinking"),
    ],
)
def test_other_parts_are_refused_by_their_type(messages: Rows, found: str) -> None:
    with pytest.raises(BadRowError) as refused:
        read_messages(messages, "messages")
    assert (refused.value.code, refused.value.found) == ("D013", found)


def test_an_answer_that_is_but_reasoning_is_empty() -> None:
    with pytest.raises(BadRowError) as refused:
        read_messages(answered([{"type": "reasoning", "text": "hm"}]), "messages")
    assert refused.value.code == "D012"


def test_texts_in_parts_are_joined() -> None:
    parts = [TEXT, {"type": "input_text", "text": "B"}, {"type": "output_text", "text": "C"}, {"text": "D"}, "E"]
    assert read_text(parts, "x") == "ABCDE"


def test_rows_with_reasoning_parts_are_counted(tmp_path: Path) -> None:
    thoughtful = {"messages": answered([{"type": "reasoning", "text": "hm"}, TEXT])}
    assert seen([thoughtful, {"messages": answered([TEXT])}]).features == {"reasoning": 1}
    assert training_rows(put(tmp_path, [thoughtful]))[0]["messages"][1]["reasoning_content"] == "hm"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "a", "input": None, "output": ["text"]},
        {"instruction": "a", "output": 4},
        {"prompt": "a", "completion": 4},
        {"prompt": ["a"], "completion": "b"},
        {"messages": [{"role": "wizard", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"prompt": None, "chosen": "a", "rejected": "b"},
    ],
)
def test_no_method_is_ready_where_no_row_converts(row: dict[str, Any], method: str, tmp_path: Path) -> None:
    path = put(tmp_path, [row] * 3)
    report = inspect(path, method=method, quality=False)
    assert report.verdicts == inspect(path, quality=False).verdicts
    for verdict in report.verdicts:
        if verdict.status == "READY":
            assert training_rows(path, verdict.method)
    if report.recommended:
        assert next(one for one in report.verdicts if one.method == report.recommended).status != "INCOMPATIBLE"


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"instruction": "a", "input": None, "output": ["text"]}, "instruction", "output[0]"),
        ({"instruction": "a", "input": "b", "output": ["text"]}, "{instruction}\n\n{input?}", "output[0]"),
        ({"prompt": "a", "completion": ["text", "other"]}, "prompt", "completion[0]"),
        ({"Frage": "a", "Antwort": "b"}, "Frage", "Antwort"),
        ({"问题": "a", "答案": "b"}, "问题", "答案"),
    ],
)
def test_answers_under_other_names_and_in_lists_are_proposed(row: dict[str, Any], prompt: str, completion: str) -> None:
    verdict = seen([row]).verdict
    assert (verdict.status, verdict.mapping) == ("NEEDS MAPPING", {"prompt": prompt, "completion": completion})


def test_lists_among_texts_are_bad_rows_of_the_same_layout() -> None:
    rows = [{"instruction": "a", "output": "b"}] * 2 + [{"instruction": "a", "output": ["b"]}]
    raw = RawData("x", [], rows, [1, 2, 3])
    done = prepare(raw, Mapping(), "error", generation_marks=True)
    assert [(place, problem.code) for place, problem in done.rejected] == [(3, "D013")]


def test_conversations_are_found_deep_inside_objects() -> None:
    found = seen([{"data": {"payload": {"conversation": {"turns": answered("b")}}}}])
    assert (found.verdict.status, found.columns) == ("READY", {"messages": "data.payload.conversation.turns"})


def test_columns_that_nobody_knows_can_be_named() -> None:
    verdict = seen([{"x": "a", "y": "b"}]).verdict
    assert verdict.status == "INCOMPATIBLE"
    assert verdict.reason.endswith("; where one is, name it in a mapping.")


RANKED = {"prompt": "a", "answers": [{"answer": "good", "rank": 1}, {"answer": "bad", "rank": 2}]}


@pytest.mark.parametrize("method", METHODS)
def test_ranked_answers_are_no_reference(method: str) -> None:
    verdict = seen([RANKED]).verdict_of(method)
    assert verdict.status == "INCOMPATIBLE"
    said = "he column answers ranks its answers (rank): write the best as chosen and a worse one as rejected first."
    assert said in verdict.reason


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        ({"question": "a", "answer": "b", "passages": [{"text": "c", "score": 1}]}, "question-answer"),
        ({"question": "a", "passages": [{"text": "c", "score": 1}]}, "prompt-only"),
        ({"prompt": "a", "answers": [{"answer": "b"}]}, "prompt-only"),
        ({"messages": answered("b"), "responses": [{"response": "c", "overall_score": 2}]}, "messages"),
        ({"instruction": "a", "completions": [{"response": "c", "overall_score": 2}]}, "unknown"),
    ],
)
def test_ranks_count_only_where_they_are_those_of_the_answers(row: dict[str, Any], layout: str) -> None:
    assert seen([row]).layout == layout


def marked(labels: list[Any]) -> Rows:
    return [{"prompt": f"p{n}", "completion": f"c{n}", "label": label} for n, label in enumerate(labels)]


@pytest.mark.parametrize("good", ["👍🏽", "👍️", "👍🏿 "])
def test_thumbs_have_skin_tones(good: str) -> None:
    rows = marked([good, "👎🏻", "👎️", good])
    assert "2 good, 2 bad" in seen(rows).verdict_of("kto").reason
    raw = RawData("x", [], rows, [1, 2, 3, 4])
    done = prepare(raw, Mapping(), "error", generation_marks=True, method="kto")
    assert [row["label"] for row in done.rows] == [True, False, False, True]


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["True", "1", "True", "0"], ["True", "1"]),
        ([True, "yes", False, True], [True, "yes"]),
        ([1, "true", 0, 1], [1, "true"]),
        (["👍", "👍🏽", "👎", "👍"], ["👍", "👍🏽"]),
        ([True, True, True, False], True),
    ],
)
def test_the_filter_keeps_good_rows_in_every_spelling(labels: list[Any], wanted: Any, tmp_path: Path) -> None:
    rows = marked(labels)
    path = put(tmp_path, rows)
    verdict = detect(rows, Mapping(), source=path).verdict
    assert verdict.filter == {"label": wanted}
    assert len(training_rows(path, "sft", verdict.mapping, verdict.filter)) == 3
    made: dict[str, Any] = {}
    exec(verdict.code or "", made)
    assert len(made["rows"]) == 3
    recipe = build_recipe(
        {"model": "m", "data": {"train": path, "filter": verdict.filter}}, where="here", folder=tmp_path
    )
    assert recipe.data.filter == {"label": wanted}


def test_the_filter_of_a_table_keeps_every_spelling(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "completion", "label"])
        writer.writeheader()
        writer.writerows(marked(["True", "1", "0", "True"]))
    (verdict, *_) = inspect(path, quality=False).verdicts
    assert verdict.filter == {"label": ["True", "1"]}
    made: dict[str, Any] = {}
    exec(verdict.code or "", made)
    assert [row["prompt"] for row in made["rows"]] == ["p0", "p1", "p3"]


def test_a_filter_with_several_values_is_one_line_of_a_recipe() -> None:
    assert fragment(None, {"label": ["True", 1, "yes"]}) == 'filter: {label: ["True", 1, "yes"]}'


def test_rows_without_a_mark_are_said_to_be_left_out() -> None:
    reason = seen(marked([True] * 9 + [False] * 9 + [None] * 6)).verdict_of("kto").reason
    assert "9 good, 9 bad. 6 without a mark can't be trained on." in reason


def test_t008_where_every_row_is_refused_dropping_them_is_no_way_out() -> None:
    some = refusal_finding({1: "no tools"}, [1, 2])
    assert "bad_rows: drop" in some.fix
    every = refusal_finding({0: "no tools", 1: "no tools"}, [1, 2])
    assert "bad_rows" not in every.fix
    assert "a model whose template knows tools" in every.fix


ALPACA = "Below is an instruction.\n\n### Instruction:\nAdd 1 and 2.\n\n### Response:\n3"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (ALPACA, 1),
        ("### Human: Hi\n### Assistant: Hello", 1),
        ("### Response:\nIt works.", 1),
        ("The section `### Instruction:` comes first.", 0),
        ("### Response times\nThey are short.", 0),
        ("#### Instruction: read\n### Instructions\nGo on.", 0),
    ],
)
def test_d049_alpaca_s_headings_are_markup(text: str, rows: int) -> None:
    figures, found = examine([{"text": text}], [1], where="x")
    assert figures.template_markup == rows
    assert ("D049" in [finding.code for finding in found]) == bool(rows)
