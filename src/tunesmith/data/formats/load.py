"""The call of load_dataset that reads a file as tunesmith does."""

from __future__ import annotations

import csv
from functools import reduce
from pathlib import Path
from typing import Final

from ..paths import quoted
from ..shape import Shape, merged
from ..sources import open_source
from ..sources.kinds import kind_of_file
from .detection import Detection

_ENDINGS: Final = {
    "lines": (".jsonl", ".ndjson", ".json"),
    "document": (".json",),
    "table": (".csv", ".tsv"),
    "parquet": (".parquet",),
}
_READ: Final = 64
_ASCII: Final = 0x80


class NotPlainError(Exception):
    """The rows need more than a few lines of Python."""


def load(source: str, detection: Detection) -> tuple[str, str]:
    """What to import from `datasets` to read a file, and the expression that reads it.

    Raises:
        NotPlainError: `datasets` would read other rows than tunesmith does, or none.
    """
    path = Path(source)
    if not path.is_file():
        raise NotPlainError
    shapes = [group.shape for group in detection.facts.structure.groups]
    if open_source(path).embedded or _is_mixed(reduce(merged, shapes)):
        raise NotPlainError
    kind = kind_of_file(path, path.name)
    if path.suffix not in _ENDINGS.get(kind.name, ()):
        raise NotPlainError
    with path.open("rb") as file:
        start = file.read(_READ).lstrip()
    # A byte order mark, or rows that stand somewhere inside an object or a list.
    expected = {"document": b"[", "lines": b"{"}.get(kind.name, b"")
    if not start or start[0] >= _ASCII or not start.startswith(expected):
        raise NotPlainError
    builder = {"table": "csv", "parquet": "parquet"}.get(kind.name, "json")
    arguments = f'"{builder}", data_files={quoted(source)}, split="train"'
    if kind.name != "table":
        return "load_dataset", f"load_dataset({arguments})"
    columns = _text_columns(path, kind.delimiter, detection)
    features = ", ".join(f'{quoted(column)}: Value("string")' for column in columns)
    separator = f", sep={quoted(kind.delimiter)}" if kind.delimiter != "," else ""
    return (
        "Features, Value, load_dataset",
        f"load_dataset(\n    {arguments}{separator},\n    features=Features({{{features}}}), keep_default_na=False,\n)",
    )


def _is_mixed(shape: Shape) -> bool:
    """Whether values of several kinds stand in one place, which Arrow has no type for."""
    inner = [below for _, below in shape.keys] + ([shape.items] if shape.items else [])
    return shape.kind == "mixed" or any(map(_is_mixed, inner))


def _text_columns(path: Path, delimiter: str, detection: Detection) -> list[str]:
    """The columns of a table, in the order of its header.

    Raises:
        NotPlainError: a name has blanks around it.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header = next((record for record in csv.reader(file, delimiter=delimiter) if record), [])
    if set(header) != set(detection.profiles):
        raise NotPlainError
    return header
