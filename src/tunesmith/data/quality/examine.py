"""All checks of quality over prepared rows: one record of figures, and findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...progress import Progress, silent
from ...records import Finding, Quality
from ..rows import Place, Row
from .answers import check_answers, check_lengths, check_prompts, check_sameness
from .characters import check_characters, check_languages, check_markup, check_placeholders
from .contamination import check_tasks
from .duplicates import check_duplicates, check_held_out
from .near import THRESHOLD
from .preference import check_labels, check_pairs
from .privacy import check_private
from .texts import said
from .view import Check, Outcome, View

_CHECKS: dict[str, Check] = {
    "prompts": check_prompts,
    "lengths": check_lengths,
    "answers": check_answers,
    "sameness": check_sameness,
    "characters": check_characters,
    "placeholders": check_placeholders,
    "template markup": check_markup,
    "languages": check_languages,
    "pairs": check_pairs,
    "labels": check_labels,
    "private data": check_private,
    "evaluation tasks": check_tasks,
}


def examine(
    rows: Sequence[Row],
    places: Sequence[Place],
    where: str,
    *,
    held_out: Sequence[Row] = (),
    held_out_places: Sequence[Place] = (),
    split: str = "eval",
    threshold: float = THRESHOLD,
    progress: Progress = silent,
) -> tuple[Quality, list[Finding]]:
    """Look at what prepared rows say.

    All rows are looked at, but for wrongly decoded characters (5,000 of the rows that aren't plain ASCII) and languages
    (2,000 rows): there figures and findings say at how many. Exact duplicates are a figure only; D009 and D010, made
    where rows are prepared and split, are the findings on them.

    Args:
        rows: Rows in TRL's layouts: {"text"}, {"messages"}, {"prompt"} and "completion" (and "label"), or "chosen" and
            "rejected", or alone; each a text or a list of messages.
        places: Their numbers in the file.
        where: What findings call the file.
        held_out: Rows of the same layout that must not stand among `rows`.
        held_out_places: Their numbers; left out, they are counted from 1.
        split: What findings call the rows held out: eval or test.
        threshold: Jaccard similarity of three-word shingles from which on rows are near duplicates.
        progress: Hears of the checks.
    """
    view = View([said(row) for row in rows], places, where, progress)
    outcomes = [check_duplicates(view, rows, threshold)]
    if held_out:
        numbers = held_out_places or range(1, len(held_out) + 1)
        outcomes.append(check_held_out(view, View([said(row) for row in held_out], numbers, split), threshold))
    for done, (label, check) in enumerate(_CHECKS.items()):
        progress(f"Looking at {label}", done, len(_CHECKS))
        outcomes.append(check(view))
    figures = _together(outcomes)
    findings = sorted((found for outcome in outcomes for found in outcome.findings), key=lambda found: found.code)
    return Quality(rows=len(rows), near_duplicate_threshold=threshold, **figures), findings


def near_leaks(train: Sequence[Row], held_out: Sequence[Row], split: str) -> list[Finding]:
    """D026 for rows held out whose prompt nearly repeats a training row's; `split` is what findings call them."""

    def view(rows: Sequence[Row], where: str) -> View:
        return View([said(row) for row in rows], range(1, len(rows) + 1), where)

    return check_held_out(view(train, "train"), view(held_out, split), THRESHOLD).findings if held_out else []


def _together(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of all checks; several say what they sampled."""
    sampled = [outcome.figures.pop("sampled", {}) for outcome in outcomes]
    figures = {name: value for outcome in outcomes for name, value in outcome.figures.items()}
    return figures | {"sampled": {name: rows for one in sampled for name, rows in one.items()}}
