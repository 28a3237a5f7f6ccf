"""The layout that a mapping says."""

from __future__ import annotations

import difflib
from typing import Final

from ...errors import UsageError
from ...records import Layout
from ..paths import Path, known_paths, paths_of
from ..rows import name_columns
from ..shape import Structure
from .facts import Facts
from .names import TOOLS
from .sight import Sight

_FAMILIES: Final = (("messages",), ("prompt", "completion", "chosen", "rejected"), ("text",))
_MAIN: Final = tuple(role for family in _FAMILIES for role in family)
_TAKEN: Final = ("chosen", "rejected", "completion", "prompt")
"""Roles that a column of the very name plays, where the mapping names a companion of it."""


def check(mapped: dict[str, str], structure: Structure) -> None:
    """Refuse a mapping that can't be.

    Raises:
        UsageError: it names a column that isn't there, or roles that exclude each other.
    """
    for role, column in mapped.items():
        for path in paths_of(column):
            if structure.rows and not any(path.shape(group.shape) for group in structure.groups):
                raise _absent(role, path, structure)
    families = [family for family in _FAMILIES if set(family) & set(mapped)]
    if len(families) > 1:
        raise UsageError(
            f"data.mapping names {' and '.join(mapped)}.",
            why="Rows are trained on as messages, or as prompt and answer, or as text; never as two of them.",
            fix="Keep one of them in the mapping.",
        )
    if "text" in mapped and "system" in mapped:
        raise UsageError(
            "data.mapping.system can't be used: the rows are plain text.",
            why="A system message belongs to a conversation, or to a prompt with a completion.",
            fix="Take `system` out of the mapping, or map prompt and completion.",
        )


def _absent(role: str, path: Path, structure: Structure) -> UsageError:
    known = list(dict.fromkeys(name for group in structure.groups for name in known_paths(group.shape)))
    near = difflib.get_close_matches(path.text, known, n=1, cutoff=0.5)
    columns = list(dict.fromkeys(name for group in structure.groups for name, _ in group.shape.keys))
    return UsageError(
        f"data.mapping.{role} names the column {path.text!r}, which isn't there.",
        why=f"The columns are {name_columns(columns)}.",
        fix=f"Did you mean {near[0]!r}?" if near else "Name one of these columns.",
    )


def mapped_sight(mapped: dict[str, str], seen: Sight, facts: Facts) -> Sight:
    """The layout that a mapping says; `seen` is what the rows look like without it."""
    tools = [name for name in TOOLS if name in facts.keys and "text" not in mapped]
    if not set(mapped) & set(_MAIN):
        layout: Layout = "unpaired-preference" if "label" in mapped else seen.layout
        return Sight(layout, {**seen.columns, **mapped}, usual=True)
    columns = dict(mapped) if mapped.keys() & {"text", "messages"} else _completed(mapped, seen, facts)
    if "system" not in columns and "system" in facts.keys and "text" not in columns:
        columns["system"] = "system"
    return Sight(_layout(columns), columns | ({"tools": tools[0]} if tools else {}), usual=True)


def _completed(mapped: dict[str, str], seen: Sight, facts: Facts) -> dict[str, str]:
    """The mapping with the companions that it leaves out: as the rows look, or a column of the role's very name."""
    columns = dict(mapped)
    paired = bool(mapped.keys() & {"chosen", "rejected"})
    paired = paired or (seen.layout == "preference" and mapped.keys() <= {"prompt", "system"})
    for role in _TAKEN:
        wanted = paired if role in ("chosen", "rejected") else role == "prompt" or not paired
        found = seen.columns.get(role) if paired else role if role in facts.keys else None
        if role in ("chosen", "rejected") and found is None and role in facts.keys:
            found = role
        if role not in columns and found and wanted:
            columns[role] = found
    return columns


def _layout(columns: dict[str, str]) -> Layout:
    if columns.keys() >= {"chosen", "rejected"}:
        return "preference"
    if "label" in columns and columns.keys() & {"messages", "completion"}:
        return "unpaired-preference"
    if "messages" in columns or "text" in columns:
        return "messages" if "messages" in columns else "text"
    if columns.keys() >= {"prompt", "completion"}:
        return "prompt-completion"
    return "prompt-only" if "prompt" in columns else "unknown"
