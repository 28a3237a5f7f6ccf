"""Token counts without a tokenizer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.runs import SMALL
from tunesmith.demo import task
from tunesmith.models.estimated import EstimatedTokenizer
from tunesmith.models.light import LightTokenizer

TOKENIZER = EstimatedTokenizer(4.0, has_template=True)


@pytest.mark.parametrize(
    ("layout", "row", "prompt", "total"),
    [
        ("text", {"text": "a" * 9}, None, 3),
        ("text", {"text": "\u00e9" * 4}, None, 2),
        ("text", {"text": "\ud800"}, None, 1),
        ("prompt-completion", {"prompt": "a" * 8, "completion": "b" * 4}, 2, 3),
        ("prompt-only", {"prompt": "a" * 8}, 2, 2),
        ("preference", {"prompt": "", "chosen": "a" * 4, "rejected": "b" * 40}, 0, 10),
        (
            "messages",
            {"messages": [{"role": "user", "content": "a" * 8}, {"role": "assistant", "content": ""}]},
            None,
            12,
        ),
        ("messages", {"messages": [{"role": "user", "content": None}], "tools": "a" * 4}, None, 6),
        (
            "prompt-completion",
            {"prompt": [{"role": "user", "content": "a" * 4}], "completion": [{"role": "assistant", "content": "b"}]},
            6,
            12,
        ),
    ],
)
def test_counts(layout: str, row: dict[str, Any], prompt: int | None, total: int) -> None:
    assert TOKENIZER.encode_rows([row, row], layout) == (None if prompt is None else [prompt] * 2, [total] * 2)


def test_calls_count_as_the_text_that_they_are() -> None:
    call = {"function": {"name": "time", "arguments": {"city": "Oslo"}}}
    row = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
    assert TOKENIZER.encode_rows([row], "messages")[1] == [5 + -(-len(json.dumps([call])) // 4)]


def test_whether_there_is_a_template() -> None:
    assert TOKENIZER.template is not None
    assert EstimatedTokenizer(4.0, has_template=False).template is None
    assert TOKENIZER.error > 0
    assert LightTokenizer(SMALL).error == 0


def test_it_is_near_a_real_tokenizer_once_its_bytes_per_token_are_known() -> None:
    rows = task.rows("train", 50)
    real = LightTokenizer(SMALL)
    text = "".join(message["content"] for row in rows for part in ("prompt", "completion") for message in row[part])
    tokens = real.encode_rows([{"text": text}], "text")[1][0]
    near = EstimatedTokenizer(len(text.encode()) / tokens, has_template=True).encode_rows(rows, "prompt-completion")[1]
    counted = real.encode_rows(rows, "prompt-completion")[1]
    assert sum(near) == pytest.approx(sum(counted), rel=0.15)
