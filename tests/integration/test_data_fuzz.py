"""Thousands of malformed rows in every format: no traceback, no hang, and none is lost without a reason."""

from __future__ import annotations

import contextlib
import json
import random
import time
from pathlib import Path

import pytest

from tunesmith.data.shape import RowStructure
from tunesmith.data.sources import open_source, read
from tunesmith.errors import TunesmithError

SEEDS = 24
LINES = 500
GOOD = [
    {"messages": [{"role": "user", "content": "Hi ☕"}, {"role": "assistant", "content": "ok"}], "label": True},
    {"prompt": "a, b", "completion": 'c\n"d"', "meta": {"n": 1.5, "x": None, "l": [1, [2, {}]]}},
    {"text": "naïve \U0001f600 \u2028 </script> \x1b[31m", "empty": {}, "none": []},
]
JUNK = [
    b"", b" ", b"\t", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u", b"\\ud800", b"\\udc00", b"\x00", b"\x01",
    b"NaN", b"-Infinity", b"null", b"1e999", b"9" * 400, b"[" * 150, b'{"a":' * 150, b"\xef\xbb\xbf", b"\xe2\x80\xa8",
    b"\r", b'"a":1,"a":2', b"/*x*/", b"tru", b"\x7f", b"\x1b[2J", b"<script>", b"{{name}}", b"=cmd()", b"'",
]  # fmt: skip


def mangled(chance: random.Random) -> bytes:
    """A row with up to four faults: bytes put in, cut out, doubled, or turned round."""
    row = json.dumps(chance.choice(GOOD), ensure_ascii=chance.random() < 0.5).encode()
    for _ in range(chance.randrange(1, 5)):
        at, to = sorted((chance.randrange(len(row) + 1), chance.randrange(len(row) + 1)))
        fault = chance.randrange(5)
        if fault == 0:
            row = row[:at] + chance.choice(JUNK) + row[at:]
        elif fault == 1:
            row = row[:at] + row[to:]
        elif fault == 2:
            row = row[:to] + row[at:to] + row[to:]
        elif fault == 3:
            row = row[:at] + row[at:to][::-1] + row[to:]
        else:
            row = row[:at]
    # Faulty UTF-8 refuses a whole file; that is another test.
    return row.decode(errors="replace").replace("\n", " ").encode()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_row_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    rows = [mangled(chance) for _ in range(LINES)]
    Path("rows.jsonl").write_bytes(b'{"a": 1}\n' + b"\n".join(rows))
    raw = read("rows.jsonl")
    expected = 1 + sum(bool(row.strip(b" \t\r\n")) for row in rows)
    assert len(raw.rows) + len(raw.rejected) == expected
    assert all(problem.found for _, problem in raw.rejected)
    assert len(set(raw.places) | {place for place, _ in raw.rejected}) == expected
    structure, held = open_source("rows.jsonl").structure(), RowStructure(raw.rows, raw.places)
    assert structure.rows == held.rows
    assert [(g.shape, g.rows, g.places) for g in structure.groups] == [(g.shape, g.rows, g.places) for g in held.groups]


STARTS = [b"", b"[", b"{", b"a,b\n", b"\xff\xfe", b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"BZh9", b"\xef\xbb\xbf"]
NAMES = ["rows.json", "rows.csv", "rows.tsv", "rows.txt", "rows", "rows.jsonl.gz", "a.parquet"]


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("name", NAMES)
def test_whole_files_end_in_rows_or_in_a_reason(name: str, seed: int) -> None:
    chance = random.Random(f"{name} {seed}")
    rows = [mangled(chance) if chance.random() < 0.3 else json.dumps(chance.choice(GOOD)).encode() for _ in range(20)]
    joined = chance.choice([b"\n", b",\n", b"\r\n", b";"]).join(rows)
    Path(name).write_bytes(chance.choice(STARTS) + joined + chance.choice([b"", b"]", b"}", b"\xe9"]))
    began = time.monotonic()
    with contextlib.suppress(TunesmithError):
        raw = read(name)
        assert len(raw.rows) + len(raw.rejected) == raw.files[0].rows
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_ten_thousand_columns_and_a_million_messages_and_a_long_line() -> None:
    wide = {f"c{index}": index for index in range(10_000)}
    Path("wide.csv").write_text(",".join(wide) + "\n" + ",".join(map(str, wide.values())) + "\n", encoding="utf-8")
    assert len(read("wide.csv").rows[0]) == 10_000
    many = {"messages": [{"role": "user", "content": "x"}] * 1_000_000}
    rows = (wide, many, {"text": "x" * 100_000_000})
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert [len(row) for row in read("rows.jsonl").rows] == [10_000, 1, 1]
    structure = open_source("rows.jsonl").structure()
    assert [group.places for group in structure.groups] == [[1], [2], [3]]
    assert structure.turns("messages", "role").first == {"user": 1}
