"""Paths of a mapping: read, shaped, and written as code, alike."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.paths import Path, known_paths, parse, paths_of, quoted, value_of
from tunesmith.data.shape import kind_of, shape_of

ROW = {
    "answer": "a",
    "extra": {"answer": "b", "deep": {"er": "c"}},
    "messages": [{"content": "d"}, {"content": "e"}],
    "choices": ["no", "yes"],
    "gold": 1,
    "letter": "B",
    "none": None,
    "empty": "",
    "odd.name": "f",
    "odd[0]": "g",
    "{odd}": "h",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("answer", "a"),
        ("extra.answer", "b"),
        ("extra.deep.er", "c"),
        ("messages[0].content", "d"),
        ("messages[-1].content", "e"),
        ("choices[gold]", "yes"),
        ("choices[letter]", "yes"),
        ("odd.name", "f"),
        ("odd[0]", "g"),
        ("{odd}", "h"),
        ("{answer}: {extra.answer}", "a: b"),
        ("{empty?}\n\n{answer}", "a"),
        ("{none?}\n\n{answer}", "a"),
        ("{answer}\n\n{empty?}", "a"),
        ("{answer?}\n\n{gold?}", 1),
        ("Q: {answer}!", "Q: a!"),
        ("{answer}{none}", None),
        ("{answer}, {empty?}, {extra.answer}", "a, b"),
    ],
)
def test_what_a_path_leads_to(text: str, value: Any) -> None:
    assert value_of(ROW, text) == value


@pytest.mark.parametrize(
    "text",
    [
        "nowhere",
        "extra.nowhere",
        "answer.more",
        "messages[2]",
        "messages[-3]",
        "choices[answer]",
        "choices[none]",
        "choices[nowhere]",
        "answer[0]",
        "extra[0]",
        "a b",
        "[0]",
        ".x",
        "x.",
        "x[",
        "x]",
        "x[]",
        "x..y",
        "",
        "x[y[0]]",
    ],
)
def test_a_path_that_leads_nowhere_is_none(text: str) -> None:
    assert value_of(ROW, text) is None


def test_a_number_below_zero_in_another_column_is_no_position() -> None:
    assert value_of({"choices": ["a", "b"], "gold": -1}, "choices[gold]") is None
    assert value_of({"choices": ["a", "b"], "gold": True}, "choices[gold]") is None


def test_a_path_that_cant_be_read_is_the_name_of_a_column() -> None:
    assert parse("speed (m/s) [x") == Path("speed (m/s) [x", ("speed (m/s) [x",))


@pytest.mark.parametrize("text", ["answer", "extra.answer", "messages[-1].content", "choices[gold]", "choices[letter]"])
def test_a_path_has_the_shape_of_what_it_leads_to(text: str) -> None:
    shape = paths_of(text)[0].shape(shape_of(ROW))
    assert shape is not None
    assert shape.kind == kind_of(value_of(ROW, text))


@pytest.mark.parametrize("text", ["nowhere", "extra.nowhere", "answer[0]", "choices[nowhere]", "messages[0].nowhere"])
def test_a_path_to_nowhere_has_no_shape(text: str) -> None:
    assert paths_of(text)[0].shape(shape_of(ROW)) is None


def test_known_paths_go_through_objects() -> None:
    shape = shape_of({"b": {"c": {"d": {"e": 1}}}, "a": [{"x": 1}]})
    assert known_paths(shape) == ["a", "b", "b.c", "b.c.d", "b.c.d.e"]
    assert known_paths(shape, 3) == ["a", "b", "b.c", "b.c.d"]


KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=".[]{}"), min_size=1, max_size=4)
TREES = st.recursive(
    st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def ways(value: Any, path: str = "") -> Any:
    """Each path in a value, with what stands there."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
        yield path + step, item
        yield from ways(item, path + step)


@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_every_path_in_a_row_leads_to_its_value_also_as_code(row: dict[str, Any]) -> None:
    for text, value in ways(row):
        if text in row and row[text] is not value:
            continue
        assert value_of(row, text) == value
        assert eval(paths_of(text)[0].code(shape_of(row)), {"row": row}) == value


@given(st.text(max_size=12) | st.text("ab.[]{}?0-1", max_size=12), st.dictionaries(KEYS, TREES, max_size=3))
def test_no_text_is_a_path_that_raises(text: str, row: dict[str, Any]) -> None:
    value_of(row, text)
    for path in paths_of(text):
        path.shape(shape_of(row))
        compile(path.code(shape_of(row)), "x", "eval")


PART = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), max_size=3)
FIELD = st.tuples(st.sampled_from(["a", "b", "c"]), st.booleans())


@given(
    st.lists(st.tuples(PART, FIELD), min_size=1, max_size=4),
    PART,
    st.fixed_dictionaries({"a": st.sampled_from(["", "x"]), "b": st.sampled_from(["", "y"]), "c": st.just("z")}),
)
def test_a_template_is_put_together_as_its_code_does(parts: list[Any], end: str, row: dict[str, str]) -> None:
    template = "".join(f"{text}{{{name}{'?' * optional}}}" for text, (name, optional) in parts) + end
    code = parse(template).code(shape_of(row))
    assert eval(code, {"row": row}) == value_of(row, template)


def test_literals_are_written_with_double_quotes() -> None:
    assert quoted({"a": 'b"c', "n": True, "z": 1.5}) == '{"a": "b\\"c", "n": True, "z": 1.5}'
