"""Rows for every method: preferences, marks, prompts with references, text; filters, mixed files, rejected rows."""

import datetime
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tunesmith.data.prepare import Prepared, prepare, training_rows
from tunesmith.data.rows import BadRowError
from tunesmith.data.sources import RawData
from tunesmith.data.trl_preparation import as_dataset
from tunesmith.errors import UsageError
from tunesmith.recipe.schema import Mapping
from tunesmith.rules import FindingsError

Rows = list[dict[str, Any]]


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ASK, REPLY, WORSE = said("user", "a"), said("assistant", "b"), said("assistant", "c")
TALK = {"messages": [ASK, REPLY]}
PREFERENCE = {"prompt": [ASK], "chosen": [REPLY], "rejected": [WORSE]}


def run(
    rows: Rows,
    method: str = "sft",
    bad_rows: Literal["error", "drop"] = "error",
    *,
    mapping: dict[str, str] | None = None,
    rejected: Any = (),
    **more: Any,
) -> Prepared:
    raw = RawData("x.jsonl", [], rows, list(range(1, len(rows) + 1)), list(rejected))
    return prepare(raw, Mapping(**(mapping or {})), bad_rows, generation_marks=True, method=method, **more)


def codes(done: Prepared) -> list[tuple[str, str]]:
    return [(finding.code, finding.severity) for finding in done.findings]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b", "rejected": "c"}),
        ({"prompt": "a", "chosen": [REPLY], "rejected": "c"}, PREFERENCE),
        ({"conversations": [{"from": "human", "value": "a"}], "chosen": REPLY, "rejected": WORSE}, PREFERENCE),
        ({"chosen": [ASK, REPLY], "rejected": [ASK, WORSE]}, PREFERENCE),
        ({"prompt": "ignored", "chosen": [ASK, REPLY], "rejected": [ASK, WORSE]}, PREFERENCE),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}, PREFERENCE),
        (
            {"chosen": "The sky is blue", "rejected": "The sky is green"},
            {"prompt": "The sky is", "chosen": " blue", "rejected": " green"},
        ),
        ({"instruction": "a", "input": "", "chosen": "b", "rejected": "c"}, PREFERENCE),
        (
            {"system": "s", "prompt": "a", "chosen": "b", "rejected": "c"},
            {**PREFERENCE, "prompt": [said("system", "s"), ASK]},
        ),
        (
            {"chosen": [ASK, REPLY, ASK, REPLY], "rejected": [ASK, REPLY, ASK, WORSE]},
            {"prompt": [ASK, REPLY, ASK], "chosen": [REPLY], "rejected": [WORSE]},
        ),
    ],
)
@pytest.mark.parametrize("method", ["dpo", "reward", "kto"])
def test_preferences_have_a_prompt_and_two_answers(row: dict[str, Any], wanted: dict[str, Any], method: str) -> None:
    done = run([row], method)
    assert (done.rows, done.layout) == ([wanted], "preference")
    assert done.loss_on == ("score" if method == "reward" else "completion")


def test_the_split_of_texts_is_that_of_trl() -> None:
    from trl.data_utils import extract_prompt

    row = {"chosen": "What is it? It is blue", "rejected": "What is it? It is green"}
    assert run([row], "dpo").rows == [extract_prompt(row)]


def test_preferences_as_texts_become_messages_for_a_chat_model() -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert run([row], "dpo", conversational=True).rows == [PREFERENCE]
    assert run([row, PREFERENCE], "dpo").rows == [PREFERENCE, PREFERENCE]


@pytest.mark.parametrize(
    ("value", "label"),
    [(True, True), (False, False), (1, True), (0, False), ("True", True), ("👎", False), ("good", True), (0.0, False)],
)
def test_marks_become_booleans(value: Any, label: bool) -> None:
    done = run([{"prompt": "a", "completion": "b", "label": value}], "kto")
    assert done.rows == [{"prompt": "a", "completion": "b", "label": label}]
    assert done.rows[0]["label"] is label
    assert (done.layout, done.loss_on) == ("unpaired-preference", "completion")


def test_marked_conversations_are_split_before_the_last_answer() -> None:
    done = run([{"messages": [ASK, REPLY, ASK, WORSE], "label": True, "tools": [{"name": "f"}]}], "kto")
    tools = json.dumps([{"type": "function", "function": {"name": "f"}}])
    assert done.rows == [{"prompt": [ASK, REPLY, ASK], "completion": [WORSE], "label": True, "tools": tools}]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "a"}, {"prompt": "a"}),
        ({"prompt": [ASK], "reward_model": {"ground_truth": "7"}}, {"prompt": [ASK], "reference": "7"}),
        ({"prompt": [ASK], "ground_truth": 7}, {"prompt": [ASK], "reference": "7"}),
        ({"prompt": [ASK], "ground_truth": ["x", 7]}, {"prompt": [ASK], "reference": ["x", "7"]}),
        ({"prompt": [ASK], "reference": {"x": 7}}, {"prompt": [ASK], "reference": '{"x": 7}'}),
        ({"prompt": "a", "completion": "b"}, {"prompt": "a", "reference": "b"}),
        (TALK, {"prompt": [ASK], "reference": "b"}),
        ({"instruction": "a", "output": "b"}, {"prompt": [ASK], "reference": "b"}),
        (PREFERENCE, {"prompt": [ASK]}),
        ({**TALK, "label": True}, {"prompt": [ASK]}),
        ({"messages": [ASK]}, {"prompt": [ASK]}),
    ],
)
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_prompts_with_their_references(row: dict[str, Any], wanted: dict[str, Any], method: str) -> None:
    done = run([row], method)
    assert (done.rows, done.layout) == ([wanted], "prompt-only")


@pytest.mark.parametrize("name", ["answer", "solution", "target"])
def test_a_column_that_is_named_reference_is_the_reference(name: str) -> None:
    done = run([{"prompt": "a", name: "the way to 7", "reference": "7"}], "grpo", columns=True)
    assert (done.rows, codes(done)) == ([{"prompt": "a", "reference": "7", name: "the way to 7"}], [])


def test_rewards_get_every_value_of_every_column_and_none_where_a_row_has_none() -> None:
    values = [[1, None], [{"a": 1}, {"b": [None]}], {"a": 1}, None, 2.5, "x", []]
    rows: Rows = [{"prompt": "a", "own": value} for value in values]
    done = run([{"prompt": "a", "late": datetime.date(2026, 1, 2)}, *rows], "grpo", columns=True)
    assert done.rows[0] == {"prompt": "a", "own": None, "late": "2026-01-02"}
    assert done.rows[1:] == [{"prompt": "a", "own": value, "late": None} for value in values]
    assert run([{"prompt": "b"}], "grpo", columns=True, like=done).rows == [{"prompt": "b", "own": None, "late": None}]


@pytest.mark.parametrize("name", ["messages", "chosen", "images", "trainer_state"])
def test_columns_that_the_trainer_reads_itself_are_no_columns_of_rewards(name: str) -> None:
    done = run([{"prompt": "a", name: "b"}], "grpo", columns=True)
    assert (done.rows, done.layout) == ([{"prompt": "a"}], "prompt-only")


def test_text_for_continued_pretraining() -> None:
    done = run([{"text": "t"}], "clm")
    assert (done.rows, done.layout, done.loss_on) == ([{"text": "t"}], "text", "all")


BAD: list[tuple[str, str, dict[str, Any], dict[str, Any], str]] = [
    ("dpo", "D005", PREFERENCE, {**PREFERENCE, "rejected": None}, "null in rejected"),
    ("dpo", "D012", PREFERENCE, {**PREFERENCE, "chosen": ""}, "an empty chosen"),
    (
        "dpo",
        "D034",
        PREFERENCE,
        {**PREFERENCE, "rejected": [{**REPLY, "content": f" {REPLY['content']}\n"}]},
        "same chosen",
    ),
    ("dpo", "D007", PREFERENCE, {**PREFERENCE, "chosen": [REPLY, ASK, REPLY]}, "user inside"),
    ("dpo", "D008", PREFERENCE, {**PREFERENCE, "chosen": [REPLY, said("tool", "x")]}, "end"),
    ("dpo", "D006", {"chosen": "a b", "rejected": "a c"}, {"chosen": "x b", "rejected": "y c"}, "no prompt"),
    ("dpo", "D012", {"chosen": "a b", "rejected": "a c"}, {"chosen": "a b", "rejected": "a b"}, "an empty chosen"),
    (
        "reward",
        "D006",
        {"chosen": [ASK, REPLY], "rejected": [ASK, WORSE]},
        {"chosen": [ASK, REPLY], "rejected": [said("user", "z"), WORSE]},
        "no prompt",
    ),
    ("kto", "D005", {**TALK, "label": True}, {**TALK, "label": None}, "null in label"),
    ("kto", "D013", {**TALK, "label": True}, {**TALK, "label": "maybe"}, "neither good nor bad"),
    ("kto", "D013", {**TALK, "label": True}, {**TALK, "label": ["maybe"]}, "neither good nor bad"),
    (
        "grpo",
        "D005",
        {"prompt": "a", "ground_truth": "7"},
        {"prompt": "a", "ground_truth": None},
        "null in ground_truth",
    ),
    ("grpo", "D005", {"prompt": "a"}, {"prompt": None}, "null in prompt"),
    ("clm", "D012", {"text": "t"}, {"text": ""}, "an empty text"),
    ("sft", "D013", TALK, {**TALK, "images": ["a.png"]}, "images in images"),
    ("sft", "D013", TALK, {"messages": [said("user", [{"type": "image"}]), REPLY]}, "parts of type image"),
    ("sft", "D018", TALK, {"text": "t"}, "another layout than most (text)"),
    ("sft", "D018", TALK, {"x": 1}, "another layout than most (unknown)"),
    ("sft", "D018", {"text": "t"}, TALK, "another layout than most (messages)"),
    ("dpo", "D018", PREFERENCE, TALK, "another layout than most (messages)"),
]


@pytest.mark.parametrize(("method", "code", "good", "bad", "text"), BAD)
def test_a_bad_row_is_an_error_and_named(
    method: str, code: str, good: dict[str, Any], bad: dict[str, Any], text: str
) -> None:
    done = run([good, bad, good], method)
    assert (code, "error") in codes(done)
    assert text in next(finding.what for finding in done.findings if finding.code == code)
    assert (len(done.rows), done.dropped, done.places) == (2, 1, [1, 3])
    assert [(place, problem.code) for place, problem in done.rejected] == [(2, code)]
    dropped = run([good, bad, good], method, "drop")
    assert ("D014", "warning") in codes(dropped)
    assert not [code for code, severity in codes(dropped) if severity == "error"]


@pytest.mark.parametrize(("method", "good"), [(method, good) for method, _, good, _, _ in BAD])
def test_good_rows_give_no_finding(method: str, good: dict[str, Any]) -> None:
    assert run([good], method).findings == []


def test_d017_rows_of_another_layout_that_the_method_can_use_are_read_by_it() -> None:
    rows = [TALK, TALK, {"instruction": "x", "output": "y"}, {"prompt": "p", "completion": "q"}]
    done = run(rows)
    assert done.rows[2:] == [
        {"prompt": [said("user", "x")], "completion": [said("assistant", "y")]},
        {"prompt": [said("user", "p")], "completion": [said("assistant", "q")]},
    ]
    assert ("D017", "warning") in codes(done)
    found = next(finding.what for finding in done.findings if finding.code == "D017")
    assert "Most rows are messages" in found
    assert "alpaca in 1 row (25.0%; row 3)" in found
    assert "prompt-completion in 1 row (25.0%; row 4)" in found


def test_d017_mixed_rows_with_several_answers_are_all_messages() -> None:
    done = run([{"messages": [ASK, REPLY, ASK, REPLY]}] * 2 + [{"instruction": "x", "output": "y"}])
    assert (done.layout, done.loss_on) == ("messages", "assistant")
    assert done.rows[2] == {"messages": [said("user", "x"), said("assistant", "y")]}


def test_d019_a_filter_keeps_rows_with_a_value_and_says_how_many_are_left_out() -> None:
    rows = [{**TALK, "label": True}, {**TALK, "label": False}, {"messages": [ASK, WORSE], "label": True}]
    done = run(rows, filter={"label": True})
    assert done.rows == [{"prompt": [ASK], "completion": [REPLY]}, {"prompt": [ASK], "completion": [WORSE]}]
    assert codes(done) == [("D019", "note")]
    assert done.findings[0].what == "1 of 3 rows is left out by the recipe's filter (label: true)."
    assert (done.places, done.dropped, done.filtered) == ([1, 3], 0, 1)


@pytest.mark.parametrize(("value", "wanted"), [("true", True), ("1", 1), (1, 1), ("x", "x"), (1.0, 1)])
def test_a_filter_compares_text_of_csv_with_what_is_meant(value: Any, wanted: Any) -> None:
    rows = [{"text": "a", "meta": {"kind": value}}, {"text": "b", "meta": {"kind": "other"}}]
    assert run(rows, filter={"meta.kind": wanted}).rows == [{"text": "a"}]


def test_a_filter_that_keeps_everything_says_nothing() -> None:
    assert run([{"text": "a", "kind": 1}], filter={"kind": 1}).findings == []


def test_a_filter_by_a_column_that_isnt_there_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'lable', which isn't there") as caught:
        run([{"text": "a", "label": 1}], mapping={"text": "text"}, filter={"lable": 1})
    assert caught.value.fix == "Did you mean 'label'?"


def test_d002_a_filter_that_keeps_nothing() -> None:
    with pytest.raises(FindingsError) as caught:
        run([{"text": "a", "kind": 1}], filter={"kind": 2})
    assert [finding.code for finding in caught.value.findings] == ["D002"]


def test_rows_that_cant_be_parsed_count_among_the_bad_ones() -> None:
    broken = [(9, BadRowError("D001", "line", "Expecting value"))]
    done = run([TALK], rejected=broken)
    assert codes(done) == [("D001", "error")]
    assert (done.dropped, done.rejected) == (1, broken)
    done = run([TALK], bad_rows="drop", rejected=broken)
    assert codes(done) == [("D014", "warning")]
    assert done.findings[0].what.startswith("1 of 2 rows was dropped")
    assert "D001" in done.findings[0].what


def test_d004_a_method_that_cant_train_on_the_layout() -> None:
    with pytest.raises(FindingsError) as caught:
        run([TALK], "dpo")
    assert [finding.code for finding in caught.value.findings] == ["D004"]
    assert "these rows are conversations" in caught.value.findings[0].what


GLAIVE = {
    "system": 'SYSTEM: You may call: -\n{"name": "f", "parameters": {"x": 1}}\n\n{"name": "g"}\n',
    "chat": (
        'USER: Rate?\n\n\nASSISTANT: One moment. <functioncall> {"name": "f", "arguments": \'{"x": "it\\\\\'s"}\'} '
        '<|endoftext|>\n\n\nFUNCTION RESPONSE: {"rate": 2}\n\n\nASSISTANT: It is 2.\n\nAnything else? <|endoftext|>\n'
    ),
}


def test_glaive_becomes_messages_with_calls_and_tools() -> None:
    plain = {**GLAIVE, "chat": str(GLAIVE["chat"]).replace("it\\\\'s", "y")}
    done = run([plain])
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": "y"}}}
    assert done.rows[0]["messages"] == [
        said("system", "You may call: -"),
        said("user", "Rate?"),
        said("assistant", "One moment.", tool_calls=[call]),
        said("tool", '{"rate": 2}'),
        said("assistant", "It is 2.\n\nAnything else?"),
    ]
    assert json.loads(done.rows[0]["tools"]) == [
        {"type": "function", "function": {"name": "f", "parameters": {"x": 1}}},
        {"type": "function", "function": {"name": "g"}},
    ]


def test_a_call_that_cant_be_parsed_stays_text() -> None:
    row = {"chat": "USER: a\n\n\nASSISTANT: <functioncall> f(1)"}
    assert run([row]).rows[0]["completion"] == [said("assistant", "<functioncall> f(1)")]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda text: text.strip())


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), st.sampled_from(["role", "from", "pairs", "parts"]))
def test_converting_keeps_every_character_of_every_message(talk: list[tuple[str, str]], spelling: str) -> None:
    texts = [text for pair in talk for text in pair]
    turns: list[Any]
    if spelling == "pairs":
        turns = [{"input": question, "output": answer} for question, answer in talk]
    elif spelling == "from":
        turns = [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]
    else:
        given_as = (lambda text: [{"type": "text", "value": text}]) if spelling == "parts" else str
        turns = [said(("user", "assistant")[index % 2], given_as(text)) for index, text in enumerate(texts)]
    row = run([{"conversation": turns}]).rows[0]
    messages = row.get("messages") or row["prompt"] + row["completion"]
    assert [message["content"] for message in messages] == texts


@given(TEXT, TEXT, TEXT)
def test_preferences_and_marks_keep_every_character(prompt: str, chosen: str, rejected: str) -> None:
    assume(chosen.strip() != rejected.strip())
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    assert run([row], "dpo").rows == [row]
    marked = {"prompt": prompt, "completion": chosen, "label": True}
    assert run([marked], "kto").rows == [marked]
    implicit = run([{"chosen": f"{prompt}x{chosen}", "rejected": f"{prompt}y{rejected}"}], "dpo").rows[0]
    assert implicit["prompt"] + implicit["chosen"] == f"{prompt}x{chosen}"
    assert implicit["prompt"] + implicit["rejected"] == f"{prompt}y{rejected}"


def test_references_may_be_lists_of_texts() -> None:
    rows: Rows = [{"prompt": [ASK], "reference": ["x", "y"]}, {"prompt": [ASK], "reference": []}]
    assert as_dataset(rows).to_list() == rows
    called = {**ASK, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    rows = [{"prompt": [called, ASK], "reference": ["x"]}]
    assert as_dataset(rows).to_list() == rows


def test_the_rows_of_a_mixed_file_make_one_dataset(tmp_path: Path) -> None:
    talk = [said("user", "Hi"), said("assistant", "Hello")]
    tools = [{"type": "function", "function": {"name": "f"}}]
    sharegpt = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
    rows = [{"messages": talk, "tools": tools}, {"prompt": "Hi", "completion": "Hello"}, sharegpt] * 3
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = training_rows(str(path))
    assert [row["messages"] for row in made] == [talk] * 9
    assert {name for row in made for name in row} == {"messages", "tools"}
    assert as_dataset(made).column_names == ["messages", "tools"]
