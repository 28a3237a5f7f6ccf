"""What the shipped rewards give, and what they refuse to be made of."""

import json
import signal
import sys
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.rewards import SHIPPED, make_shipped, shipped_class
from tunesmith.rewards.answer import Answer, text_of
from tunesmith.rewards.compare import read_json

WORDS = st.text(alphabet="abcABC 0\n", max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=3), JSON, max_size=4)


def reward(name: str, completion: Any, reference: Any = None, ids: list[int] | None = None, **arguments: Any) -> Any:
    (given,) = make_shipped(name, arguments)(
        prompts=["?"], completions=[completion], completion_ids=[ids or []], reference=[reference], trainer_state=None
    )
    return given


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_reward_says_what_it_rewards(name: str) -> None:
    kind = shipped_class(name)
    assert kind.summary().endswith(".")
    assert all(field.description for field in kind.model_fields.values())


@pytest.mark.parametrize(
    ("completion", "final"),
    [
        (" 42\n", "42"),
        ("<think>6 * 7</think> 42", "42"),
        ("6 * 7</think>42", "42"),
        ("<think>a</think><think>b</think>c", "c"),
        ("<think>still at it 42", ""),
        (message("<think>x</think>42"), "42"),
        ([{"role": "assistant", "content": "no"}, *message("42")], "42"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]}], "42"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant", "tool_calls": []}], ""),
        ([], ""),
    ],
)
def test_the_answer_is_what_follows_the_reasoning(completion: Any, final: str) -> None:
    assert Answer(text_of(completion), [], {}).final == final


def test_rewards_that_are_shares_are_1_or_0() -> None:
    shares = {name for name in SHIPPED if shipped_class(name).share}
    assert shares == {"exact_match", "normalized_match", "contains", "numeric", "math", "regex", "json"}
    assert [name for name in SHIPPED if shipped_class(name).share is None] == ["json_schema"]


@given(WORDS, WORDS)
def test_exact_match_is_equality_but_for_blanks_around(said: str, right: str) -> None:
    assert reward("exact_match", said, right) == float(said.strip() == right.strip())
    assert reward("exact_match", message(said), right) == reward("exact_match", said, right)
    folded = said.strip().lower() == right.strip().lower()
    assert reward("exact_match", said, right, ignore_case=True) == float(folded)


def test_of_several_right_answers_the_best_counts_and_none_is_no_opinion() -> None:
    assert reward("exact_match", "b", ["a", "b"]) == 1.0
    assert reward("exact_match", "c", ["a", "b"]) == 0.0
    assert reward("exact_match", "c", None) is None
    assert reward("exact_match", "c", []) is None
    assert make_shipped("exact_match", {})(completions=["a"], completion_ids=[[]]) == [None]


def test_an_expression_finds_the_answer_in_answer_and_reference() -> None:
    found = {"answer": r"#### (.*)"}
    assert reward("exact_match", "6 * 7 = 42\n#### 42", "#### 42", **found) == 1.0
    assert reward("exact_match", "#### 1\n#### 42", "42", **found) == 1.0
    assert reward("exact_match", "42", "42", **found) == 0.0
    assert reward("exact_match", "the answer is B", "B", answer=r"\b[ABCD]\b") == 1.0
    assert reward("exact_match", "nothing", "", answer=r"#### (.*)") == 0.0


@given(st.floats(-1e9, 1e9, allow_nan=False), st.sampled_from(["{:.6f}", "it is {:,.6f}.", "1, 2, then {:.8e}!"]))
def test_numeric_reads_the_last_number(value: float, spelling: str) -> None:
    assert reward("numeric", spelling.format(value), repr(value), absolute=1e-3) == 1.0
    assert reward("numeric", spelling.format(value + 1 + abs(value)), repr(value), absolute=1e-3) == 0.0


@pytest.mark.parametrize(
    ("said", "right", "expected"),
    [
        ("1,000", "1000", 1.0),
        ("about 1,000,000 in all", "1e6", 1.0),
        ("$5.00", "5", 1.0),
        ("42.", "42", 1.0),
        (".5", "0.5", 1.0),
        ("10-5", "5", 1.0),
        ("-5", "5", 0.0),
        ("v2.1.3 and 7", "7", 1.0),
        ("none", "7", 0.0),
        ("", "7", 0.0),
        ("7", "seven", None),
        ("1e999", "7", 0.0),
        ("1" * 400, "7", 0.0),
        ("1.01", "1", 0.0),
    ],
)
def test_numbers_as_people_write_them(said: str, right: str, expected: float | None) -> None:
    assert reward("numeric", said, right) == expected


def test_numeric_allows_what_it_is_told() -> None:
    assert reward("numeric", "1.01", "1", relative=0.02) == 1.0
    assert reward("numeric", "0.01", "0", relative=0.02) == 0.0
    assert reward("numeric", "0.01", "0", absolute=0.02) == 1.0


@pytest.mark.parametrize(
    ("said", "right", "expected"),
    [
        (r"so \boxed{\frac{1}{2}}", "0.5", 1.0),
        ("The answer is 1/2.", r"$\frac12$", 1.0),
        ("$x + 1$", "1 + x", 1.0),
        (r"$(x-1)(x+1)$", "x^2 - 1", 1.0),
        ("first 3 then 7", "7", 1.0),
        ("first 3 then 7", "3", 0.0),
        ("I don't know", "7", 0.0),
        ("x + 1", "$1+x$", 1.0),
        ("1", "1 + x", 0.0),
        ("1 + x", "1", 0.0),
        ("1000", "1,000", 1.0),
        ("0.1", "10%", 1.0),
        (r"\frac{3}{4}", "0.75", 1.0),
        ("2*sqrt(2)", r"$\sqrt{8}$", 1.0),
        ("5", "5 apples", 1.0),
        ("7", "", None),
        ("", "7", 0.0),
    ],
)
def test_math_compares_by_value(said: str, right: str, expected: float | None) -> None:
    assert reward("math", said, right) == expected


def test_math_ends_what_never_would() -> None:
    assert reward("math", r"\boxed{9^{9^{9^{9}}}}", "9") == 0.0


def test_math_gives_the_alarm_back() -> None:
    before, interval = signal.getitimer(signal.ITIMER_REAL)
    try:
        signal.setitimer(signal.ITIMER_REAL, 300, 7)
        reward("math", "1/2", "0.5")
        left, again = signal.getitimer(signal.ITIMER_REAL)
        assert 290 < left < 300
        assert again == 7
    finally:
        signal.setitimer(signal.ITIMER_REAL, before, interval)


def test_math_works_outside_the_main_thread() -> None:
    given: list[float | None] = []
    thread = threading.Thread(target=lambda: given.append(reward("math", "1/2", "0.5")))
    thread.start()
    thread.join()
    assert given == [1.0]


def test_math_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(EnvironmentLacksError, match="math-verify") as lacking:
        make_shipped("math", {})
    assert "tunesmith[math]" in lacking.value.fix


@given(OBJECTS, OBJECTS)
def test_json_fields_is_the_share_of_equal_fields(said: dict[str, Any], right: dict[str, Any]) -> None:
    given = reward("json_fields", json.dumps(said), json.dumps(right))
    names = said.keys() | right.keys()
    same = [
        name for name in names if name in said and name in right and json.dumps(said[name]) == json.dumps(right[name])
    ]
    if not any(isinstance(value, dict) for value in [*said.values(), *right.values()]):
        assert given == (len(same) / len(names) if names else 1.0)
    assert 0.0 <= given <= 1.0
    assert reward("json_fields", json.dumps(right), json.dumps(right)) == 1.0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('{"b": [1, 2], "a": 1}', 1.0),
        ('{"a": 1}', 0.5),
        ('{"a": true, "b": [1, 2]}', 0.5),
        ('{"a": 1, "b": [1, 2], "c": 0, "d": 0}', 0.5),
        ("[1]", 0.0),
        ("", 0.0),
        ('{"a": 1, "b": [1, 2]', 0.0),
    ],
)
def test_fields_that_are_wrong_missing_or_added(said: str, expected: float) -> None:
    assert reward("json_fields", said, '{"a": 1, "b": [1, 2]}') == expected
    assert reward("json_fields", said, "no object") is None


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", "", "[" * 100_000])
def test_what_python_takes_for_json_and_isn_t(text: str) -> None:
    assert read_json(text) is ...
    assert read_json("null") is None


def test_regex_looks_anywhere_or_at_the_whole() -> None:
    assert reward("regex", "a b\nc", pattern=r"b\sc") == 1.0
    assert reward("regex", "a b\nc", pattern=r"b\sc", whole=True) == 0.0
    assert reward("regex", "a b\nc", pattern="(?s)a.*c", whole=True) == 1.0
    assert reward("regex", "abc", pattern="x") == 0.0
    assert reward("regex", "x: abc", pattern="c", answer="y: (.*)") == 0.0


SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}


def test_json_schema() -> None:
    assert reward("json_schema", '{"a": 1}', schema=SCHEMA) == 1.0
    assert reward("json_schema", '{"a": "1"}', schema=SCHEMA) == 0.0
    assert reward("json_schema", '{"a": "1"}', schema=SCHEMA, partial=0.2) == 0.2
    assert reward("json_schema", "no json", schema=SCHEMA, partial=0.2) == 0.0
    fenced = 'Here:\n```json\n{"a": 1}\n```'
    assert reward("json_schema", fenced, schema=SCHEMA) == 0.0
    assert reward("json_schema", fenced, schema=SCHEMA, answer=r"```json\s*(\{.*\})\s*```") == 1.0


def test_a_schema_reaches_for_nothing_on_the_network() -> None:
    elsewhere = {"$ref": "http://localhost:1/schema.json"}
    with pytest.raises(Exception, match=r"schema\.json"):
        reward("json_schema", "{}", schema=elsewhere)


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 20))
def test_length_is_1_within_its_bounds_and_falls_on_both_sides(count: int, least: int, more: int) -> None:
    most = least + more
    given = reward("length", "", ids=list(range(count)), min=least, max=most)
    expected = count / least if count < least else 2 - count / most if count > most else 1.0
    assert given == pytest.approx(max(0.0, expected))
    assert reward("length", " a" * count, unit="words", min=least, max=most) == given
    assert reward("length", "a" * count, unit="characters", min=least, max=most) == given


def test_one_bound_will_do() -> None:
    assert reward("length", "", ids=[1] * 99, min=5) == 1.0
    assert reward("length", "", ids=[], max=5) == 1.0


def test_think_format() -> None:
    assert reward("think_format", "<think>\na\n</think>\nb") == 1.0
    assert reward("think_format", message("<think>a</think>b")) == 1.0
    assert reward("think_format", "b") == 0.0


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), max_size=30))
def test_repetition_counts_the_n_grams_that_come_again(ids: list[int]) -> None:
    grams = [tuple(ids[start : start + 2]) for start in range(len(ids) - 1)]
    expected = len(set(grams)) / len(grams) - 1 if grams else 0.0
    assert reward("repetition", "", ids=ids, ngram=2) == pytest.approx(expected)


def test_overlong_falls_before_the_end() -> None:
    given = [reward("overlong", "", ids=[1] * count, max=10, room=4) for count in (5, 6, 8, 10, 11)]
    assert given == [0.0, 0.0, -0.5, -1.0, -1.0]


@pytest.mark.parametrize(
    ("name", "arguments", "what", "fix"),
    [
        ("exact", {}, "There is no reward exact.", "exact_match"),
        ("zzz", {}, "There is no reward zzz.", "FILE.py:NAME"),
        ("exact_match", {"ignorecase": True}, "takes no ignorecase", "ignore_case"),
        ("think_format", {"xyz": 1}, "takes no xyz", "It takes none."),
        ("regex", {}, "needs pattern", "arguments: {pattern: ...}"),
        ("regex", {"pattern": "("}, "pattern can't be '('", "Correct it"),
        ("regex", {"pattern": "a", "whole": "perhaps"}, "whole can't be 'perhaps'", "Correct it"),
        ("exact_match", {"answer": "["}, "answer can't be '['", "Correct it"),
        ("json_schema", {"schema": {"type": "objekt"}}, "schema can't be", "Correct it"),
        ("json_schema", {}, "needs schema", "arguments: {schema: ...}"),
        ("length", {}, "don't go together", "Correct it"),
        ("length", {"min": 5, "max": 4}, "don't go together", "Correct it"),
        ("length", {"min": True}, "min can't be True", "Correct it"),
        ("numeric", {"relative": float("inf")}, "relative can't be inf", "Correct it"),
        ("overlong", {"max": 10}, "needs room", "arguments: {room: ...}"),
    ],
)
def test_arguments_that_are_refused(name: str, arguments: dict[str, Any], what: str, fix: str) -> None:
    with pytest.raises(UsageError) as refusal:
        make_shipped(name, arguments)
    assert what in refusal.value.what
    assert fix in refusal.value.fix
    assert refusal.value.why.endswith(".")
