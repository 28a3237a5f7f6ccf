"""What exports are compared on."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.runs import make_plan, write_split
from tests.support.tiny import make_tokenizer, rows
from tunesmith.export.probes import LONGEST, NASTY, POSITIONS, ROWS, STRINGS, _spread, encode, held_out, strings

TOKENIZER = make_tokenizer("qwen2")


@given(st.integers(1, 400), st.integers(1, 200))
def test_positions_are_spread_up_to_the_last(length: int, count: int) -> None:
    places = _spread(length, count)
    assert places[-1] == length
    assert places[0] >= 1
    assert len(places) == min(length, count)
    assert places == sorted(set(places))


def test_probe_texts_are_many_and_hold_rows_specials_and_nasty_ones() -> None:
    data = rows(5, 0)
    texts = strings(data, TOKENIZER)
    assert len(texts) == len(set(texts)) == STRINGS
    assert set(NASTY) <= set(texts)
    assert data[3]["completion"][0]["content"] in texts
    assert "a <|im_end|> b" in texts
    assert texts == strings(data, TOKENIZER)


def test_many_rows_leave_room_for_the_nasty_texts() -> None:
    texts = strings([{"text": f"row {number}"} for number in range(2000)], TOKENIZER)
    assert set(NASTY) <= set(texts)
    assert STRINGS <= len(texts) < 2 * STRINGS


def test_chats_are_encoded_as_the_template_renders_them() -> None:
    row = encode(rows(1, 0), TOKENIZER)[0]
    question, answer = rows(1, 0)[0]["prompt"][0]["content"], rows(1, 0)[0]["completion"][0]["content"]
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    assert TOKENIZER.decode(row.prompt) == prompt
    assert TOKENIZER.decode(row.whole) == f"{prompt}{answer}<|im_end|>\n"
    assert row.answer_tokens == len(row.whole) - len(row.prompt)


def test_the_last_message_is_the_answer() -> None:
    chat = rows(1, 0)[0]
    joined: dict[str, Any] = {"messages": chat["prompt"] + chat["completion"]}
    assert encode([joined], TOKENIZER) == encode([chat], TOKENIZER)


def test_texts_are_encoded_with_and_without_a_completion() -> None:
    plain = encode([{"prompt": "red lamp", "completion": " blue chair"}], TOKENIZER)[0]
    assert TOKENIZER.decode(plain.prompt) == "red lamp"
    assert TOKENIZER.decode(plain.whole) == "red lamp blue chair"
    text = encode([{"text": "red lamp blue chair oslo rome"}], TOKENIZER)[0]
    assert text.prompt == text.whole[: len(text.whole) * 3 // 4]


def test_rows_and_positions_are_bounded() -> None:
    encoded = encode([{"text": "lamp " * 1000}] * 20, TOKENIZER)
    assert len(encoded) == ROWS
    assert all(len(row.whole) == LONGEST for row in encoded)
    assert sum(len(row.ends) for row in encoded) == POSITIONS
    assert sum(len(row.ends) for row in encode([{"text": "lamp " * 1000}], TOKENIZER)) == POSITIONS


def test_rows_without_prompt_or_text_are_passed_over() -> None:
    empty: list[dict[str, Any]] = [{"text": ""}, {"messages": [{"role": "assistant", "content": "a"}]}]
    assert encode(empty, TOKENIZER) == []


@pytest.mark.parametrize(
    ("changes", "first"), [({}, "test"), ({"test": None}, "eval"), ({"test": None, "eval": None}, "train")]
)
def test_held_out_rows_come_first_from_the_test_split(tmp_path: Path, changes: dict[str, Any], first: str) -> None:
    plan = make_plan(tmp_path, [{"text": "test"}])
    splits = {name: write_split(tmp_path, name, [{"text": name}] * 3) for name in ("train", "eval", "test")}
    plan = plan.model_copy(update=splits | changes)
    assert held_out(tmp_path, plan, 2) == [{"text": first}] * 2
