"""Counting the rows of a segment that fit a template, by functions of duckdb that are cheap: two parses of each line.

json_transform takes a line apart into the template's places. Its nulls may be anything: json_type, asked for the few
lines that have one, tells what. That nothing else stands in a line, neither another key nor one twice, follows from
the number of all its values, which json_array_length counts along `$.**`: each value found is one of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from ..shape import PLACES
from .counting import TRAILING, is_plain
from .tally import Questions
from .template import Node, Template

_SCALAR_LETTERS: Final = frozenset("0123456789.+-aeEfIilnNrstuy")  # of null, true, false, numbers, NaN, Infinity
_DIGITS: Final = 500  # of longer numbers, Python reads only some


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


def _speaker(node: Node, role: str) -> Node | None:
    """Under a list of turns, where the speaker is named; the items of a list without objects name none."""
    items = node.children[0]
    return next((child for child in items.children if child.key == role), None) if items.kind == "object" else items


@lru_cache(maxsize=16)
def query(template: Template, asked: Questions, *, loose: bool, plain: bool) -> str:
    """The rows' codes with answers, counted; each level of queries uses the columns of the one below.

    A `plain` query asks for no types, so rows with something null or absent don't fit.
    """
    nodes = template.nodes
    spec = json.dumps(template.root.spec, ensure_ascii=False)
    odd = TRAILING if loose else "false"
    rows = f"""
        select place, line, {odd} odd, try(json_transform(line, '{spec}')) c0,
        try(len(json_array_length(line, '$.**'))) size from segment where strlen(line) > 1
    """
    deep: dict[int, list[Node]] = {}
    for node in nodes[1:]:
        deep.setdefault(node.path.count(".") + node.path.count("["), []).append(node)
    levels = [[f"{_values(node, nodes)} c{node.number}" for node in deep[depth]] for depth in sorted(deep)]
    levels.append([f"{_held(node)} q{node.number}" for node in nodes])
    levels.append([f"{_doubt(node)} d{node.number}" for node in nodes])
    levels += [] if plain else _types(nodes)
    levels.append([f"{_places(node, plain)} n{node.number}, {_kinds(node, plain)} k{node.number}" for node in nodes])
    many = [node.number for node in nodes if node.many]
    levels.append([f"list_min(k{number}) l{number}, list_max(k{number}) h{number}" for number in many])
    for level in filter(None, levels):
        rows = f"select *, {', '.join(level)} from ({rows})"
    total = " + ".join(f"n{node.number}" for node in nodes)
    sure = "".join(f" and not d{node.number}" for node in nodes) if plain else ""
    fits = f"not odd and size + 1 = {total} and {_code(template.root, plain)} = '5'{sure}"
    codes = " || ".join(_code(node, plain) for node in nodes)
    rows = f"select *, case when {fits} then {codes} end code from ({rows})"
    listed = "".join(f", case when code is not null then {answer} end" for answer in _answers(template, asked))
    return f"""
        select code, min(place, {PLACES}) filter (where code is not null), list(place) filter (where code is null),
        count(*){listed} from ({rows}) group by code{listed}
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


def _types(nodes: Sequence[Node]) -> list[list[str]]:
    """The types of the nodes in doubt, as columns; one parse of the line answers for all outside of lists."""
    single = [node for node in nodes if not node.many]
    doubts = " or ".join(f"d{node.number}" for node in single)
    paths = ", ".join(f"'{node.path}'" for node in single)
    lists = [node for node in nodes if node.many]
    return [
        [f"case when {doubts} then try(json_type(line, [{paths}])) end t"]
        + [f"case when d{node.number} then try(json_type(line, '{node.path}')) end t{node.number}" for node in lists],
        [f"case when d{node.number} then t[{index}] end t{node.number}" for index, node in enumerate(single, 1)],
    ]


def _places(node: Node, plain: bool) -> str:
    """How many values stand at a node."""
    number = node.number
    asked = f"coalesce(len(t{number}), 0)" if node.many else f"(t{number} is not null)::bigint"
    return _wanted(node) if plain else f"case when d{number} then {asked} else {_wanted(node)} end"


def _kinds(node: Node, plain: bool) -> str:
    """What kinds of values stand at a node: a number, or their list."""
    number = node.number
    if node.kind == "scalar":
        return f"list_transform(c{number}, lambda v: {_kind('v')})" if node.many else _kind(f"c{number}")
    if plain:
        return "[5]" if node.many else "5"
    own = "'OBJECT'" if node.kind == "object" else "'ARRAY'"
    return (
        f"list_transform(t{number}, lambda v: {_kind_of_type('v', own)})"
        if node.many
        else _kind_of_type(f"t{number}", own)
    )


def _kind(value: str) -> str:
    """The number for the JSON of a text, number or boolean; 9 for anything else but null."""
    text = f"{value}::varchar"
    number = f"({text} between '0' and ':' or {text} >= '-0' and {text} < '-:') and strlen({text}) < {_DIGITS}"
    return (
        f"case when {text} >= '\"' and {text} < '#' then 1 when {number} then 2 "
        f"when {text} in ('true', 'false') then 3 when {text} is not null then 9 end"
    )


def _kind_of_type(value: str, own: str) -> str:
    """The same for what json_type says; 5 for the template's own type."""
    kinds = (
        "when 'VARCHAR' then 1 when 'UBIGINT' then 2 when 'BIGINT' then 2 when 'BOOLEAN' then 3 when 'NULL' then null"
    )
    return f"case {value} when {own} then 5 {kinds} else 9 end"


def _code(node: Node, plain: bool) -> str:
    """A node's character of a row's code; null for what the template can't tell."""
    number = node.number
    low, high = (f"l{number}", f"h{number}") if node.many else (f"k{number}", f"k{number}")
    kinds = " ".join(f"when {kind} then '{kind}'" for kind in (1, 2, 3, 5))
    code = (
        f"case when n{number} = 0 then '-' when {low} is null then '0' "
        f"when {low} = {high} then case {low} {kinds} end when {high} < 5 then 'm' end"
    )
    if node.kind == "scalar":
        return code
    known = f"case when n{number} = 0 then '-' else '5' end"
    return known if plain else f"case when d{number} then {code} else {known} end"


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
