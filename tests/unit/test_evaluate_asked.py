"""What rows ask, and what there is to choose between."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.asked import asked, asks, few_answers, read_options

ASK = [{"role": "user", "content": "?"}]
SAY = [{"role": "assistant", "content": "yes"}]


@pytest.mark.parametrize(
    ("row", "question", "right"),
    [
        ({"prompt": "?", "completion": "yes"}, "?", "yes"),
        ({"prompt": ASK, "completion": SAY}, ASK, "yes"),
        ({"messages": [*ASK, *SAY, *ASK, *SAY]}, [*ASK, *SAY, *ASK], "yes"),
        ({"prompt": ASK, "chosen": SAY, "rejected": ASK}, ASK, "yes"),
        ({"prompt": ASK, "completion": SAY, "label": True}, ASK, "yes"),
        ({"prompt": ASK, "completion": SAY, "label": False}, ASK, None),
        ({"prompt": ASK, "reference": "yes"}, ASK, "yes"),
        ({"prompt": ASK, "reference": ["yes", "no"]}, ASK, None),
        ({"prompt": ASK}, ASK, None),
        ({"messages": [*ASK, {"role": "assistant", "tool_calls": []}]}, ASK, None),
    ],
)
def test_a_row_asks_what_stands_before_its_last_answer(row: dict[str, Any], question: Any, right: str | None) -> None:
    assert asks(row)
    assert asked(row) == (question, right)


def test_plain_text_asks_nothing() -> None:
    assert not asks({"text": "words"})


def test_few_different_answers_are_options() -> None:
    rows = [{"prompt": "?", "completion": f" {index % 3} "} for index in range(30)]
    assert few_answers(rows) == ["0", "1", "2"]
    assert few_answers([{"text": "x"}, {"prompt": ASK}]) == []
    assert len(few_answers({"prompt": "?", "completion": str(index)} for index in range(20))) == 20
    assert few_answers({"prompt": "?", "completion": str(index)} for index in range(21)) == []


ARC = {"text": ["rain", "sun"], "label": ["A", "B"]}


@pytest.mark.parametrize(
    ("held", "right", "options"),
    [
        (["a", " b"], "b", ["a", "b"]),
        ('["a", "b"]', "b", ["a", "b"]),
        ([1, 2], "2", ["1", "2"]),
        (ARC, "B", ["A", "B"]),
        (ARC, "sun", ["rain", "sun"]),
        (ARC, "snow", ["rain", "sun"]),
        ("a or b", "a", []),
        (None, "a", []),
        (3, "3", []),
    ],
)
def test_options_are_read_from_what_data_sets_have(held: Any, right: str, options: list[str]) -> None:
    assert read_options(held, right) == options


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(st.text(max_size=5), x)
    )
)
def test_whatever_a_column_holds_gives_texts(held: Any) -> None:
    assert all(isinstance(one, str) for one in read_options(held, "a"))
    assert all(isinstance(one, str) for one in read_options(json.dumps(held), "a"))
