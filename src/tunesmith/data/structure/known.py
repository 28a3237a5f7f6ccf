"""Counting the rows of a segment that fit a template; the few others are read, and many are learnt from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, Final

from ..rows import Row
from ..shape import PLACES, Ordered, Shape, as_text, shape_of
from ..sources.json_text import Reader
from .planned import Planned
from .segments import Segment
from .tally import Questions, Tally
from .template import Template, united
from .template_query import query

if TYPE_CHECKING:
    import duckdb

_READ: Final = 500  # other lines of a segment that Python reads
_MORE: Final = 100  # other lines of a segment that cost less to read than asking for types
_LEARNT: Final = 200  # other lines that are looked at for more places


@dataclass(frozen=True)
class Answer:
    """What duckdb said of a segment.

    Attributes:
        segment: The segment.
        template: The template by which it was asked; None for no question.
        asked: The questions.
        groups: Code, first indices, nothing, number of rows, and answers of rows that fit.
        others: Indices of the rows that don't.
    """

    segment: Segment
    template: Template | None
    asked: Questions
    groups: list[Any]
    others: list[int]


class KnownCounter:
    """Counts segment after segment; what doesn't fit its template is handed back, after a try to learn from it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, template: Template | None, *, plain: bool = True) -> None:
        """Count by `connection`; with no template, nothing fits. While rows allow it, queries are `plain`."""
        self._queries = Planned(connection)
        self._seen: set[Shape] = set()
        self._plain = plain
        self.template = template

    def ask(self, segment: Segment, questions: Questions) -> Answer:
        """Ask duckdb about a segment; in any thread."""
        if self.template is None:
            return Answer(segment, None, questions, [], segment.table["place"].to_pylist())
        asked, template = _asked(questions, segment), self.template
        groups = self._groups(segment, template, asked)
        others = sorted(index for group in groups if group[0] is None for index in group[2])
        return Answer(segment, template, asked, [group for group in groups if group[0] is not None], others)

    def _groups(self, segment: Segment, template: Template, asked: Questions) -> list[Any]:
        if self._plain:
            groups = self._queries.rows(query(template, asked, loose=segment.is_loose, plain=True), segment.table)
            if sum(rows for code, _, _, rows, *_ in groups if code is None) <= _MORE:
                return groups
            self._plain = False
        return self._queries.rows(query(template, asked, loose=segment.is_loose, plain=False), segment.table)

    def add(self, answer: Answer, tally: Tally) -> Segment | None:
        """Add a segment's rows to a tally, and give those that don't fit and weren't few enough to be read at once."""
        segment = answer.segment
        if len(answer.others) > _READ and self._learn(answer):
            answer = self.ask(segment, tally.questions)
        self._add(answer, tally)
        rest = segment.only(answer.others) if answer.others else None
        if rest is not None and len(answer.others) <= _READ:
            read_rows(rest, tally)
            return None
        if len(answer.others) * 2 > segment.table.num_rows:
            self.template = None
        return rest

    def _learn(self, answer: Answer) -> bool:
        """Extend the template by the places of rows that don't fit; False when it knew them."""
        if self.template is None:
            return False
        some = answer.others[:: len(answer.others) // _LEARNT]
        template = template_of((row for _, row in _rows(answer.segment.only(some))), self.template.shape)
        if template is None or (template.shape == self.template.shape and answer.template is self.template):
            return False
        self.template = template
        return True

    def _add(self, answer: Answer, tally: Tally) -> None:
        if answer.template is None:
            return
        first: dict[Shape, tuple[int, list[Ordered]]] = {}
        for code, indices, _, rows, *answers in answer.groups:
            shape = answer.template.shape_of(code)
            held, places = first.get(shape, (0, []))
            found = sorted([*places, *((index, answer.segment.place(index)) for index in indices)])[:PLACES]
            first[shape] = held + rows, found
            _answer(tally, answer.asked, answers, rows)
        for shape, (rows, places) in first.items():
            example = None
            if shape not in self._seen:
                self._seen.add(shape)
                ((_, example),) = _rows(answer.segment.only([places[0][0]]))
            tally.add_shape(shape, rows, places, example)


def template_of(rows: Iterable[Row], shape: Shape | None = None) -> Template | None:
    """The template of rows, and of a shape; None where duckdb can't take such rows apart."""
    shapes = {shape_of(row): None for row in rows}
    try:
        return Template(reduce(united, shapes, shape or Shape("object")))
    except ValueError:
        return None


def _asked(questions: Questions, segment: Segment) -> Questions:
    """The questions whose answers may be found in a segment."""
    texts = {text for _, text in questions.containing}
    there = {text for text in texts if segment.may_contain(text)}
    containing = tuple(question for question in questions.containing if question[1] in there)
    return Questions(questions.values, questions.turns, containing)


def _answer(tally: Tally, asked: Questions, answers: list[Any], rows: int) -> None:
    given = iter(answers)
    for path in asked.values:
        tally.add_values(path, {_text(next(given)): rows})
    for path, role in asked.turns:
        tally.add_turns(path, role, {tuple(map(_text, next(given) or ())): rows})
    for question in asked.containing:
        tally.containing[question] += rows * bool(next(given))


@lru_cache(maxsize=4096)
def _text(value: str | None) -> str:
    return "null" if value is None else as_text(json.loads(value))


def read_rows(segment: Segment, tally: Tally) -> None:
    """Add the rows of a segment to a tally one by one."""
    for index, row in _rows(segment):
        tally.add_row(index, segment.place(index), row)


def _rows(segment: Segment) -> Iterator[tuple[int, Row]]:
    reader = Reader()
    for index, line in zip(*(segment.table[name].to_pylist() for name in ("place", "line")), strict=True):
        row = reader.line(line, index).row if line.strip(" \t\r\n") else None
        if row is not None:
            yield index, row
