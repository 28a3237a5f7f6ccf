"""Counting the rows of a segment by duckdb, but for the odd ones, which go through the Reader as rows do everywhere.

duckdb's JSON reader (yyjson) takes some lines that Python's refuses, and some in another sense:

    broken, half a surrogate pair, deep nesting       no structure
    a bare array, a number, a text                    a structure that isn't an object's
    {}, items of mixed kinds, a key that stands twice "JSON" in the structure
    a trailing comma                                  taken; found by a pattern
    [null] and []                                     ["NULL"] both; told apart by a pattern
    nan, inf, and integers of thousands of digits     taken as DOUBLE; found by a pattern

It counts what fits no template (known.py) and is too much to be read. One thing the two see differently here: of a key
that stands twice with values of one shape, duckdb counts the first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ..shape import PLACES, Shape, as_text, shape_of
from ..sources.json_text import Reader
from .segments import Segment
from .tally import Questions, Tally

if TYPE_CHECKING:
    import duckdb

_SPACE: Final = r"[ \t\r]*"
TRAILING: Final = rf"regexp_matches(line, ',{_SPACE}[\]}}]')"
_NULL: Final = rf"regexp_matches(line, '\[{_SPACE}null')"
_NUMBER: Final = rf"regexp_matches(line, '(?i)[:,\[]{_SPACE}[-+]?(nan|inf)|[0-9]{{500}}')"

# Texts that stand in JSON as they are, and in nothing but its texts: contained there, contained in the value.
_PLAIN_TEXT: Final = re.compile(r"[^\s\"\\,:\[\]{}0-9.+-]*[<>|_/#@=][^\s\"\\,:\[\]{}0-9.+-]*")


def is_plain(text: str) -> bool:
    """Whether a text can be looked for in a value's JSON as well as in the value."""
    return _PLAIN_TEXT.fullmatch(text) is not None


class Counter:
    """Counts segment after segment; what it learns of the structures it meets holds for all of them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Count by `connection`."""
        self._connection = connection
        self._shapes: dict[str, Shape] = {}
        self._located: dict[str, int] = {}
        self._patterns: tuple[str, ...] = ()

    def count(self, segment: Segment, tally: Tally) -> None:
        """Add the rows of a segment to a tally."""
        asked = _remaining(tally)
        texts = [text for _, text in asked.containing]
        if texts and not (asked.values or asked.turns or any(map(segment.may_contain, texts))):
            return
        odd = self._odd(segment)
        self._connection.register("segment", segment.table)
        found = self._connection.execute(_query(asked, odd)).fetchall()
        needed = tuple(
            pattern
            for mark, pattern in (('["NULL"]', _NULL), ("DOUBLE", _NUMBER), ("HUGEINT", _NUMBER))
            if pattern not in odd and any(structure and mark in structure for structure, *_ in found)
        )
        if needed:
            self._patterns += tuple(dict.fromkeys(needed))
            odd = self._odd(segment)
            found = self._connection.execute(_query(asked, odd)).fetchall()
        unsure = {group[0] for group in found if not _is_sure(group)}
        plain = [group for group in found if not group[1] and group[0] not in unsure]
        if len(plain) < len(found):
            self._count_odd(segment, tally, odd, unsure)
        self._count_plain(segment, tally, odd, plain)
        for structure, _, rows, *answers in plain:
            if structure in self._shapes:
                _answer(tally, asked, self._shapes[structure], answers, rows)
        self._connection.unregister("segment")

    def _odd(self, segment: Segment) -> str:
        return " or ".join((TRAILING if segment.is_loose else "false", *self._patterns))

    def _count_plain(self, segment: Segment, tally: Tally, odd: str, plain: list[Any]) -> None:
        """Add the shapes of plain rows; the first rows of each are looked up, for their places and an example."""
        counts: dict[str, int] = {}
        for structure, _, rows, *_ in plain:
            counts[structure] = counts.get(structure, 0) + rows
        wanted = [structure for structure in counts if self._located.get(structure, 0) < PLACES]
        first = self._first(segment, odd, wanted)
        for structure, rows in counts.items():
            located = first.get(structure, [])
            self._located[structure] = self._located.get(structure, 0) + len(located)
            row = None
            if located:
                row = Reader().line(located[0][1], 0).row
                if row is not None:
                    self._shapes[structure] = shape_of(row)
            if structure in self._shapes:
                places = [(index, segment.place(index)) for index, _ in located]
                tally.add_shape(self._shapes[structure], rows, places, row)

    def _first(self, segment: Segment, odd: str, structures: list[str]) -> dict[str, list[tuple[int, str]]]:
        """The first rows of each structure: their indices and lines."""
        first: dict[str, list[tuple[int, str]]] = {}
        if structures:
            query = f"""
                select s, place, line from (select place, line, {_STRUCTURE} s from segment)
                where list_contains(?, s) and not ({odd})
                qualify row_number() over (partition by s order by place) <= {PLACES} order by place
            """
            for structure, index, line in self._connection.execute(query, [structures]).fetchall():
                first.setdefault(structure, []).append((index, line))
        return first

    def _count_odd(self, segment: Segment, tally: Tally, odd: str, structures: Iterable[str | None]) -> None:
        """Add the rows that Python reads."""
        query = f"""
            select place, line from (select place, line, {_STRUCTURE} s from segment)
            where s is null or list_contains(?, s) or {odd} order by place
        """
        named = [structure for structure in structures if structure is not None]
        reader = Reader()
        for index, line in self._connection.execute(query, [named]).fetchall():
            row = reader.line(line, index).row if line.strip(" \t\r\n") else None
            if row is not None:
                tally.add_row(index, segment.place(index), row)


_STRUCTURE: Final = "try(json_structure(line))::varchar"


def _is_sure(group: Sequence[Any]) -> bool:
    """Whether a group's structure says all of its rows' shape, and nobody in it speaks without a role."""
    structure, _, _, *answers = group
    if structure is None or not structure.startswith("{") or '"JSON"' in structure:
        return False
    return not any(isinstance(answer, list) and None in answer for answer in answers)


def _remaining(tally: Tally) -> Questions:
    """What is still to be counted: values that proved too many aren't."""
    asked = tally.questions
    values = tuple(path for path in asked.values if tally.values.get(path, {}) is not None)
    return Questions(values, asked.turns, asked.containing)


def _answer(tally: Tally, asked: Questions, shape: Shape, answers: list[Any], rows: int) -> None:
    """Count what a group of plain rows of one shape answers."""
    given = iter(answers)
    for path in asked.values:
        tally.add_values(path, {_read(next(given)): rows})
    for path, role in asked.turns:
        spoken = tuple(map(_read, next(given) or ()))
        if _holds_objects(shape, path):
            tally.add_turns(path, role, {spoken: rows})
    for question in asked.containing:
        tally.containing[question] += rows * bool(next(given))


def _holds_objects(shape: Shape, path: str) -> bool:
    """Whether a list of objects stands at a path; duckdb would see turns without a role in any other list."""
    below: Shape | None = shape
    for key in path.split("."):
        below = below.get(key) if below else None
    return below is not None and below.items is not None and below.items.kind == "object"


@lru_cache(maxsize=4096)
def _read(text: str | None) -> str:
    """A value that duckdb gives as JSON, as text."""
    return "null" if text is None else as_text(json.loads(text))


@lru_cache(maxsize=16)
def _query(questions: Questions, odd: str) -> str:
    """Groups of rows that agree in structure, in being odd, and in everything asked."""
    wanted = _Wanted()
    answers = [f"{wanted.at(path, 'JSON')}::varchar" for path in questions.values]
    for path, role in questions.turns:
        turns = f"list_filter({wanted.at(path, [{role: 'JSON'}])}, lambda turn: turn is not null)"
        answers.append(f"list_transform({turns}, lambda turn: turn[{_quoted(role)}]::varchar)")
    for path, text in questions.containing:
        answers.append(f"coalesce(contains({wanted.at(path, 'JSON')}::varchar, {_quoted(text)}), false)")
    listed = "".join(f", {answer}" for answer in answers)
    return f"""
        select s::varchar, odd, count(*){listed}
        from (select try(json_structure(line)) s, ({odd}) odd{wanted.columns} from segment)
        group by s, odd{listed}
    """


class _Wanted:
    """What is to be taken out of each line, in as few columns as there are; each costs a parse of the line."""

    def __init__(self) -> None:
        self._columns: list[dict[str, Any]] = []

    @property
    def columns(self) -> str:
        """The columns as SQL."""
        texts = (_quoted(json.dumps(column)) for column in self._columns)
        return "".join(f", try(json_transform(line, {text})) x{number}" for number, text in enumerate(texts))

    def at(self, path: str, leaf: Any) -> str:
        """What stands at a path, as SQL; its type is `leaf`, as json_transform has it."""
        keys = path.split(".")
        number = next((number for number, column in enumerate(self._columns) if _put(column, keys, leaf)), None)
        if number is None:
            number = len(self._columns)
            self._columns.append({})
            _put(self._columns[number], keys, leaf)
        return f"x{number}" + "".join(f"[{_quoted(key)}]" for key in keys)


def _put(column: dict[str, Any], keys: list[str], leaf: Any) -> bool:
    """Add a path to a column's type, unless the column has another type for it; duckdb's names know no case."""
    key, *below = keys
    known = next((name for name in column if name.lower() == key.lower()), None)
    if known is None:
        column[key] = leaf
        for name in reversed(below):
            leaf = {name: leaf}
            column[key] = leaf
        return True
    if known != key:
        return False
    return (
        _put(column[key], below, leaf) if below and isinstance(column[key], dict) else not below and column[key] == leaf
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
