"""The structure of a file, by duckdb or streamed, is that of its rows held in memory."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunesmith.data.shape import MOST_SHAPES, RowStructure, Shape, Structure, coarse, shape_of
from tunesmith.data.sources import open_source, read
from tunesmith.data.sources.json_text import Reader
from tunesmith.data.structure import of_rows
from tunesmith.data.structure.known import KnownCounter, template_of
from tunesmith.data.structure.lines import LineStructure, _connection
from tunesmith.data.structure.segments import segments
from tunesmith.data.structure.streamed import StreamedStructure
from tunesmith.data.structure.tally import Questions, Tally
from tunesmith.data.structure.template_query import can_answer
from tunesmith.recipe.schema import Source
from tunesmith.rules import FindingsError

KEYS = st.sampled_from(
    ["a", "A", "b", "messages", "role", "content", "a.b", 'q"uote', "", "it's", "é", "back\\slash", "\0", "$"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=True)
    | st.sampled_from(["", "x", "null", "1", ",}", "[null", "nan", '"', "\\", "é☕", "\0", "\u2028", "{", "user"])
)
VALUES = st.recursive(SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3))
CHATS = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", None, 1]), "content": SCALARS}))
ROWS = st.dictionaries(KEYS, VALUES | CHATS, max_size=4)
BROKEN = st.sampled_from(
    [
        '{"a": 1,}', '{"a": [1,\t]}', "{'a': 1}", '{"a": nan}', '{"a": -inf}', '{"a": "\\ud800"}', "[1, 2]", "3",
        "null", "[]", '{"a": 1} x', '{"a": 1}{"a": 2}', '\x0b{"a": 1}', '{"a": "\x01"}', "{" * 200, '{"a": 01}',
        '\ufeff{"a": 1}',
        '{"a": ' * 150 + "1" + "}" * 150, '{"a": ' + "[" * 99 + "]" * 99 + "}", '{"a": ' + "[" * 100 + "]" * 100 + "}",
        '{"a": ' + "1" * 5000 + "}", '{"a": 1 /* c */}', '{"a": tru}', '{"a": "x', '[{"role": "user", "content": "x"}]',
        '[{"role": "user", "content": "x"}, null]', '{"a": [null]}', '{"a": []}', '{"a": [[], [null]]}', '{"a": 1e999}',
        '{"a": {}}', '{"a": [{}]}', '{"a": 1, "a": "x"}', '{"a": [ null, {"b": 1}]}',
        '{"messages": [{"role": "u"}, null]}', '{"a": 1, "a": 2}', '{"a": null, "a": 2}', '{"plain": 1, "plain": 2}',
        '{"messages": [{"role": "u", "role": "v"}]}', '{"messages": [{"role": "u", "content": "x", "role": null}]}',
        '{"plain": 1, "pla\\u0069n": 2}', '{"\\u0070lain": 1}', '{"plain": null}', '{"plain": [1]}',
        '{"plain": {"a": 1}}',
        '{"messages": [{"content": "x"}, {"role": "u"}]}', '{"messages": "user"}', '{"messages": {"role": "x"}}',
    ]
)  # fmt: skip


def asked(structure: Structure) -> list[Any]:
    """Everything that a structure can be asked, in comparable form."""
    return [
        structure.rows,
        [(group.shape, group.rows, group.places, repr(group.example)) for group in structure.groups],
        *(structure.values(path) for path in ("a", "messages", "a.b", "it's")),
        *(structure.turns(path, "role") for path in ("messages", "a")),
        *(structure.containing("a", text) for text in ("x", "<think>")),
    ]


def held(path: Path) -> RowStructure:
    raw = read(path)
    return RowStructure(raw.rows, raw.places)


def same(path: Path) -> None:
    structure = open_source(path).structure()
    expected = asked(held(path))
    assert asked(structure) == expected
    assert asked(of_rows(open_source(path).rows)) == expected


PLAIN_KEYS = st.sampled_from(["a", "b", "messages", "role", "content", "a.b", "é", "$", "two words", "plain"])
PLAIN_VALUES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(PLAIN_KEYS, below, max_size=3)
)
PLAIN_ROWS = st.dictionaries(PLAIN_KEYS, PLAIN_VALUES | CHATS, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(PLAIN_ROWS.map(json.dumps) | BROKEN, min_size=1, max_size=8), st.integers(0, 8), st.booleans())
@example(
    ['{"a": [{"b": 1}, {"c": null}]}', '{"a": [{"b": 1, "b": 2}, {"c": null}]}', '{"a": [{"b": {}}, 1]}'], 3, False
)
@example(
    ['{"a": {"b": {"a": 1}}}', '{"a": {"b": 1}}', '{"a": 3}', '{"a": {}}', '{"a": []}', '{"a": null}', "[]"], 7, False
)
@example(["3", "{}"], 0, True)
def test_a_template_tells_rows_that_fit_from_others(lines: list[str], known: int, plain: bool) -> None:
    """The template is made of the first rows; it mustn't take any other row for one that fits."""
    path = Path("rows.jsonl")
    everything = ['{"plain": 1}'] * 5 + lines + lines[:known] * 2
    path.write_bytes("\n".join(everything).encode("utf-8", "surrogatepass"))
    raw = [Reader().line(line, 1).row for line in lines[:known]]
    template = template_of([row for row in raw if row is not None])
    tally = Tally(Questions(values=("plain",), turns=(("messages", "role"),), containing=(("a", "x"),)))
    if template is None or not can_answer(template, tally.questions):
        return
    with _connection() as connection:
        counter = KnownCounter(connection, template, plain=plain)
        (segment,) = segments([("", path, "rows.jsonl")])
        answer = counter.ask(segment, tally.questions)
        assert counter.add(answer, tally) is None
    expected = held(path)
    assert (tally.rows, tally.values_at("plain") or {}) == (expected.rows, expected.values("plain"))
    assert [(group.shape, group.rows, group.places) for group in tally.groups()] == [
        (group.shape, group.rows, group.places) for group in expected.groups
    ]
    assert tally.turns_at("messages", "role") == expected.turns("messages", "role")
    assert tally.containing["a", "x"] == expected.containing("a", "x")
    fitting = {line for index, line in enumerate(lines[:known]) if raw[index] is not None and _is_simple(raw[index])}
    others = {everything[index - 1] for index in answer.others}
    assert not others & fitting


def _is_simple(row: object) -> bool:
    """Whether a row holds nothing but texts and booleans, under one column: any template of it takes it."""
    return isinstance(row, dict) and len(row) == 1 and all(isinstance(value, bool) for value in row.values())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        ROWS.map(json.dumps)
        | ROWS.map(lambda row: json.dumps(row, ensure_ascii=False, separators=(",", ":")))
        | BROKEN
        | st.just(""),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
@example(['{"a": [1]}', '{"a": [null]}', '{"a": []}', '{"a": [1.5]}', '{"a": [NaN]}', '{"a": "nan"}'], "\n")
def test_duckdb_and_python_agree(lines: list[str], end: str) -> None:
    path = Path("rows.jsonl")
    path.write_bytes((f'{{"plain": 1}}{end}' * 30 + end.join(lines)).encode("utf-8", "surrogatepass"))
    same(path)


def test_rows_that_often_lack_a_value_are_counted_too() -> None:
    rows = [{"a": number, "b": "x" if number % 2 else None} for number in range(900)]
    path = Path("rows.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    same(path)
    with _connection() as connection:
        (segment,) = segments([("", path, "rows.jsonl")])
        answer = KnownCounter(connection, template_of(rows)).ask(segment, Questions())
    assert (sorted(group[3] for group in answer.groups), answer.others) == ([450, 450], [])


def test_the_structural_pass_of_lines_is_duckdbs_and_that_of_a_table_is_streamed() -> None:
    Path("a.jsonl").write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8")
    Path("a.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert isinstance(open_source("a.jsonl").structure(), LineStructure)
    assert isinstance(open_source("a.csv").structure(), StreamedStructure)
    same(Path("a.csv"))


def test_over_several_segments_and_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.data.structure.segments._BATCH", 20_000)
    monkeypatch.setattr("tunesmith.data.structure.segments._SEGMENT", 3)
    chance = random.Random(3)
    rows = []
    for index in range(3000):
        turns = [{"role": chance.choice(["user", "assistant", "tool"]), "content": "x" * chance.randrange(90)}]
        row: dict[str, Any] = {
            "messages": turns * chance.randrange(4),
            "label": chance.choice([True, False]),
            "id": index,
        }
        if index > 2900:
            row["late"] = [None]
        rows.append(json.dumps(row) if index != 1500 else '{"label": 1,}')
    text = "\n".join(rows).encode()
    Path("rows.jsonl").write_bytes(text)
    Path("rows.jsonl.gz").write_bytes(gzip.compress(text))
    Path("rows16.jsonl").write_bytes(text.decode().encode("utf-16"))
    for name in ("rows.jsonl", "rows.jsonl.gz", "rows16.jsonl"):
        same(Path(name))
    structure = open_source("rows.jsonl").structure()
    assert structure.rows == 2999
    assert structure.values("label") == structure.values("label", 2)
    assert structure.values("id") is None


def _unneeded(*_: object) -> None:
    raise AssertionError("a template should have taken these rows")


def test_columns_that_come_late_extend_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.data.structure.lines.Counter.count", _unneeded)
    monkeypatch.setattr("tunesmith.data.structure.lines.read_rows", _unneeded)
    early = [{"a": [{"role": "user", "b": index}]} for index in range(2000)]
    late = [{"a": [{"role": "user", "c": None}, {"b": "x"}], "d": {"e": bool(index % 2)}} for index in range(2000)]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, early + late)), encoding="utf-8")
    structure, expected = open_source("a.jsonl").structure(), held(Path("a.jsonl"))
    assert structure.groups == expected.groups
    assert structure.turns("a", "role") == expected.turns("a", "role")
    assert structure.values("d.e") == {"null": 2000, "true": 1000, "false": 1000}


def test_rows_that_no_template_takes_are_counted_by_their_structure() -> None:
    parts: list[Any] = ["text", ["part"], {"part": 1}]
    rows = [{"a": [{"role": "user", "b": parts[index % 3]}, {"b": "x"}], "n": index % 2} for index in range(3000)]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, [{"n": 1}] * 900 + rows)), encoding="utf-8")
    same(Path("a.jsonl"))


def test_several_files_and_parts_of_one() -> None:
    Path("a.jsonl").write_text('{"a": 1}\n{"a": "x"}\n', encoding="utf-8")
    Path("b.jsonl").write_text('{"b": 1}\n\n{"a": 3}\n', encoding="utf-8")
    for spec in (["a.jsonl", "b.jsonl"], Source(path="a.jsonl", rows=1), "*.jsonl"):
        raw = read(spec)
        assert asked(open_source(spec).structure()) == asked(RowStructure(raw.rows, raw.places))
    assert open_source(["a.jsonl", "b.jsonl"]).structure().groups[0].places == ["a.jsonl:1", "b.jsonl:3"]


def test_keys_that_are_data_dont_make_a_group_each() -> None:
    lines = [json.dumps({"id": 1, "votes": {f"user{index}": 1}}) for index in range(MOST_SHAPES + 500)]
    Path("a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for structure in (open_source("a.jsonl").structure(), of_rows(open_source("a.jsonl").rows), held(Path("a.jsonl"))):
        (group,) = structure.groups
        assert group.shape == coarse(shape_of({"id": 1, "votes": {"user1": 1}}), 1)
        assert (group.rows, group.places[:2], structure.rows) == (1500, [1, 2], 1500)
    lines = [json.dumps({f"user{index}": 1}) for index in range(MOST_SHAPES + 500)]
    Path("a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (group,) = open_source("a.jsonl").structure().groups
    assert (group.shape.kind, group.shape.keys, group.rows) == ("object", (), 1500)


def test_one_line_in_another_encoding_is_named() -> None:
    Path("a.jsonl").write_bytes(b'{"a": 1}\n' * 9 + b'{"a": "caf\xe9"}\n')
    with pytest.raises(FindingsError, match="Line 10 isn't UTF-8"):
        _ = open_source("a.jsonl").structure().rows


@pytest.mark.parametrize("text", ["<think>", "|中|", "</x>"])
def test_a_text_is_found_however_it_is_escaped(text: str) -> None:
    rows = [json.dumps({"a": text}), json.dumps({"a": [text]}, ensure_ascii=False), json.dumps({"b": text})]
    rows += [json.dumps({"a": "".join(f"\\u{ord(letter):04x}" for letter in text)}).replace("\\\\", "\\")]
    rows += [json.dumps({"a": text}).replace("/", "\\/")]
    for row in rows:
        Path("a.jsonl").write_text(row + "\n", encoding="utf-8")
        raw = read("a.jsonl")
        assert open_source("a.jsonl").structure().containing("a", text) == RowStructure(raw.rows).containing("a", text)


def test_the_keys_of_a_shape_are_looked_up_without_going_through_all_of_them_again() -> None:
    class Keys(tuple[tuple[str, Shape], ...]):
        passes = 0

        def __iter__(self) -> Iterator[tuple[str, Shape]]:
            Keys.passes += 1
            return super().__iter__()

    shape = Shape("object", Keys((str(number), shape_of(number)) for number in range(1000)))
    assert all(shape.get(str(number)) == shape_of(number) for number in range(1000))
    assert shape.get("x") is None
    assert Keys.passes == 1
