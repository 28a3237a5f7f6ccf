"""From a name to rows: folders, globs, lists, mixtures, packed files, encodings, texts, and what is wrong with them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.sources import content, json_text, mixture, open_source, packed, plain, read
from tunesmith.data.sources.found import is_hub
from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.recipe.schema import Source
from tunesmith.rules import FindingsError, refuse_errors

ROWS = [{"text": "naïve ☕"}, {"text": "b"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def zipped(data: bytes, *names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("a.jsonl",):
            archive.writestr(name, data)
    return out.getvalue()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
    "zip": zipped,
}


def put(name: str, data: bytes | str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def codes(path: str | Path) -> tuple[str, str]:
    with pytest.raises(FindingsError) as caught:
        refuse_errors(filter(None, [read(path).unparsed()]))
    return caught.value.findings[0].code, caught.value.findings[0].what


@pytest.mark.parametrize("ending", PACKINGS)
def test_packed_files_are_read(ending: str) -> None:
    pack = PACKINGS[ending]
    assert read(put(f"a.jsonl.{ending}", pack(LINES))).rows == ROWS
    assert read(put("table.csv.x", pack(b"a,b\n1,2\n"))).rows == [{"a": "1", "b": "2"}]
    table = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), table)
    assert read(put("p.parquet", pack(table.getvalue()))).rows == ROWS


@pytest.mark.parametrize("ending", PACKINGS)
def test_d001_a_packed_file_that_was_cut_off(ending: str) -> None:
    whole = PACKINGS[ending](os.urandom(40_000).hex().encode() * 2)
    code, what = codes(put("a.jsonl", whole[: len(whole) // 2]))
    assert code == "D001"
    assert "damaged or cut off" in what


def test_d003_an_archive_of_several_files() -> None:
    assert codes(put("a.zip", zipped(LINES, "a.jsonl", "b.jsonl"))) == (
        "D003",
        "This zip archive holds 2 files, not one.",
    )
    assert read(put("b.zip", zipped(LINES, "a.jsonl", "__MACOSX/._a.jsonl"))).rows == ROWS


@pytest.mark.parametrize("ending", PACKINGS)
def test_d022_a_zip_bomb(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_HARMLESS", 1 << 20)
    monkeypatch.setattr(packed, "MOST_RATIO", 20)
    assert codes(put("a.jsonl", PACKINGS[ending](b'{"text": "a"}\n' * 200_000)))[0] == "D022"
    assert read(put("b.jsonl", PACKINGS[ending](b'{"text": "a"}\n' * 50_000))).rows[0] == {"text": "a"}


@pytest.mark.parametrize("ending", PACKINGS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_d022_a_bomb_of_one_line_is_refused_before_it_fills_the_memory(
    name: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[int] = []

    class Measured(packed._Unpacked):
        def _guarded(self, step: Callable[[], Any]) -> Any:
            made = super()._guarded(step)
            unpacked.append(len(made) if isinstance(made, bytes) else 0)
            return made

    monkeypatch.setattr(packed, "_HARMLESS", 4 << 20)
    monkeypatch.setattr(packed, "MOST_RATIO", 20)
    monkeypatch.setattr(packed, "_Unpacked", Measured)
    assert codes(put(name, PACKINGS[ending](b'{"text": "' + b"a" * (64 << 20))))[0] == "D022"
    # Once for the look at the beginning, once for the rows.
    assert sum(unpacked) < 12 << 20


def test_d022_says_a_zip_archive_itself_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("a.jsonl", zipped(b" " * (80 << 20), "a.jsonl"))
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    assert codes(path)[0] == "D022"


def test_a_document_is_handed_on_in_pieces() -> None:
    joined = packed._Joined(b"", io.BytesIO(b"a" * (4 << 20)))
    assert joined.readinto(bytearray(4 << 20)) == 1 << 20


def test_zstd_unpacks_in_small_pieces() -> None:
    class Frames(io.BytesIO):
        """Remembers how much was asked for at once."""

        most = 0

        def read(self, size: int | None = -1) -> bytes:
            Frames.most = max(Frames.most, size or 0)
            return super().read(size)

    text = os.urandom(100_000).hex().encode()
    reader = packed._Zstd(Frames(PACKINGS["zst"](text) + PACKINGS["zst"](b"end")))
    assert b"".join(iter(lambda: reader.read(1 << 16), b"")) == text + b"end"
    # A block of 4 bytes can stand for 128 KiB.
    assert Frames.most // 4 * (128 << 10) <= packed._HARMLESS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be", "utf-32-be", "utf-8-sig"])
def test_a_byte_order_mark_says_the_encoding(encoding: str) -> None:
    text = ("\ufeff" if encoding.endswith("be") else "") + LINES.decode()
    assert read(put("a.jsonl", text.encode(encoding))).rows == ROWS
    assert read(put("a.csv", "\ufeffa,b\nä,ö\n".encode("utf-16-le"))).rows == [{"a": "ä", "b": "ö"}]


def test_d003_broken_utf16_names_the_line() -> None:
    assert codes(put("a.jsonl", LINES.decode().encode("utf-16")[:-1])) == (
        "D003",
        "Line 2 isn't UTF-16-LE (truncated data).",
    )


def test_zstd_of_several_frames() -> None:
    pack = PACKINGS["zst"]
    assert read(put("a.jsonl.zst", pack(LINES) + pack(LINES))).rows == ROWS * 2


def test_objects_of_rows_by_id() -> None:
    rows = {"x1": {"text": "a"}, "x2": {"text": "b", "n": 1}}
    for text in (json.dumps(rows), json.dumps(rows, indent=2)):
        assert read(put("a.json", text)).rows == [{"id": "x1", "text": "a"}, {"id": "x2", "text": "b", "n": 1}]
    assert read(put("a.json", '{"x": {"id": 7, "t": 1}, "y": {"id": 8, "t": 2}}')).rows[0] == {"id": 7, "t": 1}
    one = {"prompt": {"role": "user"}, "answer": {"text": "x"}}
    assert read(put("b.json", json.dumps(one))).rows == [one]


def test_a_text_file_is_its_paragraphs_and_one_of_several_is_a_document() -> None:
    text = "One\ntwo.\n\n \nThree: a, b\n\r\nFour\n"
    put("docs/a.txt", text)
    put("docs/b.md", "# Title\n\nBody\n")
    alone = read("docs/a.txt")
    assert (alone.rows, alone.places) == ([{"text": t} for t in ("One\ntwo.", "Three: a, b", "Four")], [1, 5, 7])
    several = read("docs")
    assert several.rows == [{"text": text.rstrip("\n")}, {"text": "# Title\n\nBody"}]
    assert several.places == ["a.txt:1", "b.md:1"]


def test_a_long_document_is_a_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "MOST_DOCUMENT", 10)
    put("docs/a.txt", "one\n\ntwo\n\nthree\n")
    put("docs/b.txt", "four\n\n5\n")
    assert [row["text"] for row in read("docs").rows] == ["one", "two", "three", "four\n\n5"]


def test_markdown_that_begins_with_a_bracket_is_text() -> None:
    assert read(put("a.md", "[link](x)\n\n{curly}\n")).rows == [{"text": "[link](x)"}, {"text": "{curly}"}]


def test_a_folder_in_order_without_hidden_files_and_with_a_link_to_itself() -> None:
    put("data/b.jsonl", '{"n": 2}\n')
    put("data/a.jsonl", '{"n": 1}\n')
    put("data/sub/c.jsonl", '{"n": 3}\n')
    put("data/.hidden", "junk")
    put("data/.git/config.jsonl", "junk")
    Path("data/loop").symlink_to("..")
    Path("data/self").symlink_to("self")
    raw = read("data")
    assert [row["n"] for row in raw.rows] == [1, 2, 3]
    assert raw.places == ["a.jsonl:1", "b.jsonl:1", "sub/c.jsonl:1"]
    assert (raw.name, len(raw.files), raw.bytes) == ("3 files", 3, 27)
    with pytest.raises(UsageError, match="a link to nothing, or to itself"):
        read("data/self")


def test_globs_and_lists() -> None:
    for name in ("a1", "a2", "b1"):
        put(f"x/{name}.jsonl", json.dumps({"n": name}) + "\n")
    assert [row["n"] for row in read("x/a*.jsonl").rows] == ["a1", "a2"]
    assert [row["n"] for row in read(["x/b1.jsonl", "x/a1.jsonl"]).rows] == ["b1", "a1"]
    with pytest.raises(UsageError, match="matches no file"):
        read("x/c*.jsonl")
    put("x/odd[1].jsonl", '{"n": 1}\n')
    assert read("x/odd[1].jsonl").rows == [{"n": 1}]


def test_equal_names_in_different_folders_are_told_apart() -> None:
    put("x/a.jsonl", '{"n": 1}\n')
    put("y/a.jsonl", '{"n": 2}\n')
    assert read(["x/a.jsonl", "y/a.jsonl"]).places == ["x/a.jsonl:1", "y/a.jsonl:1"]


def test_the_fingerprint_of_several_files_depends_on_each() -> None:
    put("a.jsonl", '{"n": 1}\n')
    put("b.jsonl", '{"n": 2}\n')
    both = read(["a.jsonl", "b.jsonl"]).sha256
    put("b.jsonl", '{"n": 3}\n')
    assert read(["a.jsonl", "b.jsonl"]).sha256 != both


def test_at_most_so_many_rows() -> None:
    put("a.jsonl", "".join(f'{{"n": {n}}}\n' for n in range(9)))
    assert [row["n"] for row in read(Source(path="a.jsonl", rows=4)).rows] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("path", "hub"),
    [("someone/rows", True), ("hf://datasets/someone/rows", True), ("x/rows.jsonl", False), ("rows", False)],
)
def test_what_looks_like_a_hub_id(path: str, hub: bool) -> None:
    assert is_hub(Source(path=path)) is hub


def test_a_folder_goes_before_the_hub() -> None:
    put("someone/rows/a.jsonl", '{"n": 1}\n')
    assert not is_hub(Source(path="someone/rows"))
    assert not is_hub(Source(path="someone/rows", split="train"))
    assert is_hub(Source(path="hf://datasets/someone/rows"))


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["train.jsonl", "test.jsonl", "README.md"], None, ["train.jsonl"]),
        (["train.jsonl", "test.jsonl"], "test", ["test.jsonl"]),
        (["data/train-00000-of-2.jsonl", "data/train-00001-of-2.jsonl", "data/validation-0.jsonl"], None, ["0", "1"]),
        (["dev/a.jsonl", "train/a.jsonl"], "validation", ["dev/a.jsonl"]),
        (["a.jsonl", "b.jsonl", "LICENSE"], None, ["a.jsonl", "b.jsonl"]),
        (["test.jsonl", "eval.jsonl"], None, ["eval.jsonl", "test.jsonl"]),
        (["trainees.jsonl", "contest.jsonl"], None, ["contest.jsonl", "trainees.jsonl"]),
    ],
)
def test_of_a_folder_one_split_is_read(names: list[str], split: str | None, expected: list[str]) -> None:
    for name in names:
        put(f"set/{name}", "card" if name in ("README.md", "LICENSE") else f'{{"n": "{name}"}}\n')
    raw = read(Source(path="set", split=split))
    assert len(raw.rows) == len(expected)
    assert all(end in row["n"] for end, row in zip(expected, raw.rows, strict=True))
    data = [name for name in names if name.endswith(".jsonl")]
    assert [found.code for found in raw.findings] == (["D045"] if len(data) > len(expected) else [])


def test_a_folder_without_the_split_says_so() -> None:
    put("set/train.jsonl", '{"n": 1}\n')
    with pytest.raises(UsageError, match="of the split test"):
        read(Source(path="set", split="test"))


def test_weights_take_the_largest_mixture_that_repeats_no_row() -> None:
    put("a.jsonl", "".join(f'{{"a": {n}}}\n' for n in range(100)))
    put("b.jsonl", "".join(f'{{"b": {n}}}\n' for n in range(30)))
    spec = [Source(path="a.jsonl", weight=0.7), Source(path="b.jsonl", weight=0.3)]
    raw = read(spec)
    assert (sum("a" in row for row in raw.rows), sum("b" in row for row in raw.rows)) == (70, 30)
    assert len({json.dumps(row) for row in raw.rows}) == 100
    assert [(found.code, found.where) for found in raw.findings] == [("D023", "a.jsonl")]
    assert raw.findings[0].what.startswith("30 of 100 rows are left out")
    assert read(spec).rows == raw.rows
    assert read(spec, seed=7).rows != raw.rows
    assert [numbered.row for numbered in open_source(spec).rows()] == raw.rows
    assert open_source(spec).structure().rows == 100


def test_without_weights_all_rows_are_taken_and_some_weights_are_none() -> None:
    put("a.jsonl", '{"n": 1}\n')
    put("b.jsonl", '{"n": 2}\n')
    assert (len(read(["a.jsonl", "b.jsonl"]).rows), read(["a.jsonl", "b.jsonl"]).findings) == (2, [])
    assert len(read(Source(path="a.jsonl", weight=3)).rows) == 1
    with pytest.raises(UsageError, match=r"b.jsonl has no weight"):
        read([Source(path="a.jsonl", weight=1), "b.jsonl"])


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.01, 100)), min_size=1, max_size=5))
def test_mixtures_are_in_proportion_and_one_source_is_used_up(sources: list[tuple[int, float]]) -> None:
    rows = [count for count, _ in sources]
    weights = mixture.weights_of([Source(path="x", weight=weight) for _, weight in sources])
    if weights is None:
        assert len(sources) == 1
        return
    takes = mixture.largest_mixture(rows, weights)
    assert all(take <= count for take, count in zip(takes, rows, strict=True))
    assert any(take == count for take, count in zip(takes, rows, strict=True))
    unit = min(count / weight for count, weight in zip(rows, weights, strict=True))
    assert all(abs(take - weight * unit) < 1.001 for take, weight in zip(takes, weights, strict=True))


def test_rejected_rows_are_given_with_their_reason() -> None:
    raw = read(put("a.jsonl", '{"n": 1}\n{"n": }\n7\n{"n": 2}\n'))
    assert (raw.rows, raw.places) == ([{"n": 1}, {"n": 2}], [1, 4])
    assert [(place, bad.code, bad.found) for place, bad in raw.rejected] == [
        (2, "D001", "Expecting value, column 7"),
        (3, "D001", "a row must be an object, this is a number"),
    ]
    found = raw.unparsed()
    assert found is not None
    assert found.what == "2 lines can't be parsed, the first is line 2: Expecting value, column 7."
    assert raw.files[0].rows == 4
    clean = read(put("b.jsonl", '{"n": 1}\n'))
    assert (clean.rejected, clean.unparsed()) == ([], None)


def test_a_file_of_broken_rows_alone_is_refused_anyway() -> None:
    with pytest.raises(FindingsError, match="D001"):
        read(put("a.jsonl", "oops\n"))


def test_d001_of_several_files_names_the_file() -> None:
    put("a.jsonl", '{"n": 1}\n')
    put("b.jsonl", '{"n": 1}\n{\n')
    found = read(["a.jsonl", "b.jsonl"]).unparsed()
    assert found is not None
    assert "In b.jsonl:2: Expecting property name" in found.what


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', "row 2"),
        ("a.jsonl", '{"m": [{"r": 1, "r": 1}]}\n' * 7, "rows 1, 2, 3, 4, 5 and 2 more"),
        ("a.json", '[{"a": 1, "a": 2}]', "the file"),
    ],
)
def test_d020_a_key_that_stands_twice(name: str, text: str, places: str) -> None:
    (found,) = read(put(name, text)).findings
    assert (found.code, found.severity) == ("D020", "warning")
    assert found.what == f"An object has a key twice in {places}; the last value is taken."


def test_d021_nan_and_infinity() -> None:
    raw = read(put("a.jsonl", '{"a": NaN}\n{"a": 1}\n{"a": -Infinity}\n'))
    assert [(found.code, found.what) for found in raw.findings] == [("D021", "NaN or Infinity stands in rows 1, 3.")]
    assert len(raw.rows) == 3


def test_d020_and_d021_are_silent_on_clean_rows() -> None:
    assert read(put("a.jsonl", '{"a": [{"a": 1}, {"a": 2}], "b": "NaN"}\n')).findings == []


def test_d024_a_document_too_large_to_be_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("a.json", json.dumps(ROWS))
    assert read(path).rows == ROWS
    monkeypatch.setattr(content, "MOST_DOCUMENT", 20)
    assert codes(path)[0] == "D024"


def test_nesting_up_to_the_limit() -> None:
    depth = json_text.MOST_DEPTH
    assert len(read(put("a.jsonl", '{"a":' * depth + "1" + "}" * depth + "\n")).rows) == 1
    code, what = codes(put("a.jsonl", '{"a":' * (depth + 1) + "1" + "}" * (depth + 1) + "\n"))
    assert (code, "nested deeper than 100 levels" in what) == ("D001", True)
    wide = {"messages": [{"role": "user", "content": "x"}] * 500}
    assert read(put("b.jsonl", json.dumps(wide) + "\n")).rows == [wide]


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("a.jsonl", LINES)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(EnvironmentLacksError, match="can't be read: Permission denied"):
        read(path)
