"""From raw rows to TRL's layouts, and the rows that can't be trained on."""

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.prepare import Prepared, count_duplicates, prepare
from tunesmith.data.sources import RawData
from tunesmith.errors import UsageError
from tunesmith.recipe.schema import Mapping
from tunesmith.rules import FindingsError

Rows = list[dict[str, Any]]


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ASK, REPLY = said("user", "a"), said("assistant", "b")
GOOD = {"messages": [ASK, REPLY]}
CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"id": 7}}}


def run(
    rows: Rows,
    bad_rows: Literal["error", "drop"] = "error",
    *,
    marks: bool = True,
    mapping: Mapping | None = None,
    conversational: bool = False,
    **more: Any,
) -> Prepared:
    raw = RawData("x.jsonl", [], rows, [10 * (index + 1) for index in range(len(rows))])
    return prepare(raw, mapping or Mapping(), bad_rows, generation_marks=marks, conversational=conversational)


def test_one_answer_becomes_prompt_and_completion() -> None:
    system = said("system", "s")
    done = run([{"messages": [system, ASK, REPLY], "id": 3}, GOOD])
    assert (done.layout, done.loss_on) == ("prompt-completion", "completion")
    assert done.rows == [{"prompt": [system, ASK], "completion": [REPLY]}, {"prompt": [ASK], "completion": [REPLY]}]
    assert (done.places, done.dropped, done.duplicates, done.findings) == ([10, 20], 0, 0, [])


def test_several_answers_stay_messages_where_the_template_marks_them() -> None:
    rows = [{"messages": [ASK, REPLY, said("user", "c"), said("assistant", "d")]}, GOOD]
    done = run(rows)
    assert (done.layout, done.loss_on, done.rows, done.findings) == ("messages", "assistant", rows, [])


def test_d015_several_answers_without_marks_are_trained_on_the_last() -> None:
    talk = [ASK, REPLY, said("user", "c"), said("assistant", "d")]
    done = run([{"messages": talk}, GOOD], marks=False)
    assert (done.layout, done.loss_on) == ("prompt-completion", "completion")
    assert done.rows[0] == {"prompt": talk[:3], "completion": talk[3:]}
    assert [(finding.code, finding.severity) for finding in done.findings] == [("D015", "note")]
    assert done.findings[0].what.startswith("1 conversation")


def test_alpaca_becomes_a_conversation() -> None:
    row = {"instruction": "Add.", "input": "1 and 2", "output": "3", "system": "s", "history": [["q", "r"]], "id": 1}
    plain = {"instruction": "Greet.", "input": "", "output": "Hi", "system": None, "history": None}
    done = run([row, plain])
    assert (done.layout, done.loss_on) == ("prompt-completion", "completion")
    assert done.rows[0] == {
        "prompt": [said("system", "s"), said("user", "q"), said("assistant", "r"), said("user", "Add.\n\n1 and 2")],
        "completion": [said("assistant", "3")],
    }
    assert done.rows[1] == {"prompt": [said("user", "Greet.")], "completion": [said("assistant", "Hi")]}


def test_alpaca_with_an_empty_instruction_asks_its_input() -> None:
    done = run([{"instruction": " ", "input": "1 and 2", "output": "3"}])
    assert done.rows[0]["prompt"] == [said("user", "1 and 2")]


def test_sharegpt_is_spelled_as_roles() -> None:
    talk = [{"from": "System", "value": "s"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    assert run([{"conversations": talk}]).rows == [{"prompt": [said("system", "s"), ASK], "completion": [REPLY]}]


def test_sharegpt_tool_calls_become_calls() -> None:
    call = '{"name": "look_up", "arguments": {"id": 7}}'
    talk = [("human", "a"), ("function_call", call), ("observation", "found"), ("gpt", "b")]
    row = {"conversations": [{"from": who, "value": what} for who, what in talk], "tools": '[{"name": "look_up"}]'}
    done = run([row])
    assert done.layout == "messages"
    assert done.rows[0]["messages"] == [ASK, said("assistant", "", tool_calls=[CALL]), said("tool", "found"), REPLY]
    assert done.rows[0]["tools"] == '[{"type": "function", "function": {"name": "look_up"}}]'


def test_xtuner_exchanges_become_messages() -> None:
    talk = [{"system": "s", "input": "a", "output": "b"}, {"input": "c", "output": "d"}]
    done = run([{"conversation": talk}])
    assert done.rows[0]["messages"] == [said("system", "s"), ASK, REPLY, said("user", "c"), said("assistant", "d")]


def test_messages_keep_what_templates_read_and_nothing_else() -> None:
    rich = said("assistant", None, tool_calls=[CALL], reasoning_content="hm", name=None, weight=1, id="m1")
    answer = said("tool", "found", tool_call_id="7", name="look_up")
    done = run([{"messages": [ASK, rich, answer, REPLY]}])
    assert done.rows[0]["messages"][1] == said("assistant", "", tool_calls=[CALL], reasoning_content="hm")
    assert done.rows[0]["messages"][2] == answer


def test_tools_are_kept_as_json_text() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"x": 1}}}]
    rows = [{"messages": [ASK, REPLY], "tools": given} for given in (tools, None, [], "", "[]")]
    done = run(rows)
    assert done.rows[0]["tools"] == '[{"type": "function", "function": {"name": "f", "parameters": {"x": 1}}}]'
    assert all("tools" not in row for row in done.rows[1:])


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "!"}]
    assert run([{"messages": [said("user", parts), REPLY]}]).rows[0]["prompt"] == [said("user", "a!")]


def test_prompt_and_completion_as_text_stay_text() -> None:
    rows = [{"prompt": "a", "completion": "b", "more": 1}]
    done = run(rows)
    assert (done.rows, done.layout, done.loss_on) == (
        [{"prompt": "a", "completion": "b"}],
        "prompt-completion",
        "completion",
    )


def test_prompt_and_completion_become_messages_when_asked_or_needed() -> None:
    chat = {"prompt": [ASK], "completion": [REPLY]}
    text = {"prompt": "a", "completion": "b"}
    assert run([text], conversational=True).rows == [chat]
    assert run([text, chat]).rows == [chat, chat]
    with_system = run([{**text, "rules": "s"}], mapping=Mapping(prompt="prompt", system="rules")).rows
    assert with_system == [{"prompt": [said("system", "s"), ASK], "completion": [REPLY]}]


def test_text_is_trained_whole() -> None:
    done = run([{"text": "t", "url": "u"}])
    assert (done.rows, done.layout, done.loss_on) == ([{"text": "t"}], "text", "all")


def test_mapped_columns_are_read() -> None:
    mapping = Mapping(prompt="question", completion="answer")
    assert run([{"question": "a", "answer": "b"}], mapping=mapping).rows == [{"prompt": "a", "completion": "b"}]


def test_a_system_column_doesnt_replace_a_system_message() -> None:
    own = said("system", "own")
    done = run([{"messages": [own, ASK, REPLY], "system": "other"}, {**GOOD, "system": "s"}])
    assert [row["prompt"][0]["content"] for row in done.rows] == ["own", "s"]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("D005", {"messages": None}, "1 row has null in messages (row 20)."),
    ("D005", {}, "1 row has null in messages (row 20)."),
    ("D005", {"messages": [said("user", None), REPLY]}, "null in messages[].content"),
    ("D005", {"messages": [None, REPLY]}, "null in messages[]"),
    ("D006", {"messages": []}, "1 row has no messages (row 20)."),
    ("D006", {"messages": [REPLY]}, "1 row has no message before the answer (row 20)."),
    ("D007", {"messages": [said("narrator", "x"), REPLY]}, "tool: narrator (row 20)."),
    ("D007", {"messages": [{"content": "x"}, REPLY]}, "tool: none (row 20)."),
    ("D008", {"messages": [ASK, REPLY, ASK]}, "1 conversation doesn't end with an assistant message (row 20)."),
    ("D012", {"messages": [ASK, said("assistant", " \n")]}, "1 row has an empty answer (row 20)."),
    ("D013", {"messages": "a"}, "1 row has text in messages, which can't be used there"),
    ("D013", {"messages": [said("user", 3), REPLY]}, "number in messages[].content"),
    ("D013", {"messages": ["a", "b"]}, "text in messages[]"),
    ("D013", {"messages": [said("user", [{"type": "image"}]), REPLY]}, "parts of type image in messages[].content"),
    ("D013", {"messages": [ASK, {"from": "function_call", "value": "f(1)"}, REPLY]}, "other than a JSON call"),
    ("D013", {"messages": [ASK, REPLY], "tools": "{oops"}, "text that isn't JSON in tools"),
    ("D016", {"messages": [ASK, said("assistant", "b", weight=0)]}, "1 row marks an answer not to be trained"),
    ("D016", {"messages": [ASK, said("assistant", "x", weight=0.0), ASK, REPLY]}, "built yet (row 20)."),
]
BAD_PAIRS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("D005", {"text": "x"}, {"text": None}, "null in text"),
    ("D012", {"text": "x"}, {"text": " "}, "an empty text"),
    ("D013", {"text": "x"}, {"text": 5}, "number in text"),
    ("D005", {"prompt": "a", "completion": "b"}, {"prompt": None, "completion": "b"}, "null in prompt"),
    ("D012", {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}, "an empty completion"),
    ("D013", {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": 1.0}, "number in completion"),
    ("D005", {"instruction": "a", "output": "b"}, {"instruction": None, "output": "b"}, "null in instruction"),
    ("D012", {"instruction": "a", "output": "b"}, {"instruction": "a", "output": ""}, "an empty output"),
    ("D013", {"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b", "history": ["x"]}, "in history"),
    ("D013", {"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b", "input": 3}, "number in input"),
    ("D007", {"prompt": [ASK], "completion": [REPLY]}, {"prompt": [ASK], "completion": [ASK, REPLY]}, "user inside"),
    (
        "D008",
        {"prompt": [ASK], "completion": [REPLY]},
        {"prompt": [ASK], "completion": [REPLY, said("tool", "x")]},
        "end",
    ),
    ("D006", {"prompt": [ASK], "completion": [REPLY]}, {"prompt": [], "completion": [REPLY]}, "no messages"),
]
ALL_BAD = [(code, GOOD, row, text) for code, row, text in BAD] + BAD_PAIRS


@pytest.mark.parametrize(("code", "good", "bad", "text"), ALL_BAD)
def test_a_bad_row_is_an_error_and_named(code: str, good: dict[str, Any], bad: dict[str, Any], text: str) -> None:
    done = run([good, bad])
    assert [(finding.code, finding.severity, finding.where) for finding in done.findings] == [
        (code, "error", "x.jsonl")
    ]
    assert text in done.findings[0].what
    assert (len(done.rows), done.dropped, done.places) == (1, 1, [10])


@pytest.mark.parametrize(("code", "good", "bad", "text"), ALL_BAD)
def test_d014_a_bad_row_is_dropped_when_the_recipe_says_so(
    code: str, good: dict[str, Any], bad: dict[str, Any], text: str
) -> None:
    done = run([bad, good], "drop")
    assert [(finding.code, finding.severity) for finding in done.findings] == [("D014", "warning")]
    assert done.findings[0].what.startswith("1 of 2 rows was dropped")
    assert f"{code}: " in done.findings[0].what
    assert (len(done.rows), done.dropped, done.places) == (1, 1, [20])


@pytest.mark.parametrize(("good", "bad_rows"), [(row, how) for _, row, _, _ in ALL_BAD for how in ("error", "drop")])
def test_good_rows_give_no_finding(good: dict[str, Any], bad_rows: Literal["error", "drop"]) -> None:
    assert run([good], bad_rows).findings == []


def test_rows_with_the_same_fault_are_one_finding() -> None:
    rows = [GOOD, *[{"messages": []}] * 8, {"messages": [said("x", "a"), REPLY]}, {"messages": [said("y", "a"), REPLY]}]
    found = {finding.code: finding.what for finding in run(rows).findings}
    assert found["D006"] == "8 rows have no messages (rows 20, 30, 40, 50, 60 and 3 more)."
    assert found["D007"].endswith("tool: x, y (rows 100, 110).")


TALK = {"messages": [ASK, REPLY, said("user", "c"), said("assistant", "d")]}
PAIR = {"prompt": [ASK], "completion": [REPLY]}


def alike(train: Rows, other: Rows) -> Prepared:
    raw = RawData("test.jsonl", [], other, list(range(1, len(other) + 1)))
    return prepare(raw, Mapping(), "error", generation_marks=True, like=run(train))


def test_a_second_file_gets_the_layout_of_the_training_rows() -> None:
    done = alike([TALK], [GOOD])
    assert (done.layout, done.loss_on, done.rows) == ("messages", "assistant", [GOOD])
    assert alike([TALK], [PAIR]).rows == [GOOD]
    done = alike([GOOD], [TALK])
    assert (done.layout, done.loss_on) == ("prompt-completion", "completion")
    assert done.rows == [{"prompt": TALK["messages"][:3], "completion": TALK["messages"][3:]}]
    assert [finding.code for finding in done.findings] == ["D015"]
    assert alike([GOOD], [GOOD]).findings == []
    assert alike([PAIR], [{"prompt": "a", "completion": "b"}]).rows == [PAIR]
    assert alike([{"text": "x"}], [{"text": "y"}]).rows == [{"text": "y"}]


@pytest.mark.parametrize(
    ("train", "other"),
    [
        ({"text": "x"}, GOOD),
        (GOOD, {"text": "x"}),
        ({"prompt": "a", "completion": "b"}, PAIR),
        ({"prompt": "a", "completion": "b"}, {"text": "x"}),
        ({"text": "x"}, {"prompt": "a", "completion": "b"}),
    ],
)
def test_a_second_file_of_another_layout_is_refused(train: dict[str, Any], other: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"test\.jsonl can't be laid out"):
        alike([train], [other])


def test_a_weight_that_changes_nothing_is_left_out() -> None:
    done = run([{"messages": [{**ASK, "weight": 0}, {**REPLY, "weight": 1}]}])
    assert (done.rows, done.findings) == ([{"prompt": [ASK], "completion": [REPLY]}], [])


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_kept(key: str) -> None:
    thought = {**REPLY, key: "hm"}
    assert run([{"messages": [ASK, thought]}]).rows == [{"prompt": [ASK], "completion": [thought]}]


@pytest.mark.parametrize("bad_rows", ["error", "drop"])
def test_d002_no_usable_row_is_left_and_the_reason_comes_first(bad_rows: Literal["error", "drop"]) -> None:
    with pytest.raises(FindingsError) as caught:
        run([{"messages": [ASK, REPLY, ASK]}, {"messages": [REPLY]}], bad_rows)
    assert [finding.code for finding in caught.value.findings] == ["D006", "D008", "D002"]
    assert caught.value.what.startswith("D006 x.jsonl: 1 row has no message before the answer")
    assert caught.value.findings[-1].what == "The file has no rows that can be trained on."


def test_d004_an_unknown_layout_is_refused() -> None:
    with pytest.raises(FindingsError) as caught:
        run([{"question": "a", "answer": "b"}])
    assert caught.value.findings[0].code == "D004"


def test_d009_duplicates() -> None:
    done = run([GOOD, {**GOOD, "id": 2}, {"messages": [ASK, said("assistant", "c")]}])
    assert [finding.code for finding in done.findings] == ["D009"]
    assert done.findings[0].what == "1 of 3 rows repeats an earlier row exactly."
    assert (done.duplicates, len(done.rows)) == (1, 3)


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.text(st.characters(exclude_categories=["Cs"]), max_size=2))))
def test_duplicates_are_counted_as_by_comparison(rows: Rows) -> None:
    assert count_duplicates(rows) == sum(row in rows[:index] for index, row in enumerate(rows))


TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool", "human", "gpt", "?"]),
        "content": st.text(max_size=3) | st.none(),
    }
)


@given(st.lists(st.fixed_dictionaries({"messages": st.lists(TURN, max_size=4)}), min_size=1, max_size=6), st.booleans())
def test_what_is_prepared_can_be_trained_on(rows: Rows, marks: bool) -> None:
    try:
        done = run([{"messages": [ASK, REPLY]}, *rows], "drop", marks=marks)
    except FindingsError as refusal:
        pytest.fail(str(refusal))
    assert len(done.rows) + done.dropped == len(rows) + 1
    assert len(done.places) == len(done.rows)
    for row in done.rows:
        talk = row["messages"] if done.layout == "messages" else row["prompt"] + row["completion"]
        assert {message["role"] for message in talk} <= {"system", "user", "assistant", "tool"}
        assert talk[-1]["role"] == "assistant"
        assert talk[-1]["content"].strip()
        assert len(talk) > 1
        assert all(isinstance(message["content"], str) for message in talk)
