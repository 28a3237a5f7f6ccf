"""Leaving out the rows that the model can't take."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from ..records import Finding
from ..rules import FindingsError, finding, refuse_errors
from .label_findings import lost_rows
from .prepare import Prepared
from .rows import Row
from .tokens import refusal_finding, refused_rows


def without_refused(prepared: Prepared, render: Callable[[Row], object], where: str) -> Prepared:
    """`prepared` without the rows at which `render` raises, and D014 for them.

    Raises:
        FindingsError: T008, it raises at every row.
    """
    refused = refused_rows(prepared.rows, render)
    if not refused:
        return prepared
    reason = refusal_finding(refused, prepared.places)
    if len(refused) == len(prepared.rows):
        raise FindingsError([reason.model_copy(update={"where": where})])
    count, total = f"{len(refused):,}", f"{len(prepared.rows):,}"
    return _without(
        prepared, refused, finding("D014", where, count=count, total=total, reasons=f"{reason.code}: {reason.what}")
    )


def without_long_prompts(prepared: Prepared, full: Collection[int], within: str, where: str) -> Prepared:
    """`prepared` without the rows, counted from 0, whose prompt alone fills what a row may have, and T003 for them.

    `within` says in words what that is.

    Raises:
        FindingsError: T003, few rows have room for an answer.
    """
    state = f"have a prompt that fills {within}; they are left out"
    lost = lost_rows(len(full), len(prepared.rows), state, where)
    refuse_errors([lost])
    return _without(prepared, full, lost)


def _without(prepared: Prepared, refused: Collection[int], reason: Finding) -> Prepared:
    """`prepared` without some rows, counted from 0, and the finding that says so."""
    kept = sorted(set(range(len(prepared.rows))).difference(refused))
    return replace(
        prepared,
        rows=[prepared.rows[index] for index in kept],
        places=[prepared.places[index] for index in kept],
        dropped=prepared.dropped + len(refused),
        findings=[*prepared.findings, reason],
    )
