"""Rows that look like something to train on, and aren't yet: no mapping makes them so."""

from __future__ import annotations

import re
from typing import Final

from ..shape import Shape
from ..turns import CONTENT_KEYS, ROLE_KEYS
from .facts import Facts
from .names import PARENTS, RIVALS, WINNERS

_CANDIDATES: Final = (*(f"{name}s" for name in RIVALS), "replies", "candidates")
_RANK: Final = re.compile(r"(?:^|_)(?:rank|ranking|score|rating|reward|votes)$", re.IGNORECASE)
_PAIRED: Final = (("a", "b"), ("0", "1"), ("1", "2"))
_RIVAL: Final = re.compile(rf"(.*(?:{'|'.join(RIVALS)})s?_?)([ab012])")


def obstacle(shape: Shape, facts: Facts) -> str | None:
    """Why rows of `shape` must be rewritten before any method can train on them; None where nothing is known."""
    return _tree(shape, facts) or _rivals(shape, facts)


def ranked(shape: Shape) -> str | None:
    """Why a column of answers with ranks holds no right ones to learn or to compare with; None where there is none."""
    for key, inner in shape.keys:
        if key.lower() not in _CANDIDATES or inner.items is None:
            continue
        rank = next((name for name, value in inner.items.keys if value.kind == "number" and _RANK.search(name)), None)
        if rank and any(value.kind == "text" for _, value in inner.items.keys):
            said = "write the best as chosen and a worse one as rejected first"
            return f"The column {key} ranks its answers ({rank}): {said}."
    return None


def _tree(shape: Shape, facts: Facts) -> str | None:
    # A tree's first message has no parent: the column counts, in whichever row.
    parent = next((name for name in PARENTS if name in facts.keys), None)
    texts = {key for key, inner in shape.keys if inner.kind == "text"}
    if parent is None or not texts & set(ROLE_KEYS) or not texts & set(CONTENT_KEYS):
        return None
    return f"Each row is one message of a tree ({parent}); join the messages of each conversation to one row first."


def _rivals(shape: Shape, facts: Facts) -> str | None:
    winner = next((name for name in sorted(facts.keys) if name.lower() in WINNERS), None)
    named: dict[tuple[str, str], str] = {}
    for key, inner in shape.keys:
        found = _RIVAL.fullmatch(key.lower())
        if found and inner.kind in ("text", "list"):
            named[found[1], found[2]] = key
    for stem, mark in named:
        for one, other in _PAIRED:
            if winner is not None and mark == one and (stem, other) in named:
                pair = f"{named[stem, one]} and {named[stem, other]}"
                return f"The column {winner} says which of {pair} is better: write them as chosen and rejected first."
    return None
