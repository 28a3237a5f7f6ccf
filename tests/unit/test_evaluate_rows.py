"""Held-out rows: which are taken, what is trained in them, what is asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import SMALL, make_plan, write_split
from tunesmith.errors import UsageError
from tunesmith.evaluate.rows import Encoded, Row, encode, encode_question, held_out, questions
from tunesmith.models.load import load_tokenizer
from tunesmith.rules import FindingsError

USER = {"role": "user", "content": "Which colour?"}
RED = {"role": "assistant", "content": "red"}
AGAIN = {"role": "user", "content": "And now?"}
BLUE = {"role": "assistant", "content": "blue"}
PAIR = {"prompt": [USER], "completion": [RED]}
PLAIN = {"prompt": "Which colour? ", "completion": "red"}
CHAT = {"messages": [USER, RED, AGAIN, BLUE]}
TEXT = {"text": "the colour is red"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(SMALL)


def encoded(folder: Path, tokenizer: Any, content: dict[str, Any], **training: Any) -> Encoded:
    plan = make_plan(folder, [content])
    plan = plan.model_copy(update={"training": plan.training | training})
    (row,) = encode([Row(1, content)], tokenizer, plan).values()
    return row


def trained_text(tokenizer: Any, row: Encoded) -> str:
    return str(tokenizer.decode([token for token, on in zip(row.ids, row.trained, strict=True) if on]))


@pytest.mark.parametrize(
    ("content", "trained"),
    [
        (PAIR, "red<|im_end|>\n"),
        (PLAIN, "red<|im_end|>"),
        (CHAT, "red<|im_end|>blue<|im_end|>"),
        (TEXT, "the colour is red<|im_end|>"),
    ],
    ids=["pair", "plain", "chat", "text"],
)
def test_loss_is_on_the_answer_and_its_stop_token(
    tmp_path: Path, tokenizer: Any, content: dict[str, Any], trained: str
) -> None:
    assert trained_text(tokenizer, encoded(tmp_path, tokenizer, content)) == trained


def test_loss_is_on_all_tokens_where_the_plan_says_so(tmp_path: Path, tokenizer: Any) -> None:
    assert all(encoded(tmp_path, tokenizer, PAIR, completion_only_loss=False).trained)


@pytest.mark.parametrize(("mode", "kept"), [("keep_start", slice(3)), ("keep_end", slice(-3, None))])
def test_rows_are_cut_as_the_trainer_cuts_them(tmp_path: Path, tokenizer: Any, mode: str, kept: slice) -> None:
    whole = encoded(tmp_path, tokenizer, TEXT)
    assert encoded(tmp_path, tokenizer, TEXT, max_length=3, truncation_mode=mode).ids == whole.ids[kept]


def test_rows_are_never_packed_and_keep_their_order(tmp_path: Path, tokenizer: Any) -> None:
    rows = [Row(number, {"text": f"row {number}"}) for number in range(1, 6)]
    plan = make_plan(tmp_path, [TEXT], training={"max_length": 64, "packing": True, "shuffle_dataset": True})
    texts = [trained_text(tokenizer, row) for row in encode(rows, tokenizer, plan).values()]
    assert texts == [f"row {number}<|im_end|>" for number in range(1, 6)]


def test_rows_with_nothing_to_take_a_loss_on_are_dropped(tmp_path: Path, tokenizer: Any) -> None:
    plan = make_plan(tmp_path, [PAIR], training={"max_length": 4})
    assert encode([Row(1, PAIR)], tokenizer, plan) == {}
    # One token, trained, but with none before it to predict it from.
    assert encode([Row(1, {"text": ""})], tokenizer, make_plan(tmp_path, [TEXT])) == {}


def test_first_token_has_nothing_to_be_predicted_from() -> None:
    assert Encoded([5, 6, 7, 8], [True, False, True, True]).positions == [2, 3]


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (PAIR, ("Which colour?", "<|im_start|>user\nWhich colour?<|im_end|>\n<|im_start|>assistant\n", "red")),
        (PLAIN, ("Which colour? ", "Which colour? ", "red")),
        (
            CHAT,
            (
                "user: Which colour?\nassistant: red\nuser: And now?",
                "<|im_start|>user\nWhich colour?<|im_end|>\n<|im_start|>assistant\nred<|im_end|>\n"
                "<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n",
                "blue",
            ),
        ),
    ],
    ids=["pair", "plain", "chat"],
)
def test_question_ends_where_the_last_answer_begins(
    tokenizer: Any, content: dict[str, Any], asked: tuple[str, str, str]
) -> None:
    (question,) = questions([Row(7, content)])
    assert question.row == 7
    assert (question.prompt, tokenizer.decode(encode_question(question, tokenizer)), question.expected) == asked


def test_text_asks_nothing_and_an_answer_without_words_is_not_expected(tokenizer: Any) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "colour", "arguments": {}}}]}
    (question,) = questions([Row(1, {**TEXT, "prompt": "Paris?"})])
    assert question.prompt == "Paris?"
    asked = questions([Row(1, TEXT), Row(2, {"messages": [USER, call]}), Row(3, CHAT)])
    assert [(one.row, one.expected) for one in asked] == [(2, None), (3, "blue")]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"chosen": "red", "rejected": "blue"}, "red"),
        ({"completion": "red", "label": True}, "red"),
        ({"completion": "red", "label": False}, None),
        ({"reference": "red"}, "red"),
        ({"reference": ["red", "scarlet"]}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("chat", [True, False])
def test_the_answer_expected_is_the_better_one_where_there_is_one(
    tokenizer: Any, columns: dict[str, Any], expected: str | None, chat: bool
) -> None:
    def told(name: str, value: Any) -> Any:
        messages = chat and name not in ("reference", "label")
        return [{"role": "user" if name == "prompt" else "assistant", "content": value}] if messages else value

    row = {name: told(name, value) for name, value in {"prompt": "Which colour?", **columns}.items()}
    (question,) = questions([Row(1, row)])
    assert (question.prompt, question.expected) == ("Which colour?", expected)


def test_settings_of_the_template_are_handed_on() -> None:
    tokenizer = load_tokenizer(SMALL)
    tokenizer.chat_template = "{{ 'think ' if thinking }}{{ messages[0].content }}"
    (question,) = questions([Row(1, PAIR)], thinking=True)
    assert tokenizer.decode(encode_question(question, tokenizer)) == "think Which colour?"


def test_tools_of_a_row_are_shown_to_the_model() -> None:
    tokenizer = load_tokenizer(SMALL)
    tokenizer.chat_template = "{{ tools | tojson if tools else 'none' }}{{ messages[0].content }}"
    shown, without = questions([Row(1, {**PAIR, "tools": '[{"name": "colour"}]'}), Row(2, PAIR)])
    assert tokenizer.decode(encode_question(shown, tokenizer)) == '[{"name": "colour"}]Which colour?'
    assert tokenizer.decode(encode_question(without, tokenizer)) == "noneWhich colour?"


def test_held_out_samples_the_same_rows_every_time_and_keeps_their_numbers(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, [{"text": f"row {number}"} for number in range(1, 31)])
    split, rows = held_out(tmp_path, plan, 5)
    assert split.path == "data/test.jsonl"
    assert rows == held_out(tmp_path, plan, 5)[1]
    assert len(rows) == 5
    assert all(row.content == {"text": f"row {row.number}"} for row in rows)
    numbers = [row.number for row in rows]
    assert numbers == sorted(numbers) != [1, 2, 3, 4, 5]
    assert len(held_out(tmp_path, plan, None)[1]) == 30


def test_held_out_falls_back_on_the_eval_rows(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, [TEXT])
    other = write_split(tmp_path, "eval", [PAIR])
    both = plan.model_copy(update={"eval": other})
    assert held_out(tmp_path, both, None)[1][0].content == TEXT
    assert held_out(tmp_path, both.model_copy(update={"test": None}), None)[1][0].content == PAIR


def test_no_held_out_rows_is_a_usage_error(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, [TEXT])
    with pytest.raises(UsageError, match="no held-out rows"):
        held_out(tmp_path, plan.model_copy(update={"test": None}), None)


def test_changed_rows_are_refused(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, [TEXT])
    (tmp_path / "data" / "test.jsonl").write_text(json.dumps({"text": "other"}) + "\n")
    with pytest.raises(FindingsError, match="R003"):
        held_out(tmp_path, plan, None)
    (tmp_path / "data" / "test.jsonl").unlink()
    with pytest.raises(FindingsError, match="R003"):
        held_out(tmp_path, plan, None)
