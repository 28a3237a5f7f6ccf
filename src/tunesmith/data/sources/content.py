"""The rows of one file, streamed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import IO

from ...files import sha256
from ...records.data import SourceFile
from ...rules import FindingsError, finding
from ..rows import Numbered, Row
from . import json_text, plain, tables
from .found import File
from .json_text import Reader, decoded
from .kinds import Kind, kind_of_file
from .packed import open_utf8

MOST_DOCUMENT = 2 << 30
"""Bytes of a JSON document, which is read whole; JSON Lines may be of any size."""


class Content:
    """A file as rows.

    Attributes:
        file: The file.
        name: How findings name it.
        kind: What it is.
        by_lines: Whether its rows are numbered by lines; known for sure once they were read.
    """

    def __init__(self, file: File) -> None:
        """Look at the file's beginning.

        Raises:
            UsageError: it isn't there.
            EnvironmentLacksError: it may not be read.
            FindingsError: D003, it is neither text nor Parquet; D001, D022, it can't be unpacked.
        """
        self.file = file
        self.name = file.name
        self.kind: Kind = kind_of_file(file.path, file.name)
        self.by_lines = self.kind.name in ("lines", "table", "text")

    @property
    def title(self) -> str:
        """What records call it."""
        return self.file.title

    @property
    def is_json_lines(self) -> bool:
        """Whether each of its lines is a row of its own."""
        return self.kind.name == "lines"

    def rows(self, reader: Reader) -> Iterator[Numbered]:
        """Its rows with their numbers, streamed; JSON documents are read whole.

        Raises:
            FindingsError: D001 it can't be parsed at all, D003 it isn't text, D022 and D024 it is too large.
        """
        file, name = self.file, self.file.name
        if self.kind.name == "parquet":
            yield from tables.read_parquet(file.path, name)
            return
        with open_utf8(file.path, name) as lines:
            if self.kind.name == "lines":
                yield from json_text.read_lines(lines, name, reader)
            elif self.kind.name == "table":
                yield from tables.read_table(lines, name, self.kind.delimiter)
            elif self.kind.name == "document":
                yield from self._document(lines.read(MOST_DOCUMENT + 1), reader)
            elif self.kind.name == "text":
                yield from self._text(lines)

    def _document(self, content: bytes, reader: Reader) -> Iterator[Numbered]:
        name = self.file.name
        if len(content) > MOST_DOCUMENT:
            raise FindingsError([finding("D024", name, most=f"{MOST_DOCUMENT >> 30}")])
        lines = content.split(b"\n")
        text = "\n".join(decoded(line, name, number) for number, line in enumerate(lines, 1))
        try:
            yield from json_text.read_document(text, name, reader)
        except FindingsError:
            if json_text.is_series(text):
                yield from json_text.read_series(text, name, reader)
                return
            if not self.kind.lines_expected:
                raise
            self.by_lines = True
            yield from json_text.read_lines(io.BytesIO(content), name, reader)

    def _text(self, lines: IO[bytes]) -> Iterator[Numbered]:
        name = self.file.name
        content = lines.read(plain.MOST_DOCUMENT + 1) if self.file.document else b""
        if not self.file.document:
            yield from plain.read_paragraphs(lines, name)
        elif len(content) <= plain.MOST_DOCUMENT:
            yield from plain.read_document(content, name)
        else:
            with open_utf8(self.file.path, name) as again:
                yield from plain.read_paragraphs(again, name)

    def record(self, rows: int) -> SourceFile:
        """The record of the file, of which `rows` were read."""
        path = self.file.path
        return SourceFile(name=self.file.title, bytes=path.stat().st_size, sha256=sha256(path), rows=rows)


class Held:
    """Rows that were streamed from the Hub, held in memory; used as a Content."""

    name = "rows"
    by_lines = is_json_lines = False

    def __init__(self, title: str, rows: list[Row]) -> None:
        """Hold `rows`; `title` names them in records."""
        self.title, self._rows = title, rows

    def rows(self, reader: Reader) -> Iterator[Numbered]:
        """The rows, counted from 1."""
        return (Numbered(number, row) for number, row in enumerate(self._rows, 1))

    def record(self, rows: int) -> SourceFile:
        """The record of the rows, with the fingerprint of what they hold."""
        content = repr(self._rows).encode(errors="surrogatepass")
        return SourceFile(name=self.title, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), rows=rows)
