"""Rows of JSON Lines as Parquet, in constant memory, so that `datasets` gives them back as they were."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rows import Row
from .work import read_lines, writing

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 1_000
_PLAIN = frozenset({"role", "content"})


def write_parquet(parts: Sequence[Path], path: Path) -> None:
    """Write the rows of `parts` into one Parquet file.

    Messages that hold more than role and content become columns of JSON (the feature Json of `datasets`): as structs,
    each would get the keys of all others with null in them, tool calls their arguments too.
    """
    import pyarrow.parquet as pq

    kinds = _kinds(parts)
    schema = _schema(kinds)
    with writing(path, "wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(parts):
            writer.write_table(_table(batch, kinds, schema))


def _batches(parts: Sequence[Path]) -> Iterator[list[Row]]:
    rows = itertools.chain.from_iterable(read_lines(part) for part in parts)
    while batch := list(itertools.islice(rows, _ROWS)):
        yield batch


def _kinds(parts: Sequence[Path]) -> dict[str, str]:
    """What each column holds over all rows: text, bool, turns (role and content alone), or json."""
    kinds: dict[str, str] = {}
    for batch in _batches(parts):
        for row in batch:
            for name, value in row.items():
                kind = _kind(value)
                kinds[name] = kind if kinds.get(name, kind) == kind else _both(kinds[name], kind)
    return kinds


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "bool"
    turns = isinstance(value, list) and all(isinstance(turn, dict) for turn in value)
    if turns and all(turn.keys() == _PLAIN and isinstance(turn["content"], str) for turn in value):
        return "turns"
    return "turns of json" if turns else "json"


def _both(one: str, other: str) -> str:
    return "turns of json" if {one, other} == {"turns", "turns of json"} else "json"


def _schema(kinds: dict[str, str]) -> pa.Schema:
    from datasets import Features, Json, List, Value

    features = {
        "text": Value("string"),
        "bool": Value("bool"),
        "turns": List({"role": Value("string"), "content": Value("string")}),
        "turns of json": List(Json()),
        "json": Json(),
    }
    return Features({name: features[kind] for name, kind in kinds.items()}).arrow_schema


def _table(rows: Sequence[Row], kinds: dict[str, str], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = [_array([row.get(name) for row in rows], kind, schema.field(name).type) for name, kind in kinds.items()]
    return pa.Table.from_arrays(columns, schema=schema)


def _array(values: list[Any], kind: str, type_: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if kind == "json":
        texts = [None if value is None else _text(value) for value in values]
        return pa.ExtensionArray.from_storage(type_, pa.array(texts, type=pa.string()))
    if kind == "turns of json":
        turns = pa.array([value and [_text(turn) for turn in value] for value in values], type=pa.list_(pa.string()))
        items = pa.ExtensionArray.from_storage(type_.value_type, turns.values)
        return pa.ListArray.from_arrays(turns.offsets, items, type=type_, mask=turns.is_null())
    return pa.array(values, type=type_)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
