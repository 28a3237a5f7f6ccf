"""What a file is, by its content first and by its ending second."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from . import tables
from .packed import open_utf8, recode, unreadable

_LOOKED_AT: Final = 1 << 20
_PROBED_LINES: Final = 20
_PARQUET: Final = b"PAR1"
_LINES: Final = {".jsonl", ".ndjson", ".jsonlines"}
_TABLES: Final = {".csv": ",", ".tsv": "\t"}
_TEXTS: Final = {".txt", ".md", ".markdown", ".rst", ".text"}
_PACKED: Final = {".gz", ".bz2", ".xz", ".zst", ".zstd", ".zip", ".lzma"}
_BLANK: Final = " \t\r\n"

Name = Literal["lines", "document", "table", "parquet", "text", "empty"]


@dataclass(frozen=True)
class Kind:
    """What a file is.

    Attributes:
        name: JSON Lines, a JSON document, a table (CSV, TSV), Parquet, plain text, or nothing but blanks.
        delimiter: Of a table.
        lines_expected: The ending says JSON Lines: a document that is none after all is read as lines.
    """

    name: Name
    delimiter: str = ""
    lines_expected: bool = False


def kind_of_file(path: Path, name: str) -> Kind:
    """Look at the start of a file.

    Raises:
        FindingsError: D003, it is neither text nor Parquet; and as open_utf8.
    """
    with open_utf8(path, name) as file:
        start = file.read(_LOOKED_AT)
        whole = len(start) < _LOOKED_AT
    if start.startswith(_PARQUET):
        return Kind("parquet")
    _refuse_binary(start, name)
    text = start.decode("utf-8", errors="replace")
    if not text.strip(_BLANK):
        return Kind("empty" if whole else "text")
    ending = ending_of(name)
    return _json(text, ending, whole=whole) or _table_or_text(text, ending, name, whole=whole)


def _table_or_text(text: str, ending: str, name: str, *, whole: bool) -> Kind:
    delimiter = tables.find_delimiter(text, whole=whole)
    if ending in _TABLES:
        return Kind("table", delimiter or _TABLES[ending])
    if ending in _TEXTS and not (delimiter and tables.has_header(text, delimiter)):
        return Kind("text")
    if delimiter is None:
        unreadable(name, "This is neither JSON, JSONL, CSV, TSV, Parquet nor a text file (.txt, .md).")
    return Kind("table", delimiter)


def ending_of(name: str) -> str:
    """A file's ending in lower case, without that of its compression."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in _PACKED else path.suffix


def _refuse_binary(start: bytes, name: str) -> None:
    zero = start.find(b"\0")
    if zero < 0:
        return
    head = start[:4096]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > 4 * min(even, odd) and max(even, odd) > len(head) // 8:
        encoding = "UTF-16BE" if even > odd else "UTF-16LE"
        unreadable(name, f"This looks like {encoding} text without a byte order mark.", recode(encoding))
    if start.lstrip()[:1] not in (b"{", b"["):
        line = start.count(b"\n", 0, zero) + 1
        unreadable(name, f"This is binary data: a zero byte stands in line {line}.")


def _json(text: str, ending: str, *, whole: bool) -> Kind | None:
    """The kind of a file that is JSON, or calls itself so; None for others."""
    if text.lstrip(_BLANK)[:1] not in ("{", "["):
        return {".json": Kind("document"), **dict.fromkeys(_LINES, Kind("lines"))}.get(ending)
    if ending in _TABLES:
        return None
    kind = _lines_or_document(text, ending, whole=whole)
    # Markdown, too, may begin with a bracket.
    if ending in _TEXTS and kind.name == "document" and not (whole and _stands_alone(text)):
        return None
    return kind


def _lines_or_document(text: str, ending: str, *, whole: bool) -> Kind:
    lines = [line for line in text.split("\n") if line.strip(_BLANK)]
    if not whole:
        lines.pop()  # cut off
    expected = ending in _LINES
    if whole and len(lines) == 1:
        return Kind("lines" if expected and text.lstrip()[:1] == "{" else "document", lines_expected=expected)
    alone = [_stands_alone(line) for line in lines[:_PROBED_LINES]]
    if 2 * sum(alone) > len(alone) or (expected and alone and alone[0]):
        return Kind("lines")
    return Kind("document", lines_expected=expected)


def _stands_alone(line: str) -> bool:
    try:
        return isinstance(json.loads(line), (dict, list))
    except (ValueError, RecursionError):
        return False
