"""Reading CSV, TSV and Parquet, row by row."""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...rules import FindingsError, finding
from ...words import counted
from ..rows import Numbered, Row
from .json_text import decoded
from .packed import open_bytes, packing_of

if TYPE_CHECKING:
    import pyarrow

_DELIMITERS: Final = ",\t;|"
_PROBED_RECORDS: Final = 50
_BATCH: Final = 512


def find_delimiter(text: str, *, whole: bool = True) -> str | None:
    """The delimiter that cuts the first records into equally many fields, and most of them; None for one column.

    csv.Sniffer guesses from character counts and goes astray on long free text, so candidates are tried out instead.
    `whole` says that the text isn't just a file's beginning, whose last record is cut off.
    """
    fields = {delimiter: _field_counts(text, delimiter, whole=whole) for delimiter in _DELIMITERS}
    even = {delimiter: counts[0] for delimiter, counts in fields.items() if len(set(counts)) == 1 and counts[0] > 1}
    # Where no delimiter is even, some record is broken: the header decides, and the parser then names the record.
    candidates = even or {delimiter: counts[0] for delimiter, counts in fields.items() if counts and counts[0] > 1}
    return max(candidates, key=lambda delimiter: candidates[delimiter], default=None)


def has_header(text: str, delimiter: str) -> bool:
    """Whether a text without a table's ending is one: an even cut into columns with short names, over some records."""
    counts = _field_counts(text, delimiter, whole=False)
    header = text.lstrip().split("\n", 1)[0].split(delimiter)
    return len(counts) > 1 and len(set(counts)) == 1 and all(0 < len(name.split()) <= 2 for name in header)


def _field_counts(text: str, delimiter: str, *, whole: bool) -> list[int]:
    _allow_long_fields()
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        found = list(itertools.islice(records, _PROBED_RECORDS + 1))
    except csv.Error:
        return []
    if not whole and len(found) <= _PROBED_RECORDS and len(found) > 1:
        found.pop()
    return [len(record) for record in found[:_PROBED_RECORDS] if record]


def _allow_long_fields() -> None:
    """Lift the csv module's limit of 128 KiB per field; documents are longer."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


def read_table(lines: Iterable[bytes], name: str, delimiter: str) -> Iterator[Numbered]:
    """The rows of a table whose first record names the columns; values stay text.

    Raises:
        FindingsError: D001, doubled or empty column names; D003, a line isn't UTF-8.
    """
    _allow_long_fields()
    texts = (decoded(line, name, number) for number, line in enumerate(lines, 1))
    records = csv.reader(texts, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        start = line
        try:
            record = next(records, None)
        except csv.Error as error:
            line = records.line_num + 1
            yield Numbered(start, None, _problem(error))
            continue
        line = records.line_num + 1
        if record is None:
            return
        if not record:
            continue
        if header is None:
            header = _header(record, name)
        elif len(record) == len(header):
            yield Numbered(start, dict(zip(header, record, strict=True)))
        else:
            problem = f"{counted(len(record), 'field')}, where the header has {len(header)}"
            yield Numbered(start, None, problem, delimiter.join(record))


def _problem(error: csv.Error) -> str:
    """Why a record can't be parsed; of a carriage return, the module says how Python would open the file."""
    if str(error).startswith("new-line character"):
        return "a carriage return (\\r) alone ends no line (`tr '\\r' '\\n' < IN > OUT` makes line breaks of them)"
    return f"{error} (fields with line breaks or quotes need quotes)"


def _header(record: list[str], name: str) -> list[str]:
    header = [field.strip() for field in record]
    if not all(header) or len(set(header)) != len(header):
        problem = "In line 1: the header must give every column a name of its own."
        raise FindingsError([finding("D001", name, error=problem, place="line 1")])
    return header


def read_parquet(path: Path, name: str) -> Iterator[Numbered]:
    """The rows of a Parquet file, a batch in memory at a time.

    Raises:
        FindingsError: D001, the file is cut off or damaged.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        packed = packing_of(path) is not None
        with pyarrow.parquet.ParquetFile(_seekable(path, name) if packed else path, pre_buffer=False) as file:
            written_as_json = _json_columns(file.schema_arrow)
            dated = _dated_columns(file.schema_arrow)
            for batch in file.iter_batches(batch_size=_BATCH):
                rows: list[Row] = batch.to_pylist()
                for number, row in enumerate(rows, number + 1):  # noqa: B020 - counts on over batches
                    for column in written_as_json:
                        row[column] = _from_json(row[column])
                    for column in dated:
                        row[column] = json.loads(json.dumps(row[column], default=str))
                    yield Numbered(number, row)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise FindingsError(
            [finding("D001", name, error=f"The Parquet file is damaged or cut off: {problem}", place="the file")]
        ) from None


def _json_columns(schema: pyarrow.Schema) -> list[str]:
    """The columns of JSON, or of lists of it (the feature Json of `datasets`): objects that keep keys of their own."""
    import pyarrow

    as_json = (pyarrow.json_(), pyarrow.list_(pyarrow.json_()))
    return [column.name for column in schema if column.type in as_json]


def _dated_columns(schema: pyarrow.Schema) -> list[str]:
    """The columns of lists and objects with dates, times or decimals inside, which are texts in JSON."""
    return [column.name for column in schema if column.type.num_fields and _is_dated(column.type)]


def _is_dated(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    inner = (kind.field(number).type for number in range(kind.num_fields))
    return types.is_temporal(kind) or types.is_decimal(kind) or any(map(_is_dated, inner))


def _from_json(value: str | list[str | None] | None) -> Any:
    if isinstance(value, list):
        return [None if item is None else json.loads(item) for item in value]
    return None if value is None else json.loads(value)


def _seekable(path: Path, name: str) -> io.BytesIO:
    with open_bytes(path, name) as file:
        return io.BytesIO(file.read())
