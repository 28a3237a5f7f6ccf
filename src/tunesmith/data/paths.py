r"""Paths into a row, as a mapping names them: `answer`, `extra_info.answer`, `messages[-1].content`, `choices[gold]`.

A text with braces is a template of paths: `"{context?}\n\n{question}"`. A path with a question mark may be null or
empty, and then takes the text that follows it along; the last one, the text before it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .rows import Row
from .shape import Shape

_STEP = re.compile(r"\.?([^.\[\]{}]+)|\[(-?\d+)\]|\[([^\[\]{}]+)\]")
_FIELD = re.compile(r"\{([^{}?]+)(\??)\}")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Path:
    """A way from a row to a value.

    Attributes:
        text: The path as written. A column that has this very name goes before what the path means.
        steps: Keys (str), positions (int) and paths to a column that holds the position, as a number or a letter.
    """

    text: str
    steps: tuple[str | int | Path, ...]

    def value(self, row: Row) -> Any:
        """The value it leads to; None where it leads nowhere."""
        if self.text in row:
            return row[self.text]
        value: Any = row
        for step in self.steps:
            value = _follow(value, step, row)
        return value

    def shape(self, row: Shape) -> Shape | None:
        """The shape of what it leads to in rows of the shape `row`; None where it leads nowhere."""
        found = row.get(self.text)
        if found is not None:
            return found
        found = row
        for step in self.steps:
            if isinstance(step, Path) and step.shape(row) is None:
                return None
            found = found.get(step) if isinstance(step, str) else found.items
            if found is None:
                return None
        return found

    def code(self, shape: Shape) -> str:
        """The Python expression for its value in a row of the shape `shape`, where no other column says a position."""
        if shape.get(self.text) is not None:
            return f"row[{quoted(self.text)}]"
        return "row" + "".join(f"[{quoted(step)}]" for step in self.steps)


@dataclass(frozen=True)
class Template:
    """Texts of several paths, put together.

    Attributes:
        text: The template as written.
        parts: Literal text and paths, each path with whether it may be null or empty.
    """

    text: str
    parts: tuple[str | tuple[Path, bool], ...]

    @property
    def paths(self) -> list[Path]:
        """The paths in it."""
        return [part[0] for part in self.parts if not isinstance(part, str)]

    def value(self, row: Row) -> Any:
        """The text put together; the first value that is needed and no text, as it is, where there is one."""
        out: list[str] = []
        for index, part in enumerate(self.parts):
            if isinstance(part, str):
                written = all(path.value(row) not in (None, "") for path in self._hinges(index))
                out += [part] if written else []
                continue
            value = part[0].value(row)
            empty = part[1] and value in (None, "")
            if not empty and not isinstance(value, str):
                return value
            out += [] if empty else [value]
        return "".join(out)

    def _hinges(self, index: int) -> list[Path]:
        """The optional paths without whose values the literal text at `index` isn't written."""
        beside = self.parts[max(index - 1, 0) : index]
        if index == len(self.parts) - 2:
            beside = (*beside, self.parts[-1])
        return [part[0] for part in beside if not isinstance(part, str) and part[1]]

    def code(self, shape: Shape) -> str:
        """The Python expression for its value."""
        terms: list[str] = []
        for index, part in enumerate(self.parts):
            if isinstance(part, str):
                hinges = " and ".join(path.code(shape) for path in self._hinges(index))
                terms.append(f'({quoted(part)} if {hinges} else "")' if hinges else quoted(part))
            else:
                value = part[0].code(shape)
                terms.append(f'({value} or "")' if part[1] else value)
        return " + ".join(terms)


def _follow(value: Any, step: str | int | Path, row: Row) -> Any:
    if isinstance(step, str):
        return value.get(step) if isinstance(value, dict) else None
    index = _position(step.value(row)) if isinstance(step, Path) else step
    if not isinstance(value, list) or index is None or not -len(value) <= index < len(value):
        return None
    return value[index]


def _position(value: Any) -> int | None:
    """The position that a value names: a whole number from 0, or a letter from A."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value >= 0 else None
    return LETTERS.index(value) if isinstance(value, str) and len(value) == 1 and value in LETTERS else None


@lru_cache(maxsize=256)
def parse_path(text: str) -> Path:
    """The path that `text` writes; what isn't written as a path is the name of a column."""
    steps: list[str | int | Path] = []
    at = 0
    if not text:
        return Path(text, (text,))
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None or (at == 0) == found[0].startswith((".", "[")):
            return Path(text, (text,))
        key, position, column = found.groups()
        # A key follows another one only behind a dot.
        if key is not None and at and not found[0].startswith("."):
            return Path(text, (text,))
        steps.append(key if key is not None else int(position) if position else parse_path(column))
        at = found.end()
    return Path(text, tuple(steps))


@lru_cache(maxsize=256)
def parse(text: str) -> Path | Template:
    """The path or template that `text` writes."""
    if not _FIELD.search(text):
        return parse_path(text)
    parts: list[str | tuple[Path, bool]] = []
    at = 0
    for found in _FIELD.finditer(text):
        parts += [text[at : found.start()]] if found.start() > at else []
        parts.append((parse_path(found[1]), bool(found[2])))
        at = found.end()
    return Template(text, (*parts, text[at:]) if at < len(text) else tuple(parts))


def value_of(row: Row, column: str) -> Any:
    """The value in `row` that `column`, a path or a template, leads to; None where it leads nowhere."""
    # Nearly always the name of a column.
    return row[column] if column in row else parse(column).value(row)


def paths_of(column: str) -> list[Path]:
    """The paths that a path or a template consists of."""
    parsed = parse(column)
    return parsed.paths if isinstance(parsed, Template) else [parsed]


def heads_of(column: str) -> set[str]:
    """The columns that a path or a template reads, those that hold a position among them."""
    found: set[str] = set()
    for path in paths_of(column):
        # A column may have the very name that reads as a path.
        found |= {path.text, *(step for step in path.steps[:1] if isinstance(step, str))}
        found |= {head for step in path.steps if isinstance(step, Path) for head in heads_of(step.text)}
    return found


def quoted(value: Any) -> str:
    """A value as a Python literal, with double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)}: {quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(quoted, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def known_paths(shape: Shape, most_deep: int = 5) -> list[str]:
    """The paths of keys through objects that rows of `shape` have."""
    found = []
    for key, inner in shape.keys:
        found.append(key)
        if inner.kind == "object" and most_deep > 1:
            found += [f"{key}.{path}" for path in known_paths(inner, most_deep - 1)]
    return found
