"""What the rows of a file are: the layout of each shape, merged into the layouts of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ...records import Layout, LayoutShare, Verdict
from ..columns import Profile
from ..rows import Row
from ..shape import Group, Shape, shape_of
from .facts import Facts
from .sight import OPTIONAL, Sight, see

_EXAMPLES = 5


@dataclass
class Part:
    """The rows of a file that have one layout.

    Attributes:
        sight: The layout, with the columns of all its groups.
        groups: The shapes of its rows.
        keys: The columns of its rows, those of faulty rows left out.
    """

    sight: Sight
    groups: list[Group] = field(default_factory=list)
    keys: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        """Number of its rows."""
        return sum(group.rows for group in self.groups)

    def share(self, total: int) -> LayoutShare:
        """The record of it; `total` is the number of all rows."""
        places = [place for group in self.groups for place in group.places]
        columns = {role: column for role, column in self.sight.columns.items() if role not in ("answer", "class")}
        return LayoutShare(
            layout=self.sight.layout,
            rows=self.rows,
            share=self.rows / total,
            columns=columns,
            examples=places[:_EXAMPLES],
        )


@dataclass(frozen=True)
class Detection:
    """What the rows are.

    Attributes:
        sight: The layout that most rows have, with its columns.
        parts: All layouts, the most frequent first.
        verdicts: Whether each method can train on them.
        profiles: All columns.
        features: Rows with system, tools, tool_calls, reasoning, images, history.
        recommended: The method that such data was made for, and why; None for none.
        mapped: Whether a mapping says what the columns are, so that all rows have one layout.
        images: Where the paths of the rows' images start, for a model that is shown them (sft); None: for no model.
    """

    sight: Sight
    parts: list[Part]
    verdicts: list[Verdict]
    profiles: dict[str, Profile]
    features: dict[str, int]
    recommended: str | None
    recommended_reason: str
    facts: Facts
    mapped: bool
    images: Path | None = None

    @property
    def layout(self) -> Layout:
        """The layout that most rows have."""
        return self.sight.layout

    @property
    def columns(self) -> dict[str, str]:
        """Role -> path of the column that plays it."""
        return self.sight.columns

    @property
    def verdict(self) -> Verdict:
        """Whether sft can train on them."""
        return self.verdict_of("sft")

    @property
    def composition(self) -> list[LayoutShare]:
        """All layouts with their rows."""
        return [part.share(max(1, self.facts.structure.rows)) for part in self.parts]

    def verdict_of(self, method: str) -> Verdict:
        """Whether `method` can train on them."""
        return next(verdict for verdict in self.verdicts if verdict.method == method)

    def sight_of(self, row: Row) -> Sight:
        """The layout of one row."""
        return self.sight if self.mapped or len(self.parts) == 1 else self._merger.sight_of(shape_of(row))

    @cached_property
    def _merger(self) -> Merger:
        return Merger(self.facts, self.parts)


class Merger:
    """Sorts shapes into the layouts of a file."""

    def __init__(self, facts: Facts, parts: list[Part]) -> None:
        self._facts, self._parts = facts, {part.sight.key: part.sight for part in parts}
        self._main = parts[0]
        self._known: dict[Shape, Sight] = {}

    def sight_of(self, shape: Shape) -> Sight:
        """The layout of rows of `shape`, as `merge` has it."""
        if shape not in self._known:
            own = see(shape, self._facts)
            belongs = is_faulty(shape, own, self._main)
            self._known[shape] = self._main.sight if belongs else self._parts.get(own.key, own)
        return self._known[shape]


def merge(facts: Facts) -> list[Part]:
    """The layouts of a file, the most frequent first.

    Rows that have the columns of the most frequent layout, but not what belongs there, are bad rows of this layout.
    """
    parts: dict[tuple[str, ...], Part] = {}
    # Groups of equally many rows stand in the order of the file, on which nothing must depend.
    for group in sorted(facts.structure.groups, key=lambda group: (-group.rows, str(group.shape))):
        own = see(group.shape, facts)
        part = parts.setdefault(own.key, Part(own))
        part.sight = _joined(part.sight, own)
        part.groups.append(group)
    ranked = sorted(parts.values(), key=_rank) or [Part(Sight("unknown"))]
    main, others = ranked[0], ranked[1:]
    main.keys = frozenset(key for group in main.groups for key, _ in group.shape.keys)
    for part in others:
        faulty = [group for group in part.groups if is_faulty(group.shape, part.sight, main)]
        main.groups += faulty
        part.groups = [group for group in part.groups if group not in faulty]
    return [main, *sorted((part for part in others if part.groups), key=_rank)]


def _rank(part: Part) -> tuple[bool, int, int, tuple[str, ...]]:
    return part.sight.layout == "unknown", -part.rows, -len(_needed(part.sight)), part.sight.key


def _joined(one: Sight, other: Sight) -> Sight:
    """Sights of one layout, with the optional columns of both."""
    choices = {role: list(dict.fromkeys([*one.choices.get(role, ()), *names])) for role, names in other.choices.items()}
    columns = {**other.columns, **one.columns}
    return replace(one, columns=columns, usual=one.usual and other.usual, choices={**one.choices, **choices})


def is_faulty(shape: Shape, own: Sight, main: Part) -> bool:
    """Whether rows of `shape`, which alone would have the layout `own`, are bad rows of the layout `main`."""
    keys = {key for key, _ in shape.keys}
    if own.layout == "unknown":
        return keys <= main.keys or bool(keys & set(_needed(main.sight)))
    if own.layout == main.sight.layout and set(_needed(own)) == set(_needed(main.sight)):
        return True
    lacking = set(_needed(main.sight)) - set(_needed(own))
    return bool(lacking) and set(_needed(own)) < set(_needed(main.sight)) and lacking <= keys


def _needed(sight: Sight) -> Sequence[str]:
    """The columns without which rows don't have this layout."""
    return [column.partition("[")[0] for role, column in sight.columns.items() if role not in OPTIONAL]
