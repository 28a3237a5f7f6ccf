"""Conversations that stand in rows as text: opened in every format, and read alike by structure, rows and code."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith import pipeline
from tunesmith.data.formats import detect
from tunesmith.data.prepare import training_rows
from tunesmith.data.rows import Numbered
from tunesmith.data.sources import open_source, read
from tunesmith.data.sources.embedded import Opener, conversation
from tunesmith.recipe.schema import Mapping
from tunesmith.records import PreparationSettings

Rows = list[dict[str, Any]]
CHAT = [{"role": "user", "content": "it's [{x}]"}, {"role": "assistant", "content": "y"}]
TURN = {"role": "assistant", "content": "y"}


@pytest.mark.parametrize("value", [CHAT, TURN])
@pytest.mark.parametrize("written", [json.dumps, repr, lambda value: f" {json.dumps(value, indent=2)}\n"])
def test_a_text_that_is_a_conversation_or_a_turn_is_opened(value: object, written: Callable[[object], str]) -> None:
    assert conversation(written(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        '[{"item": 1}]',
        '{"role": "user"}',
        "[{role: user}]",
        "[{",
        "[{'a': __import__('os')}]",
        "[{" * 5000 + "}]",
        "[{'role': 'user', 'content': {1}}]",
        '[{"role": "user", "content": "\\ud800"}]',
        '[{"role": "user", "content": ' + "[" * 120 + "]" * 120 + "}]",
        "[]",
        "{}",
        "{'a'}",
        "",
        None,
        CHAT,
    ],
)
def test_anything_else_stays_as_it_is(value: object) -> None:
    assert conversation(value) is None


def as_lines(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def as_document(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows), encoding="utf-8")


def as_table(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def as_parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


CONTAINERS = pytest.mark.parametrize(
    ("name", "write"),
    [("a.jsonl", as_lines), ("a.json", as_document), ("a.csv", as_table), ("a.parquet", as_parquet)],
)


def texts(count: int) -> Rows:
    return [{"id": f"i{n}", "messages": json.dumps([*CHAT[:1], TURN | {"content": f"y{n}"}])} for n in range(count)]


@CONTAINERS
def test_every_format_gives_the_same_rows_and_the_report_says_so(
    name: str, write: Callable[[Path, Rows], None], tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path, texts(3))
    report = pipeline.inspect(str(path), quality=False)
    assert (report.layout, report.rows, report.rows_invalid) == ("messages", 3, 0)
    assert [column.type for column in report.columns] == ["text", "list"]
    (found,) = [found for found in report.findings if found.code == "D048"]
    assert (found.severity, found.what) == (
        "note",
        "The column messages holds conversations as text (JSON, or a Python literal); they are read in 3 rows.",
    )


@CONTAINERS
def test_the_printed_code_opens_them_too(name: str, write: Callable[[Path, Rows], None], tmp_path: Path) -> None:
    path = tmp_path / name
    write(path, texts(2))
    code = detect(read(str(path)).rows, Mapping(), source=str(path)).verdict.code
    assert code is not None
    names: dict[str, Any] = {}
    exec(code, names)
    assert (
        list(names["rows"]) == training_rows(str(path)) == [{"messages": json.loads(r["messages"])} for r in texts(2)]
    )


def test_chosen_and_rejected_turns_as_text_are_pairs(tmp_path: Path) -> None:
    pair = {"prompt": "Hi", "chosen": json.dumps(TURN), "rejected": json.dumps(TURN | {"content": "z"})}
    as_lines(tmp_path / "a.jsonl", [pair] * 2)
    (row, _) = training_rows(str(tmp_path / "a.jsonl"), "dpo")
    assert (row["chosen"], row["rejected"]) == ([TURN], [TURN | {"content": "z"}])


def test_structure_is_that_of_the_rows_and_the_duckdb_pass_gives_way(tmp_path: Path) -> None:
    as_lines(tmp_path / "a.jsonl", texts(3))
    as_lines(tmp_path / "b.jsonl", [{"id": "j", "messages": CHAT}])
    opened = open_source([str(tmp_path / "b.jsonl"), str(tmp_path / "a.jsonl")])
    found = detect(opened.structure(), Mapping())
    assert [(part.sight.layout, part.rows) for part in found.parts] == [("messages", 4)]
    settings = PreparationSettings(data=[str(tmp_path / "a.jsonl")], eval=0, test=0)
    record = pipeline.prepare_data(settings, tmp_path / "dataset")
    assert record is not None
    assert sum(file.rows for file in record.files.values()) == 3


def test_a_column_of_other_texts_is_left_alone_whatever_stands_in_some() -> None:
    rows: Rows = [{"text": json.dumps(CHAT)}, {"text": "a"}, {"text": "b"}, {"text": ""}]
    opener = Opener()
    assert [row for _, row, *_ in opener.rows(Numbered(n, row) for n, row in enumerate(rows))] == rows
    assert opener.opened == {}


def test_nulls_lists_and_broken_rows_go_through_and_a_text_that_is_none_stays() -> None:
    rows: Rows = [{"m": json.dumps(CHAT)}, {"m": json.dumps(CHAT)}, {"m": "no"}, {"m": None}, {"m": CHAT}, {}]
    given = [Numbered(0, None, "broken"), *(Numbered(n, row) for n, row in enumerate(rows, 1))]
    opener = Opener()
    assert list(opener.rows(given)) == [
        given[0],
        *(Numbered(n, {"m": CHAT}) for n in (1, 2)),
        *given[3:],
    ]
    assert opener.opened["m"].rows == 2


def test_rows_after_the_first_hundred_are_opened_as_those() -> None:
    rows = [Numbered(n, {"m": json.dumps(CHAT)}) for n in range(250)]
    opener = Opener()
    assert all(row == {"m": CHAT} for _, row, *_ in opener.rows(rows))
    assert opener.opened["m"].rows == 250


def test_blank_texts_have_no_say_and_the_given_rows_are_left_as_they_are() -> None:
    row = {"m": json.dumps(CHAT)}
    rows = [Numbered(0, row), *(Numbered(n, {"m": " "}) for n in (1, 2, 3))]
    assert [found for _, found, *_ in Opener().rows(rows)] == [{"m": CHAT}, *[{"m": " "}] * 3]
    assert row == {"m": json.dumps(CHAT)}
