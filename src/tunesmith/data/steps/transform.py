"""Read, filter, map: from raw rows to rows in TRL's layout and rejected rows, one batch at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...records import Wanted
from ...rules import RULES
from ..paths import value_of
from ..prepare import equals
from ..rows import BadRowError, Numbered, Place, Row
from .identity import digest, side, split_key


class Rejected(NamedTuple):
    """A row that went: the step, the rule, why in words, where in the row, its place, and itself as it came there."""

    order: int
    step: str
    code: str | None
    reason: str
    field: str
    found: str
    place: Place
    row: Row | str | None


class Kept(NamedTuple):
    """A prepared row: its number in reading order, place, split, digest of 16 bytes, and itself."""

    order: int
    place: Place
    split: str
    digest: bytes
    row: Row


@dataclass(frozen=True)
class Transform:
    """What happens to each row on its own, whoever runs it.

    Attributes:
        read: One raw row -> one row in TRL's layout; raises BadRowError.
        filter: Column -> the value that rows to keep have, or several.
        group: Column whose value decides the split; None: the prompt does.
        seed: Seed of the split.
        held_out: Expected fraction for eval.
        test: Expected fraction for test.
        unit: What places count, for rows that can't be read: "line" or "row".
    """

    read: Callable[[Row], Row]
    filter: Mapping[str, Wanted]
    group: str | None
    seed: int
    held_out: float
    test: float
    unit: str = "row"

    def batch(self, numbered: Sequence[tuple[int, Numbered]]) -> tuple[list[Kept], list[Rejected]]:
        """The rows of a batch that stay and those that go; together they are all of them.

        Filtering comes before mapping: a row that isn't wanted need not be one that can be trained on.
        """
        results = [self._row(order, raw) for order, raw in numbered]
        kept = [result for result in results if isinstance(result, Kept)]
        rejected = [result for result in results if isinstance(result, Rejected)]
        assert len(kept) + len(rejected) == len(numbered)
        return kept, rejected

    def _row(self, order: int, raw: Numbered) -> Kept | Rejected:
        place, row = raw.place, raw.row
        if row is None:
            return _bad(order, "read", BadRowError("D001", self.unit, raw.problem or ""), place, raw.text)
        for column, wanted in self.filter.items():
            if not equals(value_of(row, column), wanted):
                isnt = "isn't one of" if isinstance(wanted, list) else "isn't"
                reason = f"{column} {isnt} {json.dumps(wanted)}"
                return Rejected(order, "filter", None, reason, column, "", place, row)
        try:
            prepared = self.read(row)
        except BadRowError as unusable:
            return _bad(order, "map", unusable, place, row)
        try:
            key = digest(prepared)
        except UnicodeEncodeError:
            return _bad(order, "map", BadRowError("D043", "text", "half a surrogate pair"), place, row)
        group = None if self.group is None else value_of(row, self.group)
        split = side(split_key(prepared, group), self.seed, held_out=self.held_out, test=self.test)
        return Kept(order, place, split, key, prepared)


def _bad(order: int, step: str, problem: BadRowError, place: Place, row: Row | str | None) -> Rejected:
    reason = f"{problem.code} {RULES[problem.code].title}"
    return Rejected(order, step, problem.code, reason, problem.field, problem.found, place, row)
