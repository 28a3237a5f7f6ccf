"""Text files cut into segments of whole lines, as Arrow tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..rows import Place
from ..sources.json_text import decoded
from ..sources.packed import open_utf8

if TYPE_CHECKING:
    import pyarrow

_BATCH: Final = 1 << 20  # bytes of a record batch, the unit of duckdb's threads
_SEGMENT: Final = 16  # batches that one query looks at
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
        slash = b"\\/" if "/" in text else needle
        return any(needle in block or slash in block or self._may_spell(text, block) for block in self.contents)

    @staticmethod
    def _may_spell(text: str, block: bytes) -> bool:
        if not text.isascii():
            return b"\\u" in block
        return b"\\u00" in block and _ASCII_ESCAPE.search(block) is not None

    def lines(self, indices: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Some lines with their indices; of a segment that is whole."""
        base = self.table["place"][0].as_py() if indices else 0
        column = self.table["line"]
        return ((index, column[index - base].as_py()) for index in indices)

    def only(self, indices: Sequence[int]) -> Segment:
        """The segment with some of its lines; it must be whole."""
        base = self.table["place"][0].as_py() if indices else 0
        return replace(self, table=self.table.take([index - base for index in indices]))

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

    ends = np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == ord("\n")).astype(np.int64) + 1
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
    places = pyarrow.array(np.arange(base + line, base + line + len(ends), dtype=np.int64))
    return pyarrow.record_batch([places, lines], names=["place", "line"])


def _is_loose(content: bytes) -> bool:
    import numpy as np

    text = np.frombuffer(content, dtype=np.uint8)
    closers = np.flatnonzero((text == ord("}")) | (text == ord("]")))
    before = text[closers[closers > 0] - 1]
    return bool(((before == ord(",")) | (before <= ord(" "))).any())
