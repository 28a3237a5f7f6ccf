"""What conversations hold besides questions and answers, by the number of rows."""

from __future__ import annotations

from collections.abc import Iterator

from ..paths import parse_path
from ..shape import Shape
from ..turns import CONTENT_KEYS, FUNCTION_CALLS, role_of
from .detection import Part
from .facts import Facts, role_key
from .names import REASONING

_CHAT_ROLES = ("messages", "prompt", "completion", "chosen", "rejected")
_CALL_MARKS = ("<functioncall>", "<tool_call>")
_THOUGHT = "<think>"


def features(parts: list[Part], facts: Facts) -> dict[str, int]:
    """Rows with system, tools, tool_calls, reasoning, images and history; only those that some row has."""
    counts: dict[str, int] = {}
    for part in parts:
        for name, rows in _of_part(part, facts).items():
            counts[name] = counts.get(name, 0) + rows
    return {name: rows for name, rows in counts.items() if rows}


def _of_part(part: Part, facts: Facts) -> dict[str, int]:
    columns = part.sight.columns
    counts = {
        "system": _rows_with(part, columns.get("system")),
        "tools": _rows_with(part, columns.get("tools")),
        "images": max(_rows_with(part, columns.get("images")), _with_parts(part, facts, '"image')),
        "history": _rows_with(part, columns.get("history")),
        "tool_calls": _with_key(part, "tool_calls", "function_call"),
        "reasoning": max(_with_key(part, *REASONING), _with_parts(part, facts, '"reasoning"', '"thinking"')),
    }
    for role, path in columns.items():
        if "{" in path or "[" in path:
            continue
        if role in (*_CHAT_ROLES, "output", "text"):
            thoughts = facts.structure.containing(path, _THOUGHT)
            counts["reasoning"] = min(part.rows, max(counts["reasoning"], thoughts))
        if role in _CHAT_ROLES:
            calls = max(facts.structure.containing(path, mark) for mark in _CALL_MARKS)
            counts["tool_calls"] = min(part.rows, max(counts["tool_calls"], calls, _spoken(part, facts, path, "call")))
            counts["system"] = min(part.rows, max(counts["system"], _spoken(part, facts, path, "system")))
    return counts


def _rows_with(part: Part, path: str | None) -> int:
    """Rows in which the value at a path is neither null nor an empty list."""
    if path is None:
        return 0
    found = ((parse_path(path).shape(group.shape), group.rows) for group in part.groups)
    return sum(rows for shape, rows in found if shape is not None and not _empty(shape))


def _empty(shape: Shape) -> bool:
    return shape.kind == "null" or (shape.kind == "list" and shape.items is None)


def _with_key(part: Part, *keys: str) -> int:
    """Rows with a turn that has one of `keys`."""
    rows = 0
    for group in part.groups:
        paths = [path for role, path in part.sight.columns.items() if role in _CHAT_ROLES]
        shapes = [shape for shape in (parse_path(path).shape(group.shape) for path in paths) if shape is not None]
        if any(key in keys for shape in shapes for key in _turn_keys(shape)):
            rows += group.rows
    return rows


def _with_parts(part: Part, facts: Facts, *types: str) -> int:
    """Rows whose contents are given as parts, some of these types, given as JSON has them."""
    paths = [path for role, path in part.sight.columns.items() if role in _CHAT_ROLES and not set("{[") & set(path)]
    in_parts = [path for path in paths if any(_has_parts(parse_path(path).shape(group.shape)) for group in part.groups)]
    found = (facts.structure.containing(path, name) for path in in_parts for name in types)
    return min(part.rows, max(found, default=0))


def _has_parts(shape: Shape | None) -> bool:
    turn = shape.items if shape is not None and shape.kind == "list" else shape
    return turn is not None and any(inner.kind in ("list", "mixed") for key, inner in turn.keys if key in CONTENT_KEYS)


def _turn_keys(shape: Shape) -> Iterator[str]:
    """Keys of turns under which some value stands."""
    turn = shape.items if shape.kind == "list" and shape.items is not None else shape
    return (key for key, inner in turn.keys if not _empty(inner))


def _spoken(part: Part, facts: Facts, path: str, what: str) -> int:
    """Rows in which the system speaks, or a function is called by a turn of its own."""
    key = next((role_key(parse_path(path).shape(group.shape)) for group in part.groups), None)
    if key is None:
        return 0
    roles = facts.turns(path, key).roles
    wanted = FUNCTION_CALLS if what == "call" else ("system",)
    return max((rows for name, rows in roles.items() if role_of(name) in wanted), default=0)
