"""A template: all places where values may stand in rows, and the shape of a row by what stands at each.

A row's code has a character for each node of the template: `-` nothing stands there, 0 null, 1 text, 2 number,
3 boolean, 5 the object or list that the template has there, m values of several of these kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from ..shape import NULL, Shape

ROOT: Final = "$"
_MOST_NODES: Final = 64
_SCALARS: Final = {"0": NULL, "1": Shape("text"), "2": Shape("number"), "3": Shape("boolean"), "m": Shape("mixed")}


@dataclass(frozen=True)
class Node:
    """A place in rows.

    Attributes:
        number: Its position in codes.
        kind: object, list, or scalar for anything else.
        path: Its path as duckdb has them.
        many: Whether it lies in a list, so that a row may have several values there.
        parent: Its parent's number; None for the row itself.
        key: Its key in an object; None for the items of a list.
        children: The values of an object's keys, or the items of a list.
    """

    number: int
    kind: str
    path: str
    many: bool
    parent: int | None
    key: str | None
    children: tuple[Node, ...]

    @property
    def spec(self) -> Any:
        """Its type for json_transform."""
        if self.kind == "object":
            return {child.key: child.spec for child in self.children}
        return [self.children[0].spec] if self.kind == "list" else "JSON"

    def walk(self) -> Iterator[Node]:
        """It and all nodes below, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


class Template:
    """The places where the values of rows of several shapes stand."""

    def __init__(self, shape: Shape) -> None:
        """Make a template of an object's shape.

        Raises:
            ValueError: duckdb can't take such rows apart, or there are too many places.
        """
        self._made = 0
        self.shape = shape
        self.root = self._node(shape, ROOT, None, None, many=False)
        self.nodes = sorted(self.root.walk(), key=lambda node: node.number)
        self.shape_of = lru_cache(4096)(self._shape_of)

    def _node(self, shape: Shape, path: str, parent: int | None, key: str | None, *, many: bool) -> Node:
        number, self._made = self._made, self._made + 1
        if self._made > _MOST_NODES:
            raise ValueError("too many places")
        kind, children = "scalar", []
        if shape.kind == "object" and shape.keys:
            kind = "object"
            if len({name.lower() for name, _ in shape.keys}) < len(shape.keys):
                raise ValueError("duckdb's names know no case")
            for name, below in shape.keys:
                children.append(self._node(below, f"{path}.{_quoted(name)}", number, name, many=many))
        elif shape.kind == "list":
            kind = "list"
            children.append(self._node(shape.items or NULL, f"{path}[*]", number, None, many=True))
        return Node(number, kind, path, many, parent, key, tuple(children))

    def at(self, path: str) -> Node | None:
        """The node at a path of keys joined by dots, through objects only."""
        node: Node | None = self.root
        for key in path.split("."):
            node = next((child for child in node.children if child.key == key), None) if node else None
        return node

    def _shape_of(self, code: str) -> Shape:
        """The shape of rows that have a code."""
        return _shape(self.root, code) or NULL


def united(one: Shape, other: Shape) -> Shape:
    """A shape with the places of both; where an object or list stands in one, it has that."""
    if one.kind not in ("object", "list") or (one.kind != other.kind and other.kind in ("object", "list")):
        return other if other.kind in ("object", "list") and one.kind not in ("object", "list") else one
    if one.kind != other.kind:
        return one
    if one.kind == "list":
        items = united(one.items, other.items) if one.items and other.items else one.items or other.items
        return Shape("list", items=items)
    keys = dict(one.keys)
    for key, below in other.keys:
        keys[key] = united(keys[key], below) if key in keys else below
    return Shape("object", tuple(sorted(keys.items())))


def _shape(node: Node, code: str) -> Shape | None:
    mark = code[node.number]
    if mark == "-":
        return None
    if mark != "5":
        return _SCALARS[mark]
    below = [(child.key, _shape(child, code)) for child in node.children]
    if node.kind == "list":
        return Shape("list", items=below[0][1])
    return Shape("object", tuple((key, shape) for key, shape in below if key is not None and shape is not None))


def _quoted(key: str) -> str:
    if not key or not key.isprintable() or set(key) & set("\"'\\*?["):
        raise ValueError("a key that paths of duckdb can't name for sure")
    return f'"{key}"'
