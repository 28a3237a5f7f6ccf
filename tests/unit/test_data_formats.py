"""Detection over all rows: mixed files, faulty rows, mappings, features, and what verdicts say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.columns import describe, profile, shorten
from tunesmith.data.formats import detect, fragment, unusable
from tunesmith.data.paths import value_of
from tunesmith.data.shape import RowStructure
from tunesmith.errors import UsageError
from tunesmith.recipe.schema import Mapping

CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
OPEN = CHAT[:1]
NONE = Mapping()
PAIR = {"prompt": "a", "completion": "b"}


def layouts(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(share.layout, share.rows) for share in detect(rows, NONE).composition]


def test_all_rows_count_not_only_the_first() -> None:
    assert detect([{"id": 1}, {"id": 2, "messages": CHAT}], NONE).layout == "messages"
    assert detect([{"messages": []}, {"messages": CHAT}], NONE).layout == "messages"


def test_a_mixed_file_is_shown_with_each_layout_its_share_and_places() -> None:
    rows = [{"messages": CHAT}, PAIR, {"messages": CHAT}, {"messages": CHAT}, {"x": 1}]
    shares = detect(rows, NONE).composition
    assert [(share.layout, share.rows, share.share, share.examples) for share in shares] == [
        ("messages", 3, 0.6, [1, 3, 4]),
        ("prompt-completion", 1, 0.2, [2]),
        ("unknown", 1, 0.2, [5]),
    ]


@pytest.mark.parametrize(
    ("good", "faulty"),
    [
        (PAIR, {"prompt": "a", "completion": None}),
        (PAIR, {}),
        ({"messages": CHAT}, {"messages": None}),
        ({"messages": CHAT}, {"messages": "text", "more": 1}),
        ({"messages": CHAT, "id": 1}, {"id": 2}),
        ({"messages": CHAT, "label": True}, {"messages": CHAT, "label": None}),
        ({"instruction": "a", "input": "b", "output": "c"}, {"instruction": "a", "input": "b", "output": None}),
        ({"text": "a"}, {"text": 5}),
    ],
)
def test_rows_that_lack_something_are_faulty_rows_of_the_layout_of_most(
    good: dict[str, Any], faulty: dict[str, Any]
) -> None:
    assert len(layouts([good, faulty, good])) == 1


def test_rows_of_another_layout_with_nulls_in_the_columns_of_most_are_of_their_own() -> None:
    # As Parquet and CSV have them: every row has every column.
    rows = [{"messages": CHAT, "prompt": None, "completion": None}] * 2 + [{"messages": None, **PAIR}]
    assert layouts(rows) == [("messages", 2), ("prompt-completion", 1)]


def test_optional_columns_make_no_layout_of_their_own() -> None:
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "a", "input": "c", "output": "b", "system": "s"}]
    found = detect(rows, NONE)
    assert [share.rows for share in found.composition] == [2]
    assert found.columns == {"instruction": "instruction", "input": "input", "output": "output", "system": "system"}


def test_a_label_that_isnt_good_or_bad_is_no_kto() -> None:
    assert detect([{"messages": CHAT, "label": "billing"}], NONE).layout == "messages"
    assert detect([{"messages": CHAT, "label": 3}], NONE).layout == "messages"


def marked(*labels: Any, column: str = "label") -> list[dict[str, Any]]:
    return [{**PAIR, column: label} for label in labels]


@pytest.mark.parametrize(
    ("rows", "layout"),
    [
        (marked(*[True, False] * 10, "maybe"), "unpaired-preference"),
        (marked(*[True, False] * 10, None), "unpaired-preference"),
        (marked(*[1, 0] * 20, 7), "unpaired-preference"),
        (marked(*["good", "bad"] * 20, *map(str.upper, "abcdefghijklmnopqrstuvwxyz")), "unpaired-preference"),
        (marked("good", "so so", "well"), "prompt-completion"),
        (marked("good", "maybe"), "prompt-completion"),
        (marked(*[0, 1, 2] * 10), "prompt-completion"),
        (marked(*[1] * 6, 2, 3, 4, 5, column="rating"), "prompt-completion"),
    ],
)
def test_what_most_values_say_decides_whether_a_column_marks_answers(rows: list[dict[str, Any]], layout: str) -> None:
    found = detect(rows, NONE)
    assert [part.sight.layout for part in found.parts] == [layout]
    if layout == "unpaired-preference":
        assert (found.verdict.status, found.recommended) == ("NEEDS MAPPING", "kto")
        assert "can't be trained on" in found.verdict_of("kto").reason or rows[-1]["label"] is None


def test_the_counts_of_marks_leave_out_what_is_neither() -> None:
    reason = detect(marked(True, True, False, "maybe"), NONE).verdict_of("kto").reason
    assert "2 good, 1 bad. 1 with anything else" in reason


def test_a_mapping_for_sft_without_a_filter_says_that_bad_answers_are_learnt() -> None:
    rows, mapping = marked(True, False, True), Mapping(prompt="prompt", completion="completion")
    assert "The column label marks answers as good or bad: without a filter" in detect(rows, mapping).verdict.reason
    assert "filter" not in detect(rows, mapping, filtered={"label"}).verdict.reason
    assert "filter" not in detect(rows, mapping).verdict_of("grpo").reason
    assert "filter" not in detect([PAIR], mapping).verdict.reason


def test_a_good_mark_among_numbers_is_kept_as_it_is() -> None:
    assert detect(marked(0, 0, "good", "good", "good", -1, -1), NONE).verdict.filter == {"label": "good"}


def test_one_of_many_conversations_that_is_open_is_a_fault_all_of_them_are_prompts() -> None:
    assert layouts([{"messages": OPEN}, {"messages": CHAT}]) == [("messages", 2)]
    found = detect([{"messages": OPEN}, {"messages": OPEN}], NONE)
    assert (found.layout, found.verdict.status, found.verdict_of("grpo").mapping) == (
        "prompt-only",
        "INCOMPATIBLE",
        None,
    )


@pytest.mark.parametrize(
    ("row", "features"),
    [
        ({"messages": CHAT}, {}),
        ({"messages": [{"role": "system", "content": "s"}, *CHAT]}, {"system": 1}),
        ({"messages": CHAT, "system": "s", "tools": "[]"}, {"system": 1, "tools": 1}),
        ({"messages": CHAT, "tools": []}, {}),
        ({"messages": [OPEN[0], {"role": "assistant", "tool_calls": [{"name": "f"}]}, CHAT[1]]}, {"tool_calls": 1}),
        (
            {"conversations": [{"from": "function_call", "value": "{}"}, {"from": "gpt", "value": "b"}]},
            {"tool_calls": 1},
        ),
        ({"prompt": "a", "completion": "<think>b</think>c"}, {"reasoning": 1}),
        ({"messages": [OPEN[0], {**CHAT[1], "reasoning_content": "hm"}]}, {"reasoning": 1}),
        ({"messages": [OPEN[0], {**CHAT[1], "reasoning_content": None}]}, {}),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, CHAT[1]]}, {"images": 1}),
        ({"conversations": [{**OPEN[0], "content": "<image>a"}, CHAT[1]], "image": "a.png"}, {"images": 1}),
        ({"messages": CHAT, "image": "a.png"}, {}),
        ({"messages": CHAT, "images": [{"bytes": "x"}]}, {"images": 1}),
        ({"instruction": "a", "output": "b", "history": [["a", "b"]]}, {"history": 1}),
        ({"instruction": "a", "output": "b", "history": []}, {}),
    ],
)
def test_features_are_counted_over_rows(row: dict[str, Any], features: dict[str, int]) -> None:
    assert detect([row], NONE).features == features


def test_a_file_of_images_is_incompatible_with_every_method_a_few_are_not() -> None:
    picture = {"messages": [{"role": "user", "content": [{"type": "image"}]}, CHAT[1]]}
    found = detect([picture], NONE)
    assert {verdict.status for verdict in found.verdicts} == {"INCOMPATIBLE"}
    assert "All rows have images" in found.verdict.reason
    assert found.recommended is None
    assert "All rows have images" in found.recommended_reason
    assert detect([picture, {"messages": CHAT}], NONE).verdict.status == "READY"


@pytest.mark.parametrize(
    ("row", "method", "said"),
    [
        ({"prompt": "a", "response": "b", "answer": "c"}, "sft", "could be the completion: response, answer"),
        ({"first": CHAT, "second": CHAT}, "sft", "could be the messages: first, second"),
        ({"instruction": "a", "topic": "c", "response": "b"}, "sft", "Not trained on: topic."),
        ({"messages": '[{"role": "user"}]'}, "sft", "messages is text, not a list"),
        ({"x": 1}, "sft", "No column looks like"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "sft", "made for dpo or reward"),
        ({"messages": CHAT, "label": True}, "sft", "made for kto"),
        ({"messages": CHAT, "label": False}, "sft", "all of them bad"),
        ({"messages": CHAT, "label": True}, "kto", "1 good, 0 bad. All have one mark"),
        ({"prompt": OPEN, "reward_model": {"ground_truth": 72}}, "sft", "rewarded against reward_model.ground_truth"),
        ({"prompt": "a"}, "grpo", "no column holds a reference"),
        ({"text": "a", "label": 3}, "sft", "Texts with classes"),
        ({"messages": CHAT}, "clm", "these rows are conversations"),
        ({"messages": CHAT}, "dpo", "these rows are conversations"),
        ({"text": "a"}, "rloo", "running text has none"),
        ({"prompt": "a", "completions": ["b"], "labels": [True]}, "sft", "process reward"),
        ({"chosen": "a b", "rejected": "a c"}, "dpo", "The prompt is what both begin with."),
        ({"x": 1}, "dpo", "(chosen, rejected); no column looks like"),
        (PAIR, "grpo", "Prompts, with their completions as references."),
        ({"question": "a", "choices": ["b", "c"], "gold": 1}, "sft", "can't show the choices (choices)"),
        ({"question": "a", "options": ["b", "c"], "answer": "A"}, "grpo", "can't show the choices (options)"),
        ({"text": "a", "title": "b", "url": "c", "doc_id": "d", "n": 1}, "clm", "trained. Not trained on: title."),
        ({"messages": CHAT, "note": "b", "id": "c"}, "sft", "Not trained on: note."),
        ({"messages": CHAT, **dict.fromkeys("abcdefg", "x")}, "sft", "Not trained on: a, b, c, d, e and 2 more."),
        ({"document": "a", "summary": "b", "title": "c"}, "sft", "Not trained on: title."),
        ({"prompt": "p", "Response_A": "a", "Response_B": "b", "winner": None}, "dpo", "Response_A and Response_B"),
        ({"conversation_1": CHAT, "conversation_2": CHAT, "preference": 1}, "sft", "The column preference says which"),
        ({"response_0": "a", "response_1": "b", "better_response_id": 0}, "kto", "response_0 and response_1 is better"),
        ({"messages": CHAT, "hints": ["a"], "scores": [1]}, "sft", "Not trained on: hints."),
        ({"text": "a", "label": "fine"}, "clm", "Not trained on: label."),
        ({"prompt": OPEN, "ground_truth": "4", "solution": "b"}, "grpo", "Not trained on: solution."),
        ({"parent_id": None, "role": "prompter", "text": "a"}, "clm", "one message of a tree (parent_id)"),
    ],
)
def test_the_reason_says_what_is_so(row: dict[str, Any], method: str, said: str) -> None:
    assert said in detect([row], NONE).verdict_of(method).reason


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT, "system": "s", "tools": "[]", "id": "x", "uuid": "y", "source_url": "z", "n": 1},
        {"instruction": "a", "input": "b", "output": "c", "history": []},
        {"prompt": "a", "extra_info": {"answer": "b"}},
        {"question": "q", "options": ["b", "c"], "gold": "A"},
        {"question": "q", "answer": "a", "tools": "[]"},
        {"data.messages": CHAT},
        {"question": "q", "context": "c", "A": "1", "B": "2", "C": "3", "answer": "A"},
    ],
)
def test_what_is_read_and_what_only_names_the_row_isnt_listed_as_unused(row: dict[str, Any]) -> None:
    assert not any("Not trained on" in verdict.reason for verdict in detect([row], NONE).verdicts)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"question": "q", "a": "1", "b": "2", "answer": "B"}, "{question}\nA. {a}\nB. {b}"),
        (
            {"context": "c", "question": "q", "A": "1", "B": "2", "answer": "B"},
            "{context?}\n\n{question}\nA. {A}\nB. {B}",
        ),
        ({"question": "q", "option_a": "1", "option_b": "2", "answer": 0}, "{question}\nA. {option_a}\nB. {option_b}"),
        ({"question": "q", "A": "1", "C": "2", "answer": "B"}, "question"),
    ],
)
def test_choices_in_columns_are_shown_in_the_prompt(row: dict[str, Any], prompt: str) -> None:
    mapping = detect([row], NONE).verdict_of("grpo").mapping
    assert mapping == {"prompt": prompt, "reference": "answer"}


def test_a_choice_that_some_rows_lack_is_left_out_of_their_prompts() -> None:
    row = {"question": "q", "A": "1", "B": "2", "C": "3", "answer": "A"}
    found = detect([row, row, {**row, "C": None}], NONE)
    prompt = (found.verdict.mapping or {})["prompt"]
    assert (len(found.parts), prompt) == (1, "{question}\nA. {A}\nB. {B}\nC. {C?}")
    assert value_of({**row, "C": None}, prompt) == "q\nA. 1\nB. 2"


@pytest.mark.parametrize(
    ("row", "completion"),
    [
        ({"body": "a", "headline": "b"}, "headline"),
        ({"passage": "a", "tldr": "b"}, "tldr"),
        ({"content": "a", "Summary": "b"}, "Summary"),
        ({"input": [CHAT[0]], "ideal": ["a", "b"]}, "ideal[0]"),
        ({"prompt": "a", "ideal": "b"}, "ideal"),
        ({"question": "a", "target": ["b"]}, "target[0]"),
    ],
)
def test_what_sft_learns_to_give(row: dict[str, Any], completion: str) -> None:
    mapping = detect([row], NONE).verdict.mapping
    assert mapping == {"prompt": next(iter(row)), "completion": completion}


def test_a_text_with_another_one_beside_it_is_only_a_prompt_where_that_sums_it_up() -> None:
    assert detect([{"text": "a", "reply": "b"}], NONE).layout == "text"


def test_two_questions_and_a_label_are_no_answers_to_compare() -> None:
    assert detect([{"prompt": "p", "question1": "a", "question2": "b", "label": 1}], NONE).layout == "prompt-only"
    assert detect([{"prompt": "p", "response_a": "a", "response_b": "b"}], NONE).layout == "prompt-only"


@pytest.mark.parametrize(
    ("row", "method"),
    [
        ({"messages": CHAT}, "sft"),
        ({"document": "a", "summary": "b"}, "sft"),
        ({"text": "a"}, "clm"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "dpo"),
        ({"messages": CHAT, "label": True}, "kto"),
        ({"prompt": "a"}, "grpo"),
        ({"x": 1}, None),
        ({"prompt": "a", "completions": ["b"], "labels": [True]}, None),
    ],
)
def test_the_method_that_the_data_was_made_for(row: dict[str, Any], method: str | None) -> None:
    found = detect([row], NONE)
    assert found.recommended == method
    assert found.recommended_reason
    if method:
        assert found.verdict_of(method).status != "INCOMPATIBLE"


@pytest.mark.parametrize("value", [True, 1, "true", "1", "👍", "good", "desirable"])
def test_marks_of_all_kinds(value: Any) -> None:
    verdict = detect([{"messages": CHAT, "label": value}, {"messages": CHAT, "label": None}], NONE).verdict
    assert (verdict.mapping, verdict.filter) == ({"messages": "messages"}, {"label": value})
    assert type(verdict.filter and verdict.filter["label"]) is type(value)


@pytest.mark.parametrize(
    ("mapping", "layout", "columns"),
    [
        ({"messages": "thread"}, "messages", {"messages": "thread"}),
        ({"text": "body"}, "text", {"text": "body"}),
        ({"prompt": "body", "completion": "note"}, "prompt-completion", {"prompt": "body", "completion": "note"}),
        ({"completion": "note"}, "prompt-completion", {"prompt": "prompt", "completion": "note"}),
        ({"prompt": "body"}, "preference", {"prompt": "body", "chosen": "chosen", "rejected": "rejected"}),
        ({"prompt": "body", "reference": "note"}, "prompt-only", {"prompt": "body", "reference": "note"}),
        (
            {"chosen": "chosen", "prompt": "body"},
            "preference",
            {"prompt": "body", "chosen": "chosen", "rejected": "rejected"},
        ),
        (
            {"completion": "note", "label": "mark"},
            "unpaired-preference",
            {"prompt": "prompt", "completion": "note", "label": "mark"},
        ),
        (
            {"prompt": "deep.body[0]", "completion": "note"},
            "prompt-completion",
            {"prompt": "deep.body[0]", "completion": "note"},
        ),
    ],
)
def test_the_mapping_goes_before_what_columns_look_like(
    mapping: dict[str, str], layout: str, columns: dict[str, str]
) -> None:
    row = {"prompt": "p", "body": "b", "note": "n", "thread": CHAT, "mark": True, "deep": {"body": ["x"]}}
    found = detect([{**row, "chosen": "c", "rejected": "r"}], Mapping(**mapping))
    assert (found.layout, found.columns) == (layout, columns)


def test_a_mapping_of_a_companion_alone_adds_to_what_is_seen() -> None:
    found = detect([{"messages": CHAT, "rules": "s"}], Mapping(system="rules"))
    assert (found.layout, found.columns) == ("messages", {"messages": "messages", "system": "rules"})


@pytest.mark.parametrize(
    ("column", "near"),
    [("anwser", "answer"), ("extra_info.anser", "extra_info.answer"), ("{question}{anwser?}", "answer")],
)
def test_a_mapping_to_what_isnt_there_names_the_nearest(column: str, near: str) -> None:
    row = {"question": "a", "answer": "b", "extra_info": {"answer": "c"}}
    with pytest.raises(UsageError, match="which isn't there") as caught:
        detect([row], Mapping(prompt="question", completion=column))
    assert caught.value.fix == f"Did you mean {near!r}?"


@pytest.mark.parametrize(
    "mapping", [{"messages": "a", "prompt": "b"}, {"text": "a", "messages": "b"}, {"text": "a", "system": "b"}]
)
def test_a_mapping_with_roles_that_exclude_each_other(mapping: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        detect([{"a": "x", "b": "y"}], Mapping(**mapping))


def test_d004_gives_the_fragment_to_write() -> None:
    found = unusable(detect([{"question": "a", "answer": "b"}], NONE), "x.jsonl")
    assert found is not None
    assert (found.code, found.severity, found.where) == ("D004", "error", "x.jsonl")
    assert "`data: {mapping: {prompt: question, completion: answer}}`" in found.fix
    assert "The columns are question, answer." in found.what
    assert unusable(detect([PAIR], NONE), "x") is None
    kto = unusable(detect([{**PAIR, "label": True}], NONE), "x")
    assert kto is not None
    assert "filter: {label: true}" in kto.fix


def test_a_fragment_is_yaml() -> None:
    said = fragment({"prompt": "{a?}\n{b}", "completion": "choices[gold]", "system": "yes"}, {"label": "👍", "n": 1})
    assert said == (
        'mapping: {prompt: "{a?}\\n{b}", completion: "choices[gold]", system: "yes"}, filter: {label: "👍", n: 1}'
    )


def test_columns_are_described_over_all_rows() -> None:
    rows = [{"a": None, "b": 1, "e": None}, {"a": "x", "b": "y", "c": {"k": 1}}, {"a": "z", "d": True}]
    described = describe(profile(RowStructure(rows).groups), 3)
    assert {column.name: (column.type, column.nulls, column.example) for column in described} == {
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


NAMES = st.sampled_from(
    [
        "messages",
        "conversations",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "label",
        "text",
        "question",
        "answer",
        "instruction",
        "input",
        "output",
        "history",
        "system",
        "tools",
        "images",
        "choices",
        "gold",
        "role",
        "content",
        "from",
        "value",
        "data",
        "completions",
        "labels",
        "response_a",
        "response_b",
        "winner",
        "parent_id",
        "summary",
        "document",
        "A",
        "B",
        "a.b",
        "x[0]",
        "{x}",
        "",
    ]
)
ROLES = st.sampled_from(["user", "assistant", "system", "human", "gpt", "function_call", "?"])
LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "USER: a\nASSISTANT: b", "A"]) | ROLES
)
TURNS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": LEAVES}), max_size=3)
VALUES = st.recursive(
    LEAVES | TURNS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=5), max_size=5)


@given(ROWS)
def test_detection_never_raises_and_counts_every_row(rows: list[dict[str, Any]]) -> None:
    found = detect(rows, NONE, source="rows.jsonl")
    assert sum(share.rows for share in found.composition) == len(rows)
    assert len(found.verdicts) == 7
    assert all(0 < count <= len(rows) for count in found.features.values())
    assert found.recommended is None or found.verdict_of(found.recommended).status != "INCOMPATIBLE"
    assert all((verdict.code is None) == (verdict.status == "INCOMPATIBLE") for verdict in found.verdicts)


@given(ROWS, st.randoms(use_true_random=False))
def test_detection_doesnt_depend_on_the_order_of_rows(rows: list[dict[str, Any]], random: Any) -> None:
    def facts(given: list[dict[str, Any]]) -> Any:
        found = detect(given, NONE)
        shares = [(share.layout, share.rows, share.columns) for share in found.composition]
        return shares, found.verdicts, found.features, found.recommended

    shuffled = list(rows)
    random.shuffle(shuffled)
    assert facts(rows) == facts(shuffled)


@given(st.integers(1, 3), ROWS)
def test_each_row_is_read_by_the_layout_that_it_was_counted_under(copies: int, rows: list[dict[str, Any]]) -> None:
    found = detect(rows * copies, NONE)
    counted: dict[tuple[str, ...], int] = {}
    for row in rows * copies:
        key = found.sight_of(row).key
        counted[key] = counted.get(key, 0) + 1
    assert counted == {part.sight.key: part.rows for part in found.parts if part.rows}
