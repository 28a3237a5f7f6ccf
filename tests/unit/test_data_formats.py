"""Layouts of the world, and the verdict on each."""

from typing import Any

import pytest

from tunesmith.data.columns import describe, profile, shorten
from tunesmith.data.formats import detect, unusable
from tunesmith.errors import UsageError
from tunesmith.recipe.schema import Mapping

CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
XTUNER = [{"system": "s", "input": "a", "output": "b"}]
NONE = Mapping()


@pytest.mark.parametrize(
    ("row", "layout", "columns"),
    [
        ({"messages": CHAT}, "messages", {"messages": "messages"}),
        ({"id": 1, "conversations": SHAREGPT}, "messages", {"messages": "conversations"}),
        (
            {"conversations": SHAREGPT, "system": "s", "tools": "[]"},
            "messages",
            {"messages": "conversations", "system": "system", "tools": "tools"},
        ),
        ({"conversation": XTUNER}, "messages", {"messages": "conversation"}),
        ({"thread": CHAT, "topic": "x"}, "messages", {"messages": "thread"}),
        ({"prompt": "a", "prompt_id": "1", "messages": CHAT}, "messages", {"messages": "messages"}),
        ({"prompt": "a", "completion": "b"}, "prompt-completion", {"prompt": "prompt", "completion": "completion"}),
        (
            {"prompt": CHAT[:1], "completion": CHAT[1:]},
            "prompt-completion",
            {"prompt": "prompt", "completion": "completion"},
        ),
        ({"instruction": "a", "output": "b"}, "alpaca", {"instruction": "instruction", "output": "output"}),
        (
            {"instruction": "a", "input": "", "output": "b", "text": "c"},
            "alpaca",
            {"instruction": "instruction", "input": "input", "output": "output"},
        ),
        (
            {"instruction": "a", "output": "b", "system": "s", "history": []},
            "alpaca",
            {"instruction": "instruction", "output": "output", "history": "history", "system": "system"},
        ),
        ({"text": "a", "url": "b"}, "text", {"text": "text"}),
    ],
)
def test_layouts_that_are_trained_on_as_they_are(row: dict[str, Any], layout: str, columns: dict[str, str]) -> None:
    found = detect([row], NONE)
    assert (found.layout, found.columns, found.verdict.status) == (layout, columns, "READY")
    assert unusable(found, "x") is None


@pytest.mark.parametrize(
    ("row", "mapping", "said"),
    [
        (
            {"question": "a", "answer": "b"},
            {"prompt": "question", "completion": "answer"},
            "question looks like the prompt",
        ),
        (
            {"prompt": "a", "response": "b"},
            {"prompt": "prompt", "completion": "response"},
            "response like the completion",
        ),
        ({"Input": "a", "Output": "b"}, {"prompt": "Input", "completion": "Output"}, "Input"),
        (
            {"instruction": "a", "context": "c", "response": "b"},
            {"prompt": "instruction", "completion": "response"},
            "Not trained on: context",
        ),
        (
            {"system_prompt": "s", "question": "a", "response": "b"},
            {"prompt": "question", "completion": "response", "system": "system_prompt"},
            "",
        ),
        (
            {"question": "a", "answer": "b", "text": "c"},
            {"prompt": "question", "completion": "answer"},
            "Not trained on: text",
        ),
        ({"prompt": CHAT}, {"messages": "prompt"}, "whole conversations"),
        ({"prompt": "a", "response": "b", "answer": "c"}, None, "choose one each"),
        ({"first": CHAT, "second": CHAT}, None, "Several columns hold conversations: first, second"),
    ],
)
def test_columns_that_need_a_mapping(row: dict[str, Any], mapping: dict[str, str] | None, said: str) -> None:
    found = detect([row], NONE)
    assert (found.layout, found.verdict.status, found.verdict.mapping) == ("unknown", "NEEDS MAPPING", mapping)
    assert said in found.verdict.reason
    if mapping:
        assert detect([row], Mapping(**mapping)).verdict.status == "READY"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "made for dpo or reward"),
        ({"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": SHAREGPT[1]}, "made for dpo or reward"),
        ({"messages": CHAT, "label": True}, "made for kto"),
        ({"prompt": "a", "completion": "b", "label": "False"}, "made for kto"),
        ({"messages": CHAT, "kto_tag": 0}, "made for kto"),
        ({"prompt": "a", "completions": ["b"], "labels": [True]}, "process reward"),
        (
            {"prompt": CHAT[:1], "reward_model": {"ground_truth": "72"}},
            "made for grpo or rloo, rewarded against reward_model",
        ),
        ({"prompt": "a"}, "made for grpo or rloo."),
        ({"query": "a", "choices": ["b", "c"], "gold": 1}, "no column holds the answer as text"),
        ({"text": "a", "label": 3}, "Texts with classes"),
        ({"messages": '[{"role": "user"}]'}, "messages is text, not a list"),
        ({"x": 1, "y": 2}, "No column looks like"),
    ],
)
def test_data_that_sft_cant_train_on_says_what_it_is_for(row: dict[str, Any], said: str) -> None:
    found = detect([row], NONE)
    assert (found.layout, found.verdict.status) == ("unknown", "INCOMPATIBLE")
    assert said in found.verdict.reason


def test_the_reason_tells_of_a_conversion() -> None:
    assert detect([{"messages": CHAT}], NONE).verdict.reason == "Conversations in the column messages."
    reason = detect([{"dialog": SHAREGPT}], NONE).verdict.reason
    assert reason == "Conversations in the column dialog (from, value), converted to role and content."


def test_a_label_that_isnt_good_or_bad_is_no_kto() -> None:
    assert detect([{"messages": CHAT, "label": "billing"}], NONE).verdict.status == "READY"


def test_all_rows_count_not_only_the_first() -> None:
    assert detect([{"id": 1}, {"id": 2, "messages": CHAT}], NONE).layout == "messages"
    assert detect([{"messages": []}, {"messages": CHAT}], NONE).layout == "messages"


@pytest.mark.parametrize(
    ("mapping", "layout", "columns"),
    [
        ({"messages": "thread"}, "messages", {"messages": "thread"}),
        ({"text": "body"}, "text", {"text": "body"}),
        ({"prompt": "body", "completion": "note"}, "prompt-completion", {"prompt": "body", "completion": "note"}),
        ({"completion": "note"}, "prompt-completion", {"prompt": "prompt", "completion": "note"}),
        (
            {"completion": "note", "system": "body"},
            "prompt-completion",
            {"prompt": "prompt", "completion": "note", "system": "body"},
        ),
    ],
)
def test_the_mapping_goes_before_what_columns_look_like(
    mapping: dict[str, str], layout: str, columns: dict[str, str]
) -> None:
    row = {"prompt": "p", "body": "b", "note": "n", "thread": CHAT, "chosen": "c", "rejected": "r"}
    found = detect([row], Mapping(**mapping))
    assert (found.layout, found.columns, found.verdict.status) == (layout, columns, "READY")


def test_half_a_mapping_is_incompatible() -> None:
    assert "no column for completion" in detect([{"a": "x", "b": "y"}], Mapping(prompt="a")).verdict.reason
    assert "no column for prompt" in detect([{"a": "x", "b": "y"}], Mapping(completion="a")).verdict.reason


def test_a_mapping_to_a_column_that_isnt_there_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'anwser', which isn't there") as caught:
        detect([{"question": "a", "answer": "b"}], Mapping(prompt="question", completion="anwser"))
    assert caught.value.fix == "Did you mean 'answer'?"


@pytest.mark.parametrize(
    "mapping", [{"messages": "a", "prompt": "b"}, {"text": "a", "messages": "b"}, {"text": "a", "system": "b"}]
)
def test_a_mapping_with_roles_that_exclude_each_other(mapping: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        detect([{"a": "x", "b": "y"}], Mapping(**mapping))


def test_d004_gives_the_mapping_to_write() -> None:
    found = unusable(detect([{"question": "a", "answer": "b"}], NONE), "x.jsonl")
    assert found is not None
    assert (found.code, found.severity, found.where) == ("D004", "error", "x.jsonl")
    assert "`data: {mapping: {prompt: question, completion: answer}}`" in found.fix
    assert "The columns are question, answer." in found.what


def test_columns_are_described_over_all_rows() -> None:
    rows = [{"a": None, "b": 1, "e": None}, {"a": "x", "b": "y", "c": {"k": 1}}, {"a": "z", "d": True}]
    described = {column.name: (column.type, column.nulls, column.example) for column in describe(profile(rows), 3)}
    assert described == {
        "a": ("text", 1, "x"),
        "b": ("mixed", 1, "1"),
        "e": ("null", 3, ""),
        "c": ("object", 2, '{"k": 1}'),
        "d": ("boolean", 2, "true"),
    }


def test_examples_are_one_short_line_without_control_characters() -> None:
    assert shorten("a\x1b[31mred\x07\n\tb\u202e c") == "a [31mred b c"
    long = shorten("word " * 100)
    assert len(long) == 60
    assert long.endswith("…")
    assert shorten("x" * 60) == "x" * 60
    assert shorten(" " * 500 + "x").endswith("…")
