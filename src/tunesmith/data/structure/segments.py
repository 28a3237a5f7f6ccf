"""Text files cut into segments of whole lines, as Arrow tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..rows import Place
from ..sources.json_text import decoded
from ..sources.packed import open_utf8

if TYPE_CHECKING:
    import numpy
    import pyarrow

_BATCH: Final = 1 << 20  # bytes of a record batch, the unit of duckdb's threads
_SEGMENT: Final = 24  # batches that one query looks at
_CACHED: Final = 1 << 16  # bytes of arrays that stay in the processor's cache
_FILE_BITS: Final = 40  # a place's index is the file's number above these bits, and the line's in them
_ASCII_ESCAPE: Final = re.compile(rb"\\u00[0-7]")


@dataclass(frozen=True)
class Segment:
    """Some lines of a file.

    Attributes:
        table: Columns place (index that orders all lines) and line.
        prefix: What stands before a line's number in its place; "" for a single file.
        is_loose: A bracket or brace closes after a blank or a comma somewhere: there may be trailing commas.
        contents: The text of the table's lines.
    """

    table: pyarrow.Table
    prefix: str
    is_loose: bool
    contents: list[bytes]

    def may_contain(self, text: str) -> bool:
        """Whether a value may contain a text: it stands there, or escapes do that may spell it."""
        needle = json.dumps(text, ensure_ascii=False)[1:-1].encode()
        # A single byte is looked for much faster than several.
        there = any(needle[:1] in block and needle in block for block in self.contents)
        return there or ("/" in text and self._has_slash) or (self._spells_ascii if text.isascii() else self._spells)

    @cached_property
    def _escaped(self) -> list[bytes]:
        return [block for block in self.contents if b"\\" in block]

    @cached_property
    def _has_slash(self) -> bool:
        return any(b"\\/" in block for block in self._escaped)

    @cached_property
    def _spells(self) -> bool:
        return any(b"\\u" in block for block in self._escaped)

    @cached_property
    def _spells_ascii(self) -> bool:
        return any(b"\\u00" in block and _ASCII_ESCAPE.search(block) is not None for block in self._escaped)

    def only(self, indices: Sequence[int]) -> Segment:
        """The segment with some of its lines; it must be whole."""
        import numpy as np

        base = self.table["place"][0].as_py()
        return replace(self, table=self.table.take(_integers(np.array(indices, dtype=np.int64) - base)))

    def place(self, index: int) -> Place:
        """The place of a line by its index."""
        number = index & ((1 << _FILE_BITS) - 1)
        return f"{self.prefix}{number}" if self.prefix else number


def segments(files: Sequence[tuple[str, Path, str]]) -> Iterator[Segment]:
    """The lines of all files; each file has a prefix for places, a path, and a name for findings.

    Raises:
        FindingsError: D003, a line isn't UTF-8; D001, D022, a file can't be unpacked.
    """
    import pyarrow

    for number, (prefix, path, name) in enumerate(files):
        blocks = _blocks(path, name, number << _FILE_BITS)
        while held := list(islice(blocks, _SEGMENT)):
            table = pyarrow.Table.from_batches([batch for batch, _ in held])
            contents = [content for _, content in held]
            yield Segment(table, prefix, any(map(_is_loose, contents)), contents)


def _blocks(path: Path, name: str, base: int) -> Iterator[tuple[pyarrow.RecordBatch, bytes]]:
    """Whole lines as record batches, and as text."""
    line = 1
    with open_utf8(path, name) as file:
        rest: list[bytes] = []
        while block := file.read(_BATCH):
            cut = block.rfind(b"\n") + 1
            if cut:
                content = b"".join([*rest, block[:cut]])
                batch = _batch(content, name, base, line)
                yield batch, content
                line += batch.num_rows
                rest = []
            rest.append(block[cut:])
        content = b"".join(rest)
        if content:
            yield _batch(content, name, base, line), content


def _batch(content: bytes, name: str, base: int, line: int) -> pyarrow.RecordBatch:
    """Whole lines as a batch, without a copy of their text."""
    import numpy as np
    import pyarrow

    ends = _positions(np.frombuffer(content, dtype=np.uint8) == ord("\n")) + 1
    if not content.endswith(b"\n"):
        ends = np.append(ends, len(content))
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), ends])
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(content)]
    lines = pyarrow.Array.from_buffers(pyarrow.large_string(), len(ends), buffers)
    try:
        lines.validate(full=True)
    except pyarrow.ArrowInvalid:
        for number, text in enumerate(content.split(b"\n"), line):
            decoded(text, name, number)
        raise
    places = _integers(np.arange(base + line, base + line + len(ends), dtype=np.int64))
    return pyarrow.record_batch([places, lines], names=["place", "line"])


def _integers(numbers: numpy.ndarray) -> pyarrow.Array:
    """As pyarrow.array, which would import pandas to see that these are none of its."""
    import pyarrow

    return pyarrow.Array.from_buffers(pyarrow.int64(), len(numbers), [None, pyarrow.py_buffer(numbers)])


def _positions(mask: numpy.ndarray) -> numpy.ndarray:
    """Where a sparse mask is true, by words of eight; numpy's own flatnonzero looks at each byte."""
    import numpy as np

    whole = len(mask) // 8 * 8
    words = np.flatnonzero(mask[:whole].view(np.uint64))
    row, column = np.nonzero(mask[:whole].reshape(-1, 8)[words])
    return np.concatenate([words[row] * 8 + column, whole + np.flatnonzero(mask[whole:])])


def _is_loose(content: bytes) -> bool:
    import numpy as np

    text = np.frombuffer(content, dtype=np.uint8)
    return any(_has_loose(text[start : start + _CACHED + 1]) for start in range(0, len(text), _CACHED))


def _has_loose(text: numpy.ndarray) -> bool:
    before = text[:-1]
    closers = (text[1:] | 0x20) == ord("}")  # "]" is "}" without this bit
    return bool((closers & ((before == ord(",")) | (before <= ord(" ")))).any())
