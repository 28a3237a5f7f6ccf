"""Rows that repeat others, exactly or nearly, and prompts that have several answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...progress import Progress, silent
from ...rules import finding
from ..rows import Row
from .near import THRESHOLD, Indices, clusters, common_shingles
from .texts import Said, fingerprint, sample
from .view import Outcome, View, severity

_SAMPLE = 1_000


def repeats(rows: Sequence[Row]) -> list[int]:
    """Numbers of rows that repeat an earlier row exactly."""
    seen: set[bytes] = set()
    found = []
    for number, row in enumerate(rows):
        known = fingerprint(row)
        if known in seen:
            found.append(number)
        seen.add(known)
    return found


def near_repeats(rows: Sequence[Said], *, threshold: float = THRESHOLD, progress: Progress = silent) -> list[int]:
    """Numbers of rows that repeat an earlier row nearly or exactly."""
    found = alike([row.whole for row in rows], threshold=threshold, progress=progress)
    return [int(number) for number in np.flatnonzero(found != np.arange(len(rows)))]


def leaked(
    train: Sequence[Said], held_out: Sequence[Said], *, threshold: float = THRESHOLD, progress: Progress = silent
) -> list[int]:
    """Numbers of rows held out whose prompt nearly repeats, but doesn't equal, one of the training rows'."""
    known = {row.prompt for row in train}
    prompts = [row.prompt for row in (*train, *held_out)]
    found = alike(prompts, threshold=threshold, progress=progress)[len(train) :]
    return [
        number
        for number, (row, first) in enumerate(zip(held_out, found, strict=True))
        if first < len(train) and row.prompt not in known
    ]


def alike(texts: Sequence[str], *, threshold: float, progress: Progress = silent) -> Indices:
    """`near.clusters` of texts, without what they share as boilerplate."""
    common = common_shingles([texts[index] for index in sample(len(texts), _SAMPLE)])
    return clusters(texts, threshold, common=common, progress=progress)


def several_answers(rows: Sequence[Said]) -> int:
    """Number of prompts that have different answers in different rows."""
    first: dict[str, tuple[str, ...]] = {}
    several = set()
    for row in rows:
        if row.answers and first.setdefault(row.prompt, row.answers) != row.answers:
            several.add(row.prompt)
    return len(several)


def check_duplicates(view: View, rows: Sequence[Row], threshold: float) -> Outcome:
    """D025 for near duplicates, a note under one row in a hundred; exact ones are a figure."""
    exact = set(repeats(rows))
    found = near_repeats(view.rows, threshold=threshold, progress=view.progress)
    near = [number for number in found if number not in exact]
    figures = {
        "duplicates": len(exact),
        "near_duplicates": len(near),
        "prompts_with_several_answers": several_answers(view.rows),
    }
    if not near:
        return Outcome(figures)
    details = {"percent": f"{100 * threshold:.0f}", **view.named(near)}
    return Outcome(figures, [finding("D025", view.where, severity=severity(len(near), len(rows)), **details)])


def check_held_out(view: View, held_out: View, threshold: float) -> Outcome:
    """D026 for rows held out whose prompt nearly repeats a training row's."""
    found = leaked(view.rows, held_out.rows, threshold=threshold, progress=view.progress)
    figures = {"held_out_near_training": len(found)}
    if not found:
        return Outcome(figures)
    return Outcome(figures, [finding("D026", held_out.where, split=held_out.where, **held_out.named(found))])
