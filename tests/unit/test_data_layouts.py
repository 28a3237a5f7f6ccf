"""Every layout of docs/data-layouts.md: detected, judged, converted, and converted alike by the printed code."""

import csv
import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.layouts import Documented, documented
from tunesmith.data.convert import reader
from tunesmith.data.formats import METHODS, detect
from tunesmith.data.prepare import prepare, training_rows
from tunesmith.data.sources import read
from tunesmith.recipe.schema import Mapping

LAYOUTS = documented()
EVERY = pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.name for layout in LAYOUTS])
KEYS = {
    "sft": [{"messages"}, {"prompt", "completion"}, {"text"}],
    "clm": [{"text"}],
    "dpo": [{"prompt", "chosen", "rejected"}],
    "reward": [{"prompt", "chosen", "rejected"}],
    "kto": [{"prompt", "completion", "label"}, {"prompt", "chosen", "rejected"}],
    "grpo": [{"prompt"}, {"prompt", "reference"}],
    "rloo": [{"prompt"}, {"prompt", "reference"}],
}


def write(folder: Path, layout: Documented) -> Path:
    path = folder / "rows.jsonl"
    path.write_text((json.dumps(layout.row, ensure_ascii=False) + "\n") * 2, encoding="utf-8")
    return path


def run(code: str) -> list[dict[str, Any]]:
    """The rows that printed code makes."""
    names: dict[str, Any] = {}
    exec(code, names)
    return list(names["rows"])


def exactly(rows: list[dict[str, Any]]) -> str:
    """Rows as JSON, in which true isn't 1, and null isn't nothing."""
    return json.dumps(rows, sort_keys=True)


@EVERY
def test_the_verdicts_are_those_of_the_table(layout: Documented) -> None:
    found = detect([layout.row] * 2, Mapping())
    assert found.layout == layout.layout
    assert [verdict.method for verdict in found.verdicts] == list(METHODS)
    for verdict in found.verdicts:
        said = layout.verdicts[verdict.method]
        assert verdict.status == (said if isinstance(said, str) else "NEEDS MAPPING")
        assert (verdict.mapping or {}, verdict.filter or {}) == (
            layout.mapping(verdict.method),
            layout.filter(verdict.method),
        )
        assert verdict.reason.endswith(".")


@EVERY
def test_with_its_mapping_each_method_gets_rows_of_trls_layout(layout: Documented, tmp_path: Path) -> None:
    raw = read(str(write(tmp_path, layout)))
    for method in layout.trained:
        mapping, kept = Mapping(**layout.mapping(method)), layout.filter(method)
        assert detect(raw.rows, mapping, filtered=kept).verdict_of(method).status == "READY"
        done = prepare(raw, mapping, "error", generation_marks=True, method=method, filter=kept)
        assert [finding.code for finding in done.findings if finding.severity == "error"] == []
        assert len(done.rows) == 2
        assert set(done.rows[0]) - {"tools"} in KEYS[method]


@EVERY
def test_the_printed_code_runs_and_makes_the_same_rows(layout: Documented, tmp_path: Path) -> None:
    path = write(tmp_path, layout)
    rows = read(str(path)).rows
    for verdict in detect(rows, Mapping(), source=str(path)).verdicts:
        if verdict.status == "INCOMPATIBLE":
            assert verdict.code is None
            continue
        assert verdict.code is not None
        mapped = detect(rows, Mapping(**(verdict.mapping or {})), filtered=verdict.filter or {})
        wanted = [reader(mapped, conversational=False, method=verdict.method)(row) for row in rows]
        assert exactly(run(verdict.code)) == exactly(wanted), verdict.code


Rows = list[dict[str, Any]]


def as_lines(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def as_document(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows), encoding="utf-8")


def as_table(path: Path, rows: Rows, delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def as_parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def as_gzip(path: Path, rows: Rows) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


CONTAINERS: list[tuple[str, Callable[[Path, Rows], None]]] = [
    ("rows.jsonl", as_lines),
    ("rows.json", as_document),
    ("rows.csv", as_table),
    ("semicolons.csv", partial(as_table, delimiter=";")),
    ("rows.tsv", partial(as_table, delimiter="\t")),
    ("rows.parquet", as_parquet),
    ("rows.jsonl.gz", as_gzip),
]
# Texts that a reader of tables might take for numbers, dates, nothing or the end of a line.
ODD = ("007", "NA", "1.0", "true", 'a "q", b; c\td\nline', "  x ", "null")
PAIRS = [{"prompt": text, "completion": text} for text in ODD]
QUESTIONS = [{"question": text, "answer": f"{text}!", "id": str(number)} for number, text in enumerate(ODD)]
MARKED = [{"prompt": "p", "completion": text, "label": str(number % 2)} for number, text in enumerate(ODD)]


@pytest.mark.parametrize("rows", [PAIRS, QUESTIONS, MARKED], ids=["pairs", "questions", "marked"])
@pytest.mark.parametrize(("name", "write_rows"), CONTAINERS, ids=[name for name, _ in CONTAINERS])
def test_the_printed_code_runs_for_every_container(
    name: str, write_rows: Callable[[Path, Rows], None], rows: Rows, tmp_path: Path
) -> None:
    path = tmp_path / name
    write_rows(path, rows)
    for verdict in detect(read(str(path)).rows, Mapping(), source=str(path)).verdicts:
        if verdict.code is not None:
            wanted = training_rows(str(path), verdict.method, verdict.mapping, verdict.filter)
            assert wanted
            assert exactly(run(verdict.code)) == exactly(wanted), verdict.code


TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize("cell", [json.dumps(TALK), repr(TALK)])
def test_conversations_in_the_cells_of_a_table(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    as_table(path, [{"id": "1", "messages": cell}] * 2)
    code = detect(read(str(path)).rows, Mapping(), source=str(path)).verdict.code
    assert code is not None
    assert "training_rows" in code
    assert run(code) == [{"messages": TALK}] * 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("blanks.csv", "prompt, completion\na,b\n"),
        ("mark.csv", "\ufeffprompt,completion\na,b\n"),
        ("mark.jsonl", '\ufeff{"prompt": "a", "completion": "b"}\n'),
        ("inside.json", '{"data": [{"prompt": "a", "completion": "b"}]}'),
        ("far.json", " " * 99 + '[{"prompt": "a", "completion": "b"}]'),
        ("rows.data", "prompt,completion\na,b\n"),
    ],
)
def test_files_that_datasets_would_read_otherwise_are_read_by_tunesmith(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    code = detect(read(str(path)).rows, Mapping(), source=str(path)).verdict.code
    assert code is not None
    assert "training_rows" in code
    assert run(code) == [{"prompt": "a", "completion": "b"}]


def test_tables_in_utf_16_are_read_by_tunesmith(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("prompt,completion\na,b\n".encode("utf-16"))
    code = detect(read(str(path)).rows, Mapping(), source=str(path)).verdict.code
    assert code is not None
    assert run(code) == [{"prompt": "a", "completion": "b"}]


def test_lines_that_are_lists_are_read_by_tunesmith(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(TALK)}\n" * 2, encoding="utf-8")
    code = detect(read(str(path)).rows, Mapping(), source=str(path)).verdict.code
    assert code is not None
    assert run(code) == [{"messages": TALK}] * 2


def test_each_tool_call_keeps_its_own_arguments(tmp_path: Path) -> None:
    def called(**arguments: str) -> list[dict[str, Any]]:
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        return [TALK[0], {"role": "assistant", "content": "", "tool_calls": [call]}]

    path = tmp_path / "rows.jsonl"
    as_lines(path, [{"messages": called(a="x")}, {"messages": called(b="y")}])
    code = detect(read(str(path)).rows, Mapping(), source=str(path)).verdict.code
    assert code is not None
    assert exactly(run(code)) == exactly([{"messages": called(a="x")}, {"messages": called(b="y")}])


def test_several_right_answers_stay_a_list_in_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    as_lines(path, [{"prompt": [TALK[0]], "answers": ["x", "y"]}])
    code = detect(read(str(path)).rows, Mapping(), source=str(path)).verdict_of("grpo").code
    assert code is not None
    assert run(code) == [{"prompt": [TALK[0]], "reference": ["x", "y"]}]


def test_marks_are_booleans_in_the_dataset_and_slips_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "p", "completion": "c", "label": number % 2} for number in range(40)]
    for slips in ([], [{**rows[0], "label": 7}], [{**rows[0], "label": "maybe"}]):
        as_lines(path, rows + slips)
        code = detect(read(str(path)).rows, Mapping(), source=str(path)).verdict_of("kto").code
        assert code is not None
        made = run(code)
        assert [row["label"] for row in made] == [bool(number % 2) for number in range(40)]
        assert {type(row["label"]) for row in made} == {bool}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a row."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(found for key, inner in items for found in leaves(inner, (*path, key)))]


def replaced(row: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A row with another value at a path."""
    if not path:
        return value
    changed = row.copy()
    changed[path[0]] = replaced(row[path[0]], path[1:], value)
    return changed


def spoiled(row: dict[str, Any]) -> Rows:
    """The row with each of its values in turn empty, blank or null, each list cut short, and each text copied on."""
    rows = [replaced(row, path, value) for path in leaves(row) for value in ("", " ", None)]
    for path in leaves(row):
        found: Any = row
        for key in path:
            found = found[key]
        if isinstance(found, list):
            rows += [replaced(row, path, short) for short in ([], found[:-1], found[1:], [*found, found[0]])]
        if path == ("chosen",):
            rows.append(replaced(row, ("rejected",), found))
    return rows


@EVERY
def test_the_printed_code_leaves_out_the_rows_that_cant_be_trained_on(layout: Documented, tmp_path: Path) -> None:
    for number, bad in enumerate(spoiled(layout.row)):
        path = tmp_path / f"{number}.jsonl"
        as_lines(path, [layout.row, bad, layout.row])
        for verdict in detect(read(str(path)).rows, Mapping(), source=str(path)).verdicts:
            if verdict.code is None or "training_rows" in verdict.code:
                continue  # which leaves them out itself
            shown = exactly(run(verdict.code))
            wanted = training_rows(str(path), verdict.method, verdict.mapping, verdict.filter)
            assert shown == exactly(wanted), (bad, verdict.code)


@pytest.mark.parametrize(
    "rejected",
    [
        "Go away",
        [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "Go away"}],
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Go away"}],
    ],
)
def test_pairs_of_unlike_answers_are_left_to_tunesmith(rejected: Any, tmp_path: Path) -> None:
    row = {"prompt": [TALK[0]], "chosen": [TALK[1]], "rejected": rejected}
    as_lines(tmp_path / "a.jsonl", [row] * 2)
    path = str(tmp_path / "a.jsonl")
    code = detect(read(path).rows, Mapping(), source=path).verdict_of("dpo").code
    assert code is not None
    assert "training_rows" in code
