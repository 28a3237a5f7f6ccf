"""Leaving out the rows that the model's chat template refuses, where the recipe says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..rules import FindingsError, finding
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
    kept = [index for index in range(len(prepared.rows)) if index not in refused]
    count, total = f"{len(refused):,}", f"{len(prepared.rows):,}"
    dropped = finding("D014", where, count=count, total=total, reasons=f"{reason.code}: {reason.what}")
    return replace(
        prepared,
        rows=[prepared.rows[index] for index in kept],
        places=[prepared.places[index] for index in kept],
        dropped=prepared.dropped + len(refused),
        findings=[*prepared.findings, dropped],
    )
