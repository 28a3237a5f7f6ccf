"""The demo's data and the small model's tokenizer: what the demo, the tests and GGUF export rely on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
from transformers import AutoTokenizer

from tunesmith.demo import task
from tunesmith.demo.corpus import documents
from tunesmith.demo.tokenizer import QWEN2_SPLIT, impure_merges

SMALL = Path(task.__file__).with_name("small")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(SMALL)


def tickets(rows: list[dict[str, Any]]) -> set[str]:
    return {row["completion"][0]["content"] for row in rows}


def messages(rows: list[dict[str, Any]]) -> set[str]:
    return {row["prompt"][0]["content"] for row in rows}


def test_rows_have_the_promised_sizes_and_shape() -> None:
    for split, size in task.SPLITS.items():
        rows = task.rows(split)
        assert len(rows) == size
        assert all(
            [turn["role"] for turn in row["prompt"] + row["completion"]] == ["user", "assistant"] for row in rows
        )


def test_no_order_or_message_is_in_two_splits_whatever_the_seed_and_count() -> None:
    for seed in (0, 1):
        test = task.rows("test", 500, seed)
        others = task.rows("train", 5000, seed + 1) + task.rows("validation", 500, seed)
        assert not tickets(test) & tickets(others)
        assert not messages(test) & messages(others)


def test_no_row_is_there_twice() -> None:
    rows = task.rows("train")
    assert len(tickets(rows)) == len(messages(rows)) == len(rows)


def test_the_base_model_has_read_no_order_of_the_test_split() -> None:
    test_messages = messages(task.rows("test", 2000))
    stream = documents(0)
    assert not any(next(stream).context.rstrip("\n") in test_messages for _ in range(5000))


def test_rows_are_the_same_in_another_process() -> None:
    command = "from tunesmith.demo.task import rows; print(rows('test', 3))"
    there = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(task.rows("test", 3))
    assert task.rows("test", 3) == task.rows("test")[:3]
    assert task.rows("test", 3) != task.rows("test", 3, seed=1)


def test_tickets_are_json_of_five_fields_that_the_message_states() -> None:
    for row in task.rows("train"):
        text, ticket = row["prompt"][0]["content"], json.loads(row["completion"][0]["content"])
        order = task.Order(**ticket)
        assert list(ticket) == ["customer", "city", "item", "quantity", "date"]
        assert all(part in text for part in (order.customer, order.city, order.goods()))
        assert any(date in text for date in order.spoken_dates())


def test_write_makes_three_files(tmp_path: Path) -> None:
    paths = task.write(tmp_path / "data")
    assert {split: path.name for split, path in paths.items()} == {split: f"{split}.jsonl" for split in task.SPLITS}
    lines = paths["test"].read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == task.rows("test")


def test_generating_data_needs_no_heavy_library() -> None:
    command = "import sys, tunesmith.demo.task; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tokenizer_is_one_that_gguf_can_name() -> None:
    stored = json.loads((SMALL / "tokenizer.json").read_text(encoding="utf-8"))
    split = {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated", "invert": False}
    first, second = stored["pre_tokenizer"]["pretokenizers"]
    assert first == split
    assert second["type"] == "ByteLevel"
    assert (second["add_prefix_space"], second["use_regex"]) == (False, False)
    assert stored["normalizer"] is None
    assert stored["decoder"]["type"] == "ByteLevel"


def test_words_are_the_same_tokens_wherever_they_stand(tokenizer: Any) -> None:
    assert impure_merges(SMALL / "tokenizer.json") == []
    words = (
        *task.FIRST_NAMES,
        *task.LAST_NAMES,
        *task.CITIES,
        *task.COLOURS,
        *task.ITEMS,
        "ordinary",
        "Größe",
    )
    for word in words:
        alone = tokenizer.tokenize(word)
        for before in (" ", '"', ' "', "x "):
            assert tokenizer.tokenize(before + word) == tokenizer.tokenize(before) + alone


def test_any_text_survives_the_tokenizer(tokenizer: Any) -> None:
    for text in (
        "  Größe 日本 🚀\r\n\tit's  42!",
        'x = {"a": [1, 2]}\n\n',
        messages(task.rows("test", 1)).pop(),
    ):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_are_distinct(tokenizer: Any) -> None:
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.bos_token is None
    config = json.loads((SMALL / "config.json").read_text(encoding="utf-8"))
    assert (config["pad_token_id"], config["eos_token_id"]) == (
        tokenizer.pad_token_id,
        tokenizer.eos_token_id,
    )
    assert config["vocab_size"] >= len(tokenizer)
    assert config["vocab_size"] % 64 == 0


def test_template_is_chatml(tokenizer: Any) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_template_marks_the_assistants_words_and_its_turn_end(tokenizer: Any) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good morning,"},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": '{"city": "Lisbon"}'},
    ]
    encoded = tokenizer.apply_chat_template(chat, return_assistant_tokens_mask=True, return_dict=True)
    marked = [token for token, mark in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(marked) == 'Good morning,<|im_end|>{"city": "Lisbon"}<|im_end|>'


def test_template_refuses_an_unknown_role(tokenizer: Any) -> None:
    with pytest.raises(jinja2.TemplateError, match="human"):
        tokenizer.apply_chat_template([{"role": "human", "content": "Hello"}], tokenize=False)


def test_the_model_is_small() -> None:
    assert sum(file.stat().st_size for file in SMALL.iterdir()) < 4_000_000
    assert (SMALL / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: apache-2.0\n")
