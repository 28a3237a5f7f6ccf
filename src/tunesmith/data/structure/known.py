"""Counting the rows of a segment that fit a template, by functions of duckdb that are cheap: two parses of each line.

json_transform takes a line apart into the template's places. Its nulls may be anything: json_type, asked for the few
lines that have one, tells what. That nothing else stands in a line, neither another key nor one twice, follows from
the number of all its values, which json_array_length counts along `$.**`: each value found is one of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, Final

from ..rows import Row
from ..shape import PLACES, Ordered, Shape, as_text, shape_of
from ..sources.json_text import Reader
from .counting import TRAILING, is_plain
from .segments import Segment
from .tally import Questions, Tally
from .template import Node, Template, united

if TYPE_CHECKING:
    import duckdb

_READ: Final = 500  # other lines of a segment that Python reads
_LEARNT: Final = 200  # other lines that are looked at for more places
_SCALAR_LETTERS: Final = frozenset("0123456789.+-aeEfIilnNrstuy")  # of null, true, false, numbers, NaN, Infinity
_MACROS: Final = (
    """create macro kind_of(text) as case when text >= '"' and text < '#' then 1
       when (text between '0' and ':' or text >= '-0' and text < '-:') and strlen(text) < 500 then 2
       when text in ('true', 'false') then 3 when text is not null then 9 end""",
    """create macro kind_of_type(type, own) as case type when own then 5 when 'VARCHAR' then 1
       when 'UBIGINT' then 2 when 'BIGINT' then 2 when 'BOOLEAN' then 3 when 'NULL' then null else 9 end""",
    """create macro code_of(places, low, high) as case when places = 0 then '-' when low is null then '0'
       when high < 9 and low = high then low::varchar when high < 5 then 'm' end""",
)


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

    def __init__(self, connection: duckdb.DuckDBPyConnection, template: Template | None) -> None:
        """Count by `connection`; with no template, nothing fits."""
        self._connection = connection
        self._seen: set[Shape] = set()
        self.template = template
        for macro in _MACROS:
            connection.execute(macro)

    def ask(self, segment: Segment, questions: Questions) -> Answer:
        """Ask duckdb about a segment; in any thread."""
        if self.template is None:
            return Answer(segment, None, questions, [], segment.table["place"].to_pylist())
        asked, template = _asked(questions, segment), self.template
        with self._connection.cursor() as cursor:
            cursor.register("segment", segment.table)
            groups = cursor.execute(_query(template, asked, segment.is_loose)).fetchall()
        others = sorted(index for group in groups if group[0] is None for index in group[2])
        return Answer(segment, template, asked, [group for group in groups if group[0] is not None], others)

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


def can_answer(template: Template, asked: Questions) -> bool:
    """Whether all questions have an answer in the columns of a template's query."""
    for path in asked.values:
        node = template.at(path)
        if node is not None and node.kind != "scalar":
            return False
    for path, role in asked.turns:
        node = template.at(path)
        if node is not None and node.kind == "list" and _speaker(node, role) is None:
            return False
    for path, text in asked.containing:
        node = template.at(path)
        if set(text) <= _SCALAR_LETTERS or (node is not None and node.kind != "scalar" and not is_plain(text)):
            return False
    return True


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


def _speaker(node: Node, role: str) -> Node | None:
    """Under a list of turns, where the speaker is named; the items of a list without objects name none."""
    items = node.children[0]
    return next((child for child in items.children if child.key == role), None) if items.kind == "object" else items


@lru_cache(maxsize=16)
def _query(template: Template, asked: Questions, is_loose: bool) -> str:
    """The rows' codes with answers, counted; each level of queries uses the columns of the one below."""
    nodes = template.nodes
    spec = json.dumps(template.root.spec, ensure_ascii=False)
    odd = TRAILING if is_loose else "false"
    query = f"""
        select place, line, {odd} odd, try(json_transform(line, '{spec}')) c0,
        try(len(json_array_length(line, '$.**'))) size from segment where strlen(line) > 1
    """
    deep: dict[int, list[Node]] = {}
    for node in nodes[1:]:
        deep.setdefault(node.path.count(".") + node.path.count("["), []).append(node)
    levels = [[f"{_values(node, nodes)} c{node.number}" for node in deep[depth]] for depth in sorted(deep)]
    levels.append([f"{_held(node)} q{node.number}" for node in nodes])
    levels.append([f"{_doubt(node)} d{node.number}" for node in nodes])
    levels.append(
        [f"case when d{node.number} then try(json_type(line, '{node.path}')) end t{node.number}" for node in nodes]
    )
    levels.append([f"{_places(node)} n{node.number}, {_kinds(node)} k{node.number}" for node in nodes])
    many = [node.number for node in nodes if node.many]
    levels.append([f"list_min(k{number}) l{number}, list_max(k{number}) h{number}" for number in many])
    for level in filter(None, levels):
        query = f"select *, {', '.join(level)} from ({query})"
    total = " + ".join(f"n{node.number}" for node in nodes)
    fits = f"not odd and size + 1 = {total} and {_code(template.root)} = '5'"
    query = f"select *, case when {fits} then {' || '.join(map(_code, nodes))} end code from ({query})"
    listed = "".join(f", case when code is not null then {answer} end" for answer in _answers(template, asked))
    return f"""
        select code, min(place, {PLACES}) filter (where code is not null), list(place) filter (where code is null),
        count(*){listed} from ({query}) group by code{listed}
    """


def _values(node: Node, nodes: Sequence[Node]) -> str:
    """What stands at a node: a value, or the list of values."""
    parent = nodes[node.parent or 0]
    above = f"c{parent.number}"
    if node.key is None:
        return f"flatten({above})" if parent.many else above
    return f"list_transform({above}, lambda v: v[{_sql(node.key)}])" if node.many else f"{above}[{_sql(node.key)}]"


def _held(node: Node) -> str:
    """How many of a node's values json_transform gives; an object may still be anything but null."""
    return f"coalesce(list_count(c{node.number}), 0)" if node.many else f"(c{node.number} is not null)::bigint"


def _wanted(node: Node) -> str:
    """How many values a node has at most."""
    if node.parent is None:
        return "1"
    return f"coalesce(len(c{node.number}), 0)" if node.key is None else f"q{node.parent}"


def _doubt(node: Node) -> str:
    """Whether a node's values must be asked for their types."""
    if node.kind == "scalar" and node.key is None:
        return "false"
    missing = f"q{node.number} < {_wanted(node)}"
    if node.kind != "object":
        return missing
    proofs = ", ".join(f"q{child.number}" for child in node.children)
    return f"({missing} or greatest({proofs}) < q{node.number})"


def _places(node: Node) -> str:
    """How many values stand at a node."""
    number = node.number
    asked = f"coalesce(len(t{number}), 0)" if node.many else f"(t{number} is not null)::bigint"
    return f"case when d{number} then {asked} else {_wanted(node)} end"


def _kinds(node: Node) -> str:
    """What kinds of values stand at a node: one, or their list."""
    number = node.number
    if node.kind == "scalar":
        return f"list_transform(c{number}, lambda v: kind_of(v::varchar))" if node.many else f"kind_of(c{number}::varchar)"
    own = "'OBJECT'" if node.kind == "object" else "'ARRAY'"
    return f"list_transform(t{number}, lambda v: kind_of_type(v, {own}))" if node.many else f"kind_of_type(t{number}, {own})"


def _code(node: Node) -> str:
    """A node's character of a row's code; null for what the template can't tell."""
    number = node.number
    code = f"code_of(n{number}, {'l' if node.many else 'k'}{number}, {'h' if node.many else 'k'}{number})"
    if node.kind == "scalar":
        return code
    return f"case when d{number} then {code} when n{number} = 0 then '-' else '5' end"


def _answers(template: Template, asked: Questions) -> Iterator[str]:
    for path in asked.values:
        node = template.at(path)
        yield f"c{node.number}::varchar" if node else "null"
    for path, role in asked.turns:
        node = template.at(path)
        named = _speaker(node, role) if node and node.kind == "list" else None
        yield _spoken(node, named) if node and named and named.key is not None else "null"
    for path, text in asked.containing:
        node = template.at(path)
        yield f"coalesce(contains({_searched(node, text)}, {_sql(text)}), false)" if node else "false"


def _spoken(turns: Node, named: Node) -> str:
    """The roles of turns that are objects; of many, the first, each of them once, and the last."""
    number, names = turns.number, f"c{named.number}::varchar[]"
    items = turns.children[0].number
    objects = f"list_filter(c{number}, lambda v: v is not null)"
    some = f"list_transform({objects}, lambda v: v[{_sql(str(named.key))}]::varchar)"
    names = f"case when q{items} < len(c{number}) then {some} else {names} end"
    brief = f"[({names})[1]] || list_sort(list_distinct({names})) || [({names})[-1]]"
    return f"case when q{items} > 8 and q{named.number} = q{items} then {brief} else {names} end"


def _searched(node: Node, text: str) -> str:
    """The text to look into: a value's JSON, where `text` stands there as it is, or the value."""
    if node.kind != "scalar":
        return f"json_extract(line, '{node.path}')::varchar"
    if is_plain(text):
        return f"c{node.number}::varchar"
    return f"case when c{node.number} is not null then json_extract_string(line, '{node.path}') end"


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
