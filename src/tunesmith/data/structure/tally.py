"""Counting what rows are made of, row by row or many alike at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ..rows import Place, Row
from ..shape import Group, Ordered, Shape, ShapeCounts, Turns, as_text, shape_of, value_at

MOST_VALUES: Final = 1000
"""Distinct values of a path that are counted; with more, the path holds no classes."""


@dataclass(frozen=True)
class Questions:
    """What to count besides shapes: values at paths, speakers at (path, key of the role), texts contained at paths."""

    values: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()
    containing: tuple[tuple[str, str], ...] = ()


@dataclass
class Tally:
    """What was counted so far.

    Attributes:
        questions: What is counted besides shapes.
        rows: Readable rows.
        values: Path -> value -> rows; None for more than MOST_VALUES.
        turns: (path, role) -> roles in order of speaking -> rows.
        containing: (path, text) -> rows.
    """

    questions: Questions = Questions()
    rows: int = 0
    values: dict[str, Counter[str] | None] = field(default_factory=dict)
    turns: dict[tuple[str, str], Counter[tuple[str, ...]]] = field(default_factory=dict)
    containing: Counter[tuple[str, str]] = field(default_factory=Counter)
    _shapes: ShapeCounts = field(default_factory=ShapeCounts)

    def add_row(self, index: int, place: Place, row: Row) -> None:
        """Count a row; `index` orders the rows."""
        self.add_shape(shape_of(row), 1, [(index, place)], row)
        for path in self.questions.values:
            self.add_values(path, {as_text(value_at(row, path)): 1})
        for path, role in self.questions.turns:
            self.add_turns(path, role, {speakers(value_at(row, path), role): 1})
        for path, text in self.questions.containing:
            self.containing[path, text] += text in as_text(value_at(row, path))

    def add_shape(self, shape: Shape, rows: int, places: Sequence[Ordered], example: Row | None) -> None:
        """Count `rows` rows of one shape; their first `places`, with the first of them, where they may be needed."""
        self.rows += rows
        self._shapes.add(shape, rows, places, example)

    def add_values(self, path: str, counts: dict[str, int]) -> None:
        """Count values at a path."""
        held = self.values.setdefault(path, Counter())
        if held is None:
            return
        held.update(counts)
        if len(held) > MOST_VALUES:
            self.values[path] = None

    def add_turns(self, path: str, role: str, counts: dict[tuple[str, ...], int]) -> None:
        """Count conversations by who speaks in them; a role that repeats in a row of turns may be given once."""
        held = self.turns.setdefault((path, role), Counter())
        for spoken, rows in counts.items():
            if spoken:
                held[_brief(spoken)] += rows

    def values_at(self, path: str) -> dict[str, int] | None:
        """The values at a path -> rows; None for more than MOST_VALUES."""
        counts = self.values.get(path, Counter())
        return None if counts is None else dict(counts)

    def turns_at(self, path: str, role: str) -> Turns:
        """Who speaks in the conversations at a path."""
        roles: Counter[str] = Counter()
        first: Counter[str] = Counter()
        last: Counter[str] = Counter()
        total = 0
        for spoken, rows in self.turns.get((path, role), {}).items():
            total += rows
            first[spoken[0]] += rows
            last[spoken[-1]] += rows
            for name in set(spoken):
                roles[name] += rows
        return Turns(total, dict(roles), dict(first), dict(last))

    def groups(self) -> list[Group]:
        """The rows by shape, the most frequent first."""
        return self._shapes.groups()


def speakers(turns: object, role: str) -> tuple[str, ...]:
    """Who speaks in a conversation, turn by turn."""
    if not isinstance(turns, list):
        return ()
    return tuple(as_text(turn.get(role)) for turn in turns if isinstance(turn, dict))


def _brief(spoken: tuple[str, ...]) -> tuple[str, ...]:
    """First and last role, and between them the others once: all that Turns asks for, in few distinct tuples."""
    return (spoken[0], *sorted(set(spoken)), spoken[-1])
