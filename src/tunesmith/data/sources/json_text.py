"""Reading JSON Lines and JSON documents, row by row, with the reason why a line or a value is no row."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ...rules import FindingsError, finding
from ..rows import Numbered, Place, Row
from ..turns import is_chat
from .packed import recode, unreadable

MOST_DEPTH: Final = 100
"""Levels of nesting; Python's own reader gives up near 1,000, and Arrow and Parquet before that."""
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_BLANK: Final = " \t\r\n"
_BLANKS: Final = re.compile(f"[{_BLANK}]*")
_OPENED: Final = re.compile(r"\s*\{[ \t\r]*\n")  # a brace alone in the first line
_SHOWN: Final = 5
_KINDS: Final = {str: "text", int: "a number", float: "a number", bool: "a boolean", list: "a list"}


class Noted:
    """Rows that are read, but hold what readers disagree on: how many, and where the first stand."""

    def __init__(self) -> None:
        self.rows = 0
        self.places: list[Place] = []

    def add(self, place: Place) -> None:
        """Count the row at `place`."""
        self.rows += 1
        if len(self.places) < _SHOWN:
            self.places.append(place)


class Reader:
    """Reads JSON texts into rows, and takes note of keys that stand twice and numbers that JSON doesn't know.

    Attributes:
        repeated: Rows with an object that has a key twice; the last value wins, as in every reader of Python.
        unknown: Rows with NaN or Infinity.
    """

    def __init__(self) -> None:
        self.repeated = Noted()
        self.unknown = Noted()
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=self._constant)
        self._has_repeated = self._has_unknown = False

    def line(self, text: str, place: Place, *, cut: bool = False) -> Numbered:
        """The row that a line holds; `cut` says that the file ends with it, without a line break."""
        self._has_repeated = self._has_unknown = False
        try:
            value = self._decoder.decode(text)
        except json.JSONDecodeError as error:
            end = "; the file seems to be cut off there" if cut else ""
            return Numbered(place, None, f"{error.msg}, column {error.colno}{end}", text)
        except RecursionError:
            return Numbered(place, None, _TOO_DEEP, text)
        except ValueError:
            return Numbered(place, None, _TOO_LONG, text)
        self._note(place)
        deep = text.count("{") + text.count("[") > MOST_DEPTH
        numbered = _numbered(value, place, suspect=_SURROGATE.search(text) is not None, deep=deep)
        return numbered if numbered.problem is None else numbered._replace(text=text)

    def document(self, text: str) -> Any:
        """The value of a whole JSON document; what it notes has the place "the file".

        Raises:
            json.JSONDecodeError, ValueError, RecursionError: it is none.
        """
        self._has_repeated = self._has_unknown = False
        value = self._decoder.decode(text)
        self._note("the file")
        return value

    def next_value(self, text: str, at: int, place: Place) -> tuple[Any, int]:
        """The value that begins at a position of a text, and where it ends.

        Raises:
            json.JSONDecodeError, ValueError, RecursionError: there is none.
        """
        self._has_repeated = self._has_unknown = False
        value, end = self._decoder.raw_decode(text, at)
        self._note(place)
        return value, end

    def _note(self, place: Place) -> None:
        if self._has_repeated:
            self.repeated.add(place)
        if self._has_unknown:
            self.unknown.add(place)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            self._has_repeated = True
        return made

    def _constant(self, name: str) -> float:
        self._has_unknown = True
        return float(name)


_TOO_DEEP: Final = f"nested deeper than {MOST_DEPTH} levels"
# The only ValueError of Python's own reader besides JSONDecodeError.
_TOO_LONG: Final = f"a number of more than {sys.get_int_max_str_digits():,} digits"


def read_lines(lines: Iterable[bytes], name: str, reader: Reader) -> Iterator[Numbered]:
    """The rows of JSON Lines; blank lines are skipped, a bare array of messages becomes one row.

    Raises:
        FindingsError: D003, a line isn't UTF-8.
    """
    for number, line in enumerate(lines, 1):
        text = decoded(line, name, number)
        if text.strip(_BLANK):
            yield reader.line(text.rstrip("\r\n"), number, cut=not text.endswith("\n"))


def decoded(line: bytes, name: str, number: int) -> str:
    """A line's text.

    Raises:
        FindingsError: D003, it isn't UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        unreadable(name, f"Line {number} isn't UTF-8 (byte 0x{line[error.start]:02x}).", recode("WINDOWS-1252"))


def read_document(text: str, name: str, reader: Reader) -> Iterator[Numbered]:
    """The rows of a JSON document: an array of rows, an object of rows by id, an object with one list of rows in it,
    or a single row.

    Raises:
        FindingsError: D001, it can't be parsed.
    """
    try:
        value = reader.document(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(error, text, name) from None
    yield from _numbered_all(enumerate(_row_list(value), 1), text)


def is_series(text: str) -> bool:
    """Whether a text is a series of objects that stand over several lines, by the first of them."""
    if _OPENED.match(text):
        return True
    start = _after_blanks(text, 0)
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return False
    return "\n" in text[start:end] and text.startswith("{", _after_blanks(text, end))


def read_series(text: str, name: str, reader: Reader) -> Iterator[Numbered]:
    """The rows of a series of JSON objects, one after another, wherever lines end.

    Raises:
        FindingsError: D001, one can't be parsed, so that nobody knows where the next one begins.
    """
    yield from _numbered_all(enumerate(_values(text, name, reader), 1), text)


def _values(text: str, name: str, reader: Reader) -> Iterator[Any]:
    at, number = _after_blanks(text, 0), 0
    while at < len(text):
        number += 1
        try:
            value, end = reader.next_value(text, at, number)
        except (ValueError, RecursionError) as error:
            raise _refusal(error, text, name) from None
        yield value
        at = _after_blanks(text, end)


def _after_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return found.end() if found else at


def _refusal(error: ValueError | RecursionError, text: str, name: str) -> FindingsError:
    """D001 for a document that Python's own reader refuses."""
    problem, place = f"It is {_TOO_DEEP}.", "the file"
    if isinstance(error, json.JSONDecodeError):
        end = "; the file seems to be cut off there" if error.pos >= len(text.rstrip(_BLANK)) - 1 else ""
        problem = f"In line {error.lineno}: {error.msg}, column {error.colno}{end}."
        place = f"line {error.lineno} (`sed -n {error.lineno}p {name}` shows it)"
    elif isinstance(error, ValueError):
        problem = f"It holds {_TOO_LONG}."
    return FindingsError([finding("D001", name, error=problem, place=place)])


def _numbered_all(values: Iterable[tuple[int, Any]], text: str) -> Iterator[Numbered]:
    """The values of a document as rows, or why they are none."""
    suspect = _SURROGATE.search(text) is not None
    deep = text.count("{") + text.count("[") > MOST_DEPTH
    for number, item in values:
        numbered = _numbered(item, number, suspect=suspect, deep=deep)
        yield numbered if numbered.problem is None or deep else numbered._replace(text=json.dumps(item))


def _row_list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [value] if is_chat(value) else value
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list)]
        if len(lists) == 1 and all(isinstance(item, dict) for item in lists[0]) and not is_chat(lists[0]):
            return lists[0]
        if _are_rows_by_id(value):
            return [row if "id" in row else {"id": name, **row} for name, row in value.items()]
    return [value]


def _are_rows_by_id(value: dict[str, Any]) -> bool:
    """Whether an object's values are rows: several objects that have a key in common."""
    rows = list(value.values())
    if len(rows) < 2 or not all(isinstance(row, dict) for row in rows):
        return False
    return bool(set(rows[0]).intersection(*rows[1:]))


def _numbered(value: Any, place: Place, *, suspect: bool, deep: bool) -> Numbered:
    """`value` as a row, or why it is none: it may hold half a surrogate pair (`suspect`), or be nested too `deep`."""
    if not isinstance(value, dict) and not (isinstance(value, list) and is_chat(value)):
        return Numbered(place, None, f"a row must be an object, this is {_KINDS.get(type(value), 'null')}")
    if deep and _depth(value) > MOST_DEPTH:
        return Numbered(place, None, _TOO_DEEP)
    if suspect:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Numbered(place, None, "half of a surrogate pair (\\ud800 to \\udfff) is no character")
    row: Row = value if isinstance(value, dict) else {"messages": value}
    return Numbered(place, row)


def _depth(value: Any) -> int:
    """Levels of nesting, without recursion."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [part for item in level for part in (item.values() if isinstance(item, dict) else item)]
    return depth
