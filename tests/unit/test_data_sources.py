"""Reading files: every format gives the same rows, and every way in which a file can be broken is named."""

import csv
import datetime
import io
import json
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith import pipeline
from tunesmith.data.rows import Numbered
from tunesmith.data.sources import json_text, read, tables
from tunesmith.errors import UsageError
from tunesmith.files import sha256
from tunesmith.records import PreparationSettings
from tunesmith.rules import FindingsError, refuse_errors

ROWS = [{"prompt": "a, b", "completion": "one\ntwo"}, {"prompt": 'say "hi"', "completion": "naïve ☕"}]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def table(rows: list[dict[str, str]], delimiter: str) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def read_table(text: str, delimiter: str) -> list[dict[str, object] | None]:
    return [row for _, row, *_ in tables.read_table(io.BytesIO(text.encode()), "x", delimiter)]


def lines(rows: list[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path) -> FindingsError:
    with pytest.raises(FindingsError) as caught:
        refuse_errors(filter(None, [read(path).unparsed()]))
    return caught.value


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps(ROWS, indent=2, ensure_ascii=False)),
        ("a.json", json.dumps({"version": 1, "data": ROWS})),
        ("a.jsonl", lines(ROWS)),
        ("a.jsonl", "\ufeff" + lines(ROWS)),
        ("a.jsonl", lines(ROWS).replace("\n", "\r\n")),
        ("a.csv", table(ROWS, ",")),
        ("a.csv", "\ufeff" + table(ROWS, ";")),
        ("a.csv", table(ROWS, "|")),
        ("a.tsv", table(ROWS, "\t")),
        # the content decides, not the ending
        ("a.json", lines(ROWS)),
        ("a.jsonl", json.dumps(ROWS, indent=1)),
        ("a.jsonl", json.dumps(ROWS)),
        ("a.txt", table(ROWS, ",")),
        ("noending", lines(ROWS)),
    ],
)
def test_every_text_format_gives_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    assert read(put(tmp_path, name, content)).rows == ROWS


def test_parquet_under_any_name(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "x"}], "n": 1}, {"messages": [], "n": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.json")
    raw = read(tmp_path / "a.json")
    assert raw.rows == rows
    assert raw.places == [1, 2]


def test_the_fingerprint_is_of_the_files_bytes(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", "\ufeff" + lines(ROWS))
    raw = read(path)
    assert (raw.sha256, raw.bytes, raw.name) == (sha256(path), path.stat().st_size, "a.jsonl")
    assert [(file.name, file.rows) for file in raw.files] == [(str(path), 2)]


def test_bare_arrays_of_messages_become_rows(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert read(put(tmp_path, "a.jsonl", lines([chat, chat]))).rows == [{"messages": chat}] * 2
    assert read(put(tmp_path, "b.json", json.dumps(chat))).rows == [{"messages": chat}]


@pytest.mark.parametrize("name", ["one.json", "one.jsonl"])
def test_a_single_conversation_is_one_row_not_its_messages(tmp_path: Path, name: str) -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert read(put(tmp_path, name, json.dumps(row))).rows == [row]


def test_rows_of_input_and_output_are_rows_not_a_conversation(tmp_path: Path) -> None:
    rows = [{"input": "a", "output": "b"}, {"input": "c", "output": "d"}]
    assert read(put(tmp_path, "a.json", json.dumps(rows))).rows == rows


def test_places_count_lines_with_blank_ones(tmp_path: Path) -> None:
    raw = read(put(tmp_path, "a.jsonl", '{"text": "a"}\n\n  \n{"text": "b"}'))
    assert raw.places == [1, 4]


def test_places_in_csv_are_where_a_record_starts(tmp_path: Path) -> None:
    raw = read(put(tmp_path, "a.csv", 'a,b\n"1\n2\n3",x\n\n4,y\n'))
    assert raw.rows == [{"a": "1\n2\n3", "b": "x"}, {"a": "4", "b": "y"}]
    assert raw.places == [2, 6]


def test_csv_values_stay_text(tmp_path: Path) -> None:
    assert read(put(tmp_path, "a.csv", "a,b\n01,\n")).rows == [{"a": "01", "b": ""}]


def test_csv_with_one_column(tmp_path: Path) -> None:
    assert read(put(tmp_path, "a.csv", "text\nhello; world\nbye\n")).rows == [{"text": "hello; world"}, {"text": "bye"}]


def test_tsv_with_one_column_may_hold_commas(tmp_path: Path) -> None:
    assert read(put(tmp_path, "a.tsv", "text\nhello, world\n")).rows == [{"text": "hello, world"}]
    assert refusal(put(tmp_path, "a.csv", "text\nhello, world\n")).findings[0].code == "D001"


def test_csv_fields_may_be_long(tmp_path: Path) -> None:
    assert len(read(put(tmp_path, "a.csv", "a,b\n" + "x" * 200_000 + ",y\n")).rows[0]["a"]) == 200_000


def test_commas_in_free_text_are_no_delimiters(tmp_path: Path) -> None:
    content = "prompt\tcompletion\nOne, two, three\tYes, sure\nA\tB\n"
    assert read(put(tmp_path, "a.csv", content)).rows[0] == {"prompt": "One, two, three", "completion": "Yes, sure"}


def test_line_separators_inside_strings_are_text(tmp_path: Path) -> None:
    row = {"text": "a\u2028b\u0085c"}
    assert read(put(tmp_path, "a.jsonl", json.dumps(row, ensure_ascii=False) + "\n")).rows == [row]


@given(st.lists(st.dictionaries(TEXT, TEXT | st.none() | st.integers() | st.lists(TEXT), max_size=3), min_size=1))
def test_json_lines_round_trip(rows: list[dict[str, object]]) -> None:
    for ascii_only in (True, False):
        text = "\n\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
        parsed = list(json_text.read_lines(text.encode().splitlines(keepends=True), "x", json_text.Reader()))
        assert parsed == [Numbered(1 + 2 * index, row) for index, row in enumerate(rows)]


@given(st.lists(st.fixed_dictionaries({"a": CELL, "b": CELL}), min_size=1), st.sampled_from(",\t;|"))
def test_tables_round_trip(rows: list[dict[str, str]], delimiter: str) -> None:
    assert read_table(table(rows, delimiter), delimiter) == rows


@given(st.lists(st.fixed_dictionaries({"a": CELL, "b": CELL, "c": CELL}), min_size=2), st.sampled_from(",\t;|"))
def test_whatever_is_found_as_delimiter_cuts_the_header_evenly(rows: list[dict[str, str]], delimiter: str) -> None:
    text = table(rows, delimiter)
    found = tables.find_delimiter(text)
    assert found is not None
    assert len(read_table(text, found)) == len(rows)


def test_a_missing_file_and_a_folder_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="isn't there") as refused:
        read(tmp_path / "no.jsonl")
    assert refused.value.why.startswith("A path in a recipe counts from the recipe's folder")
    with pytest.raises(UsageError, match="is a folder without files"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff", "[]", '{"data": []}', "prompt,completion\n"])
def test_d002_no_rows(tmp_path: Path, content: str) -> None:
    name = "a.csv" if content.startswith("prompt") else "a.json"
    assert refusal(put(tmp_path, name, content)).findings[0].code == "D002"


def test_d002_no_rows_in_parquet(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet").findings[0].code == "D002"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lines(ROWS).encode("utf-16-le"), "UTF-16LE"),
        (lines(ROWS).encode("utf-16-be"), "UTF-16BE"),
        (b'{"text": "ok"}\n{"text": "caf\xe9"}\n', "Line 2 isn't UTF-8 (byte 0xe9)"),
        (b'\xef\xbb\xbf{"text": "ok"}\n{"text": "caf\xe9"}\n', "Line 2 isn't UTF-8 (byte 0xe9)"),
        (b"a,b\n1,2\0" + b"x" * 100, "a zero byte stands in line 2"),
        (bytes(range(256)) * 20, "binary"),
        (b"Once upon a time\nthere was a text.\n", "neither JSON, JSONL, CSV, TSV, Parquet nor a text file"),
    ],
)
def test_d003_not_readable_as_text(tmp_path: Path, content: bytes, said: str) -> None:
    error = refusal(put(tmp_path, "a.dat", content))
    assert error.findings[0].code == "D003"
    assert said in error.findings[0].what


def test_d003_says_how_to_recode(tmp_path: Path) -> None:
    assert "iconv -f UTF-16LE -t UTF-8" in refusal(put(tmp_path, "a.jsonl", lines(ROWS).encode("utf-16-le"))).fix


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": }\n{"b"\n{"a": 2}\n', "2 lines can't be parsed, the first is line 3: Expecting"),
        ("a.jsonl", 'oops\n{"a": 1}\n', "In line 1: Expecting value, column 1."),
        ("a.jsonl", '{"a": 1}\n{"a": "cut o', "In line 2: Unterminated string starting at, column 7; the file seems"),
        ("a.json", '{"a": 1}\n{"a": 2}\n{"a": 3}\n{a}\n{"a": 4}\n', "In line 4: Expecting property name"),
        ("a.jsonl", '{"a": 1}\n"text"\n', "In line 2: a row must be an object, this is text."),
        ("a.jsonl", '{"a": 1}\n[1, 2]\n', "In line 2: a row must be an object, this is a list."),
        ("a.jsonl", '{"a": 1}\nnull\n', "In line 2: a row must be an object, this is null."),
        ("a.jsonl", '{"a": "\\ud83d"}\n', "In line 1: half of a surrogate pair"),
        ("a.json", '[{"a": "x"}, {"a": "\\ude00"}]', "In row 2: half of a surrogate pair"),
        ("a.json", '[{"a": 1}, 2, "x"]', "2 rows can't be parsed, the first is row 2: a row must be an object"),
        (
            "a.json",
            '[\n {"a": 1},\n {"a": 2',
            "In line 3: Expecting ',' delimiter, column 9; the file seems to be cut off",
        ),
        ("a.json", "[" * 100_000, "nested deeper than 100 levels"),
        (
            "a.csv",
            "a,b\n1,2\n1,2,3\n4\n5,6\n",
            "2 lines can't be parsed, the first is line 3: 3 fields, where the header has 2.",
        ),
        ("a.csv", "a,a\n1,2\n", "In line 1: the header must give every column a name of its own."),
        ("a.csv", "a,\n1,2\n", "In line 1: the header must give every column a name of its own."),
        ("a.csv", 'a,b\n1,"never closed\n2,3\n', "In line 2: unexpected end of data"),
    ],
)
def test_d001_a_row_that_cant_be_parsed(tmp_path: Path, name: str, content: str, said: str) -> None:
    error = refusal(put(tmp_path, name, content))
    assert error.findings[0].code == "D001"
    assert said in error.findings[0].what


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": ' + "1" * 5000 + "}\n", "In line 2: a number of more than 4,300 digits."),
        ("a.json", '[{"a": ' + "1" * 5000 + "}]", "It holds a number of more than 4,300 digits."),
        ("a.csv", "a,b\r1,2\r3,4\r", "In line 1: a carriage return (\\r) alone ends no line"),
        ("a.jsonl", '{"a": 1}\n{"a": 1\n', "In line 2: Expecting ',' delimiter, column 8."),
    ],
)
def test_d001_says_in_words_of_its_own(tmp_path: Path, name: str, content: str, said: str) -> None:
    what = refusal(put(tmp_path, name, content)).findings[0].what
    assert said in what
    assert "universal-newline" not in what
    assert "Exceeds" not in what


PRETTY = "\n".join(json.dumps(row, indent=2) for row in ROWS) + "\n"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("copies", [1, 3, 20_000])
def test_objects_over_several_lines_are_rows(tmp_path: Path, name: str, copies: int) -> None:
    raw = read(put(tmp_path, name, PRETTY * copies))
    assert raw.rows == ROWS * copies
    assert raw.places == list(range(1, 2 * copies + 1))
    assert raw.unit == "row"


def test_d001_an_object_over_several_lines_that_is_broken(tmp_path: Path) -> None:
    content = PRETTY + '{\n  "a": 1,\n  "b": }\n' + PRETTY
    error = refusal(put(tmp_path, "a.jsonl", content))
    assert error.findings[0].what == "In line 11: Expecting value, column 8."
    assert "`sed -n 11p a.jsonl` shows it" in error.fix
    cut = refusal(put(tmp_path, "cut.jsonl", PRETTY[:-2])).findings[0].what
    assert cut.endswith("the file seems to be cut off there.")
    assert "lines can't be parsed" not in cut
    first = refusal(put(tmp_path, "first.jsonl", '{\n"a": ,\n"b": 1\n}\n' + PRETTY)).findings[0].what
    assert first == "In line 2: Expecting value, column 6."


def test_objects_over_several_lines_are_looked_at_like_others(tmp_path: Path) -> None:
    content = '{\n"a": 1}\n{\n"a": 2, "a": NaN}\n{\n"a": 3}\n{\n"b": "\\ud800"}\n'
    raw = read(put(tmp_path, "a.jsonl", content))
    assert [(found.code, "row 2" in found.what) for found in raw.findings] == [("D020", True), ("D021", True)]
    assert raw.unparsed() is not None
    assert "In row 4: half of a surrogate pair" in str(raw.unparsed())


def test_d001_in_the_report_counts_lines_of_a_document_that_was_read_as_lines(tmp_path: Path) -> None:
    report = pipeline.inspect(str(put(tmp_path, "a.jsonl", '[oops\n[oops\n{"prompt": "a", "completion": "b"}\n')))
    assert "2 lines can't be parsed, the first is line 1" in report.findings[0].what


def test_d001_names_the_command_that_shows_the_line(tmp_path: Path) -> None:
    assert "`sed -n 2p a.jsonl` shows it" in refusal(put(tmp_path, "a.jsonl", '{"a": 1}\n{\n')).fix


@pytest.mark.parametrize("size", [4, 40, -6])
def test_d001_a_parquet_file_that_was_cut_off(tmp_path: Path, size: int) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    cut = put(tmp_path, "cut.parquet", (tmp_path / "a.parquet").read_bytes()[:size])
    error = refusal(cut)
    assert error.findings[0].code == "D001"
    assert "damaged or cut off" in error.findings[0].what


def test_emoji_written_as_a_surrogate_pair_is_text(tmp_path: Path) -> None:
    assert read(put(tmp_path, "a.jsonl", '{"a": "\\ud83d\\ude00"}\n')).rows == [{"a": "😀"}]


AT = datetime.datetime(2026, 1, 5, 10, 30)
DATED = [
    {
        "messages": [
            {"role": "user", "content": f"q{n}", "at": AT},
            {"role": "assistant", "content": "a", "at": AT, "cost": Decimal("1.50")},
        ],
        "created_at": AT + datetime.timedelta(days=n),
        "day": AT.date(),
    }
    for n in range(3)
]


def test_dates_of_parquet_are_text_inside_rows_and_themselves_in_a_column(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(DATED), tmp_path / "a.parquet")
    first = read(tmp_path / "a.parquet").rows[0]
    assert first["messages"][1] | {"role": ""} == {"role": "", "content": "a", "at": str(AT), "cost": "1.50"}
    assert (first["created_at"], first["day"]) == (AT, AT.date())


def test_dates_of_parquet_are_columns_to_inspect_group_and_filter_by(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(DATED), tmp_path / "a.parquet")
    report = pipeline.inspect(tmp_path / "a.parquet")
    assert [(column.name, column.type) for column in report.columns[1:]] == [
        ("created_at", "datetime"),
        ("day", "date"),
    ]
    assert (report.layout, report.rows, [found.code for found in report.findings]) == ("messages", 3, [])
    for number, chosen in enumerate(({"group": "created_at"}, {"filter": {"created_at": "2026-01-06 10:30:00"}})):
        data = [str(tmp_path / "a.parquet")]
        settings = PreparationSettings.model_validate({"data": data, "eval": 0, "test": 0, **chosen})
        record = pipeline.prepare_data(settings, tmp_path / f"{number}")
        assert record is not None
        assert sum(file.rows for file in record.files.values()) == (3 if number == 0 else 1)


@pytest.mark.parametrize(
    ("written", "status"),
    [
        ("2026-01-05", "READY"),
        ("2026-1-5", "READY"),
        ("2026-01-05T10:30:00Z", "READY"),
        ("05.01.2026", "READY"),
        ("1/5/26 10:30", "READY"),
        ("10:30", "READY"),
        ("good", "NEEDS MAPPING"),
        ("3.5", "NEEDS MAPPING"),
        ("2026", "NEEDS MAPPING"),
    ],
)
def test_dates_in_a_table_are_text_and_no_classes(written: str, status: str, tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", f"text,label\nHello there,{written}\nGood morning,{written}\n")
    report = pipeline.inspect(path)
    assert [column.type for column in report.columns] == ["text", "text"]
    assert (report.layout, report.verdicts[0].status) == ("text", status)
