"""What detection is going to ask, by the first rows, so that one pass over the file answers it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ..rows import Row
from ..shape import Shape, as_text, shape_of, value_at
from .tally import Questions

_SPEAKERS = ("role", "from", "speaker")
_CLASSES = 20  # distinct values up to which a column may hold classes
_MARKS = ("<think>", "<functioncall>", "<tool_call>")  # of reasoning and calls, where they stand in texts
_MOST = 8  # columns of classes; each costs a little in every query
_LEVELS = 2
_ROWS = 1000


def foresee(rows: Iterable[Row]) -> Questions:
    """Who speaks in the conversations, and the values of short columns that hold few."""
    head = list(islice(rows, _ROWS))
    kinds: dict[str, Shape] = {}
    for row in head:
        kinds.update(_paths(shape_of(row), "", _LEVELS))
    turns = [
        (path, next(key for key in _SPEAKERS if shape.items.get(key)))
        for path, shape in kinds.items()
        if shape.items is not None and any(shape.items.get(key) for key in _SPEAKERS)
    ]
    classes = [
        path for path, shape in kinds.items() if shape.kind in ("text", "boolean", "number") and _few(head, path)
    ]
    marked = [path for path, _ in turns] + [path for path, shape in kinds.items() if shape.kind == "text"]
    return Questions(
        tuple(classes[:_MOST]), tuple(turns), tuple((path, mark) for path in marked[:_MOST] for mark in _MARKS)
    )


def _paths(shape: Shape, prefix: str, levels: int) -> Iterator[tuple[str, Shape]]:
    """The paths of an object's values with their shapes; a key with a dot can't be part of one."""
    for key, below in shape.keys:
        if "." in key or not key or below.kind == "null":
            continue
        yield f"{prefix}{key}", below
        if levels > 1:
            yield from _paths(below, f"{prefix}{key}.", levels - 1)


def _few(rows: list[Row], path: str) -> bool:
    return len({as_text(value_at(row, path)) for row in rows}) <= min(_CLASSES, max(2, len(rows) // 3))
