"""Parsing CSV, TSV and Parquet into rows."""

from __future__ import annotations

import csv
import io
import itertools
import sys

from ..rules import FindingsError, finding
from .rows import Numbered, Row, name_places

_DELIMITERS = ",\t;|"
_PROBED_RECORDS = 50


def find_delimiter(text: str) -> str | None:
    """The delimiter that cuts the first records into equally many fields, and most of them; None for one column.

    csv.Sniffer guesses from character counts and goes astray on long free text, so candidates are tried out instead.
    """
    fields = {delimiter: _field_counts(text, delimiter) for delimiter in _DELIMITERS}
    even = {delimiter: counts[0] for delimiter, counts in fields.items() if len(set(counts)) == 1 and counts[0] > 1}
    # Where no delimiter is even, some record is broken: the header decides, and the parser then names the record.
    candidates = even or {delimiter: counts[0] for delimiter, counts in fields.items() if counts and counts[0] > 1}
    return max(candidates, key=lambda delimiter: candidates[delimiter], default=None)


def _field_counts(text: str, delimiter: str) -> list[int]:
    _allow_long_fields()
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [len(record) for record in itertools.islice(records, _PROBED_RECORDS) if record]
    except csv.Error:
        return []


def _allow_long_fields() -> None:
    """Lift the csv module's limit of 128 KiB per field; documents are longer."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


def parse_delimited(text: str, name: str, delimiter: str) -> Numbered:
    """The rows of a table whose first record names the columns; values stay text.

    Raises:
        FindingsError: D001, records with more or fewer fields than the header, doubled or empty column names.
    """
    _allow_long_fields()
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    places: list[int] = []
    broken: list[tuple[int, str]] = []
    header: list[str] | None = None
    line = 1
    try:
        for record in records:
            start, line = line, records.line_num + 1
            if not record:
                continue
            if header is None:
                header = _header(record, name)
            elif len(record) == len(header):
                rows.append(dict(zip(header, record, strict=True)))
                places.append(start)
            else:
                broken.append((start, f"{len(record)} fields, where the header has {len(header)}"))
    except csv.Error as error:
        raise _refusal(name, line, f"{error}.") from None
    if broken:
        start, problem = broken[0]
        others = name_places([place for place, _ in broken[1:]])
        raise _refusal(name, start, f"{problem} (also wrong: lines {others})." if others else f"{problem}.")
    return Numbered(rows, places)


def _header(record: list[str], name: str) -> list[str]:
    header = [field.strip() for field in record]
    if not all(header) or len(set(header)) != len(header):
        raise _refusal(name, 1, "the header must give every column a name of its own.")
    return header


def _refusal(name: str, line: int, problem: str) -> FindingsError:
    place = f"line {line} (`sed -n {line}p {name}` shows it; fields with line breaks need quotes)"
    return FindingsError([finding("D001", name, error=f"In line {line}: {problem}", place=place)])


def parse_parquet(content: bytes, name: str) -> Numbered:
    """The rows of a Parquet file.

    Raises:
        FindingsError: D001, the file is cut off or damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise FindingsError(
            [finding("D001", name, error=f"The Parquet file is damaged or cut off: {problem}", place="the file")]
        ) from None
    return Numbered(rows, list(range(1, len(rows) + 1)))
