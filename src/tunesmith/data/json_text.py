"""Parsing JSON documents and JSON Lines into rows, with the line of every error."""

from __future__ import annotations

import json
import re
from typing import Any

from ..rules import FindingsError, finding
from .rows import Numbered, Row
from .turns import is_chat

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_PROBED_LINES = 20
_BLANK = " \t\r\n"


def parse(text: str, name: str, *, lines_expected: bool) -> Numbered:
    """The rows of a text that is one JSON document, or JSON Lines.

    A text that is neither, because it is broken, is taken for what most of its first lines look like.

    Args:
        text: The whole file.
        name: The file's name, for findings.
        lines_expected: Whether the file's ending says JSON Lines.

    Raises:
        FindingsError: D001.
    """
    start = len(text) - len(text.lstrip(_BLANK))
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        whole = False
    else:
        whole = not text[end:].strip(_BLANK)
    if whole and not (lines_expected and isinstance(value, dict)):
        return _rows_of(value, text, name)
    return parse_lines(text, name) if lines_expected or _mostly_lines(text) else parse_document(text, name)


def _mostly_lines(text: str) -> bool:
    lines = [line for line in text.split("\n", 4 * _PROBED_LINES)[:-1] if line.strip(_BLANK)][:_PROBED_LINES]
    return 2 * sum(_stands_alone(line) for line in lines) > len(lines)


def _stands_alone(line: str) -> bool:
    try:
        return isinstance(json.loads(line), (dict, list))
    except (ValueError, RecursionError):
        return False


def parse_lines(text: str, name: str) -> Numbered:
    """The rows of a JSON Lines text; blank lines are skipped, a bare array of messages becomes one row.

    Raises:
        FindingsError: D001, with the number of broken lines and the first of them.
    """
    rows: list[Row] = []
    places: list[int] = []
    broken: list[tuple[int, str]] = []
    # Not str.splitlines: it also cuts at U+2028 and others, which may stand inside JSON strings.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip(_BLANK):
            continue
        try:
            value = json.loads(line)
            problem = _problem_of(value, line)
        except json.JSONDecodeError as error:
            cut = not text.endswith("\n") and text.count("\n") + 1 == number
            problem = f"{error.msg}, column {error.colno}" + ("; the file seems to be cut off there" if cut else "")
        except (ValueError, RecursionError) as error:
            problem = str(error)
        if problem:
            broken.append((number, problem))
            continue
        rows.append(_as_row(value))
        places.append(number)
    if broken:
        raise _refusal(name, broken, "line")
    return Numbered(rows, places)


def parse_document(text: str, name: str) -> Numbered:
    """The rows of a JSON document: an array of rows, an object with one list of rows in it, or a single row.

    Raises:
        FindingsError: D001.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        end = "; the file seems to be cut off there" if error.pos >= len(text.rstrip(_BLANK)) - 1 else ""
        raise _refusal(name, [(error.lineno, f"{error.msg}, column {error.colno}{end}")], "line") from None
    except (ValueError, RecursionError) as error:
        raise FindingsError([finding("D001", name, error=f"JSON error: {error}", place="the file")]) from None
    return _rows_of(value, text, name)


def _rows_of(value: Any, text: str, name: str) -> Numbered:
    items = _row_list(value)
    suspect = _SURROGATE.search(text) is not None
    problems = [(number, _problem_of(item, "\\ud800" if suspect else "")) for number, item in enumerate(items, 1)]
    broken = [(number, problem) for number, problem in problems if problem]
    if broken:
        raise _refusal(name, broken, "row")
    return Numbered([_as_row(item) for item in items], list(range(1, len(items) + 1)))


def _row_list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [value] if is_chat(value) else value
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list)]
        if len(lists) == 1 and all(isinstance(item, dict) for item in lists[0]) and not is_chat(lists[0]):
            return lists[0]
    return [value]


def _problem_of(value: Any, source: str) -> str:
    """Why `value`, parsed from `source`, can't be a row; empty when it can."""
    if not isinstance(value, dict) and not (isinstance(value, list) and is_chat(value)):
        return f"a row must be an object, this is {_KINDS.get(type(value), 'null')}"
    if _SURROGATE.search(source):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return "half of a surrogate pair (\\ud800 to \\udfff) is no character"
    return ""


_KINDS = {str: "text", int: "a number", float: "a number", bool: "a boolean", list: "a list"}


def _as_row(value: Any) -> Row:
    return value if isinstance(value, dict) else {"messages": value}


def _refusal(name: str, broken: list[tuple[int, str]], unit: str) -> FindingsError:
    """D001 for broken lines or rows: their number, and the first with its error."""
    number, problem = broken[0]
    count = f"{len(broken):,} {unit}s can't be parsed, the first is {unit}" if len(broken) > 1 else f"In {unit}"
    shown = f" (`sed -n {number}p {name}` shows it)" if unit == "line" else ""
    return FindingsError(
        [finding("D001", name, error=f"{count} {number}: {problem}.", place=f"{unit} {number}{shown}")]
    )
