"""What answers are like: very short, repetitive, refusing, always the same, an echo of the question."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...rules import finding
from .patterns import patterns
from .private import hidden
from .view import Outcome, View, quoted, severity

_TAIL = 1_000
_LEAST_BYTES = 300
_RATIO = 6.0
_BEGINNING = 300
_ENDING, _HIDDEN = 60, 20_000
"""Characters of an example, and before it, in which private data is masked first: a piece of it couldn't be told."""
_LEAST_SPREAD = 0.35
_NORMAL = 1.4826
"""The median absolute deviation times this is the standard deviation, of a normal distribution."""
_FEW = 20
_SHORT, _SHORT_CHARACTERS, _LONG = -4, 20, 5
_CONSTANT = 0.8


def is_repetitive(text: str) -> bool:
    """Whether the last 1,000 bytes of a text compress more than sixfold.

    English of that length compresses to about a half; models that are stuck in a loop are stuck at the end. Whisper
    and others test for it in the same way. A text under 300 bytes never is.
    """
    tail = text[-_TAIL:].encode(errors="surrogatepass")[-_TAIL:]
    return len(tail) >= _LEAST_BYTES and len(tail) > _RATIO * len(zlib.compress(tail, 1))


def is_refusal(text: str) -> bool:
    """Whether an answer begins as refusals do, in one of ten languages."""
    return patterns().refusal.match(text[:_BEGINNING]) is not None


def deviations(lengths: Sequence[int]) -> npt.NDArray[np.float64]:
    """How many standard deviations the logarithm of each length lies from the median, robustly.

    The standard deviation is taken from the median absolute deviation (Leys et al. 2013), and as 0.35 at least: lengths
    that differ by a factor of four are no outliers, however equal the others are. Of fewer than 20 lengths, none is.
    """
    if len(lengths) < _FEW:
        return np.zeros(len(lengths))
    logs = np.log1p(np.asarray(lengths, dtype=np.float64))
    away = logs - np.median(logs)
    return np.asarray(away / max(_NORMAL * float(np.median(np.abs(away))), _LEAST_SPREAD))


def check_prompts(view: View) -> Outcome:
    """D046 for rows with nothing before the answer."""
    empty = [number for number, row in enumerate(view.rows) if row.answers and not row.prompt.strip()]
    return Outcome({}, [finding("D046", view.where, **view.named(empty))] if empty else [])


def check_lengths(view: View) -> Outcome:
    """D027 for answers that are far shorter than the rest, D028 for rows that are far longer."""
    found = Outcome()
    given = view.taught()
    lengths = [len(answer) for _, answer in given]
    away = deviations(lengths)
    short = [at for at, far in enumerate(away) if far < _SHORT and lengths[at] < _SHORT_CHARACTERS]
    if given:
        median = int(np.median(lengths))
        found.figures |= {"median_answer_characters": median, "very_short_answers": len(short)}
    if short:
        named = view.named((given[at][0] for at in short), len(given))
        found.findings.append(finding("D027", view.where, shortest=min(lengths), median=f"{median:,}", **named))
    wholes = [len(row.whole) for row in view.rows]
    long = [number for number, far in enumerate(deviations(wholes)) if far > _LONG]
    found.figures["very_long_rows"] = len(long)
    if long:
        longest, median = max(wholes), int(np.median(wholes))
        details = {"longest": f"{longest:,}", "median": f"{median:,}", **view.named(long)}
        found.findings.append(finding("D028", view.where, **details))
    return found


def check_answers(view: View) -> Outcome:
    """D029 for loops, D030 for refusals: a note under one row in a hundred."""
    given = view.taught()
    loops = {number: answer for number, answer in given if is_repetitive(answer)}
    refusals = {number: answer for number, answer in given if is_refusal(answer)}
    found = Outcome({"repetitive_answers": len(loops), "refusals": len(refusals)})
    if loops:
        example = quoted(hidden(next(iter(loops.values()))[-_HIDDEN:])[-_ENDING:])
        found.findings.append(finding("D029", view.where, example=example, **view.named(loops)))
    if refusals:
        example = quoted(next(iter(refusals.values())))
        bad = severity(len(refusals), len(view.rows))
        found.findings.append(finding("D030", view.where, severity=bad, example=example, **view.named(refusals)))
    return found


def check_sameness(view: View) -> Outcome:
    """D037 where one answer makes up four fifths of 20 or more, D038 for answers that equal the question."""
    found = Outcome()
    asked = [(number, row) for number, row in enumerate(view.rows) if row.question.strip() and row.taught]
    echoes = [number for number, row in asked if row.taught[-1].strip() == row.question.strip()]
    found.figures["answers_equal_to_prompt"] = len(echoes)
    if echoes:
        found.findings.append(finding("D038", view.where, **view.named(echoes, len(asked))))
    given = Counter(row.taught[-1].strip() for _, row in asked)
    if not given:
        return found
    (answer, often), total = given.most_common(1)[0], given.total()
    found.figures["most_common_answer_share"] = round(often / total, 4)
    if total >= _FEW and often >= _CONSTANT * total:
        percent = f"{100 * often / total:.0f}"
        found.findings.append(finding("D037", view.where, percent=percent, total=f"{total:,}", example=quoted(answer)))
    return found
