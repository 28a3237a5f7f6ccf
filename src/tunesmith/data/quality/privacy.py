"""Which rows hold personal data and secrets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from ...rules import finding
from .patterns import patterns
from .private import Private, personal, secrets
from .view import Outcome, View


def check_private(view: View) -> Outcome:
    """D039 for personal data, D040 for secrets."""
    kinds, named = _look(view, "personal", personal)
    keys, key_named = _look(view, "secrets", secrets)
    found = Outcome({"personal_data": kinds, "secrets": keys})
    if kinds:
        found.findings.append(finding("D039", view.where, **named))
    if keys:
        found.findings.append(finding("D040", view.where, **key_named))
    return found


def _look(view: View, what: str, search: Callable[[str], Iterable[Private]]) -> tuple[dict[str, int], dict[str, Any]]:
    """Kind -> rows that hold it, and the details of a finding."""
    suspects = view.matching(patterns().first_looks[what])
    held = {number: some for number in suspects if (some := list(search(view.rows[number].whole)))}
    kinds = Counter(kind for some in held.values() for kind in {one.kind for one in some})
    if not held:
        return {}, {}
    named = ", ".join(f"{kind} in {rows:,}" for kind, rows in kinds.most_common())
    example = next(iter(held.values()))[0]
    return dict(kinds.most_common()), {"kinds": named, "example": example.shown, **view.named(held)}
