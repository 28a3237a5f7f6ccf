"""Plain text: a document, or the paragraphs of one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ..rows import Numbered
from .json_text import decoded

MOST_DOCUMENT: Final = 64 << 20
"""Bytes up to which one of several text files is one row; a longer one is a corpus, and read by paragraphs."""


def read_document(content: bytes, name: str) -> Iterator[Numbered]:
    """One row with the whole text; none for a blank one.

    Raises:
        FindingsError: D003, a line isn't UTF-8.
    """
    lines = content.splitlines(keepends=True) if not content.isascii() else [content]
    text = "".join(decoded(line, name, number) for number, line in enumerate(lines, 1))
    if text.strip():
        yield _row(1, text.strip("\r\n"))


def read_paragraphs(lines: Iterable[bytes], name: str) -> Iterator[Numbered]:
    """One row for each paragraph: the lines between blank ones. Its place is its first line.

    Raises:
        FindingsError: D003, a line isn't UTF-8.
    """
    held: list[str] = []
    start = 1
    for number, line in enumerate(lines, 1):
        text = decoded(line, name, number)
        if text.strip():
            start = start if held else number
            held.append(text)
        elif held:
            yield _row(start, "".join(held).rstrip("\r\n"))
            held = []
    if held:
        yield _row(start, "".join(held).rstrip("\r\n"))


def _row(place: int, text: str) -> Numbered:
    if "\0" in text:
        return Numbered(place, None, "a zero byte is no text")
    return Numbered(place, {"text": text})
