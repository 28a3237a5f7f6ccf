"""Reading raw data files: JSON, JSON Lines, CSV, TSV and Parquet, told apart by content first and by ending second."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..errors import EnvironmentLacksError, UsageError
from ..rules import FindingsError, finding
from . import json_text, tables
from .rows import Numbered, Row

_PARQUET = b"PAR1"
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_WIDE = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_JSON_LINES = {".jsonl", ".ndjson", ".jsonlines"}


@dataclass(frozen=True)
class RawData:
    """The rows of a file, as they stand there.

    Attributes:
        path: The file.
        sha256: Fingerprint of its bytes.
        bytes: Its size.
        rows: One dict per row; values as the format gives them (CSV and TSV: text).
        places: Each row's number in the file, counted from 1: the line in JSONL, CSV and TSV, the row elsewhere.
    """

    path: Path
    sha256: str
    bytes: int
    rows: list[Row]
    places: list[int]


def read(path: Path) -> RawData:
    """Read all rows of `path`.

    Raises:
        UsageError: there is no such file, or it is a folder.
        EnvironmentLacksError: the file may not be read.
        FindingsError: D001 rows that can't be parsed, D002 no rows, D003 not readable as text.
    """
    content = _content(path)
    if content.startswith(_PARQUET):
        numbered = tables.parse_parquet(content, path.name)
    else:
        numbered = _parse_text(_decode(content, path.name), path)
    if not numbered.rows:
        raise FindingsError([finding("D002", path.name, left="")])
    return RawData(path, hashlib.sha256(content).hexdigest(), len(content), numbered.rows, numbered.places)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            f"{path} isn't there.",
            why="A data file is read from this path, relative to the folder the command runs in.",
            fix="Check its spelling, or give the whole path.",
        ) from None
    except IsADirectoryError:
        raise UsageError(
            f"{path} is a folder.",
            why="Rows are read from one file; which of a folder's files was meant can't be known.",
            fix="Name the file itself (JSON, JSONL, CSV or Parquet); join several into one first.",
        ) from None
    except OSError as error:
        raise EnvironmentLacksError(
            f"{path} can't be read: {error.strerror}.",
            why="The operating system refuses to give its content.",
            fix="Check its permissions and its disk.",
        ) from error


def _decode(content: bytes, name: str) -> str:
    """The text of a UTF-8 file, without a byte order mark."""
    for start, kind in _PACKED.items():
        if content.startswith(start):
            _unreadable(name, f"This is {kind}-compressed, not text.", "; unpack this file first")
    for start, encoding in _WIDE.items():
        if content.startswith(start):
            _unreadable(name, f"This is {encoding} text, not UTF-8.", _recode(encoding))
    if b"\0" in content:
        even, odd = content[:4096:2].count(0), content[1:4096:2].count(0)
        if max(even, odd) > 4 * min(even, odd) and max(even, odd) > min(len(content), 4096) // 8:
            encoding = "UTF-16BE" if even > odd else "UTF-16LE"
            _unreadable(name, f"This looks like {encoding} text without a byte order mark.", _recode(encoding))
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        _unreadable(name, f"This is binary data: a zero byte stands in line {line}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The position is counted in `error.object`, which lacks the byte order mark when there was one.
        line = error.object.count(b"\n", 0, error.start) + 1
        _unreadable(name, f"Line {line} isn't UTF-8 (byte 0x{error.object[error.start]:02x}).", _recode("WINDOWS-1252"))


def _recode(encoding: str) -> str:
    return f": if it is {encoding}, `iconv -f {encoding} -t UTF-8 IN > OUT` does it"


def _unreadable(name: str, error: str, how: str = "") -> NoReturn:
    raise FindingsError([finding("D003", name, error=error, how=how)])


def _parse_text(text: str, path: Path) -> Numbered:
    """The rows of a text: JSON by its first character, else a table by its delimiters."""
    ending = path.suffix.lower()
    start = text.lstrip()[:1]
    if not start:
        return Numbered([], [])
    if start in ("{", "[") and ending not in (".csv", ".tsv"):
        return json_text.parse(text, path.name, lines_expected=ending in _JSON_LINES)
    if ending in _JSON_LINES:
        return json_text.parse_lines(text, path.name)
    if ending == ".json":
        return json_text.parse_document(text, path.name)
    delimiter = tables.find_delimiter(text)
    if delimiter is None:
        if ending not in (".csv", ".tsv"):
            _unreadable(path.name, "This is neither JSON, JSONL, CSV, TSV nor Parquet.")
        delimiter = "\t" if ending == ".tsv" else ","
    return tables.parse_delimited(text, path.name, delimiter)
