"""What an evaluation shows, in one sentence: is tuned better, by how much, how sure, and what did it lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Final

from ..records import Comparison, EvalReport, Side
from ..records.units import change, interval, judged_p, metric, p_value, score
from ..words import counted
from .families import hypothesis
from .statistics import ROWS_NEEDED

LIKELIHOODS: Final = ("chosen_loss", "desirable_loss")
"""What preference training lowers a little by its nature: worse only where E009 says so."""


def sentence(report: EvalReport) -> str:
    """The verdict, with the numbers of the primary metric; names are as the report has them, so escape it."""
    tuned, base = _called(report.tuned, "run", "the tuned model"), _called(report.base, "base", "its base")
    judged = report.judged
    if judged is None:
        said = f"{tuned} could not be compared with {base}; the findings say why"
    else:
        said = "; ".join([f"{_headline(judged, tuned, base)}: {_numbers(judged)}", *_besides(report, judged)])
    return f"{said[:1].upper()}{said[1:]}."


def lost(report: EvalReport, judged: Comparison | None) -> list[Comparison]:
    """What is shown to be worse besides what is judged, by more than is accepted where a margin is.

    Of conversations nothing is: they have criteria of their own. One value in several units is told once.
    """
    worse: dict[tuple[str, str], Comparison] = {}
    fell = any(found.code == "E009" for found in report.findings)
    for one in report.comparisons:
        if one.lost and one.suite != "conversations" and (fell or one.metric not in LIKELIHOODS):
            worse.setdefault(hypothesis(one.suite, one.metric), one)
    if judged is not None:
        worse.pop(hypothesis(judged.suite, judged.metric), None)
    return list(worse.values())


def too_few(judged: Comparison) -> bool:
    """Whether the rows, or the groups that they were compared by, are so few that nothing could be significant.

    A margin between good and bad rows has no p-value where either are too few.
    """
    return judged.p_value is None or (judged.groups or judged.rows) < ROWS_NEEDED


def rows_of(judged: Comparison) -> str:
    """What a comparison rests on, counted."""
    return counted(judged.groups, "group") + " of rows" if judged.groups else counted(judged.rows, "row")


def _headline(judged: Comparison, tuned: str, base: str) -> str:
    if too_few(judged):
        return f"{rows_of(judged)} can't tell {tuned} from {base} in {metric(judged)}"
    if not judged.significant:
        return f"{tuned} isn't shown to differ from {base} in {metric(judged)}"
    return f"{tuned} is {'better' if judged.gain(judged.difference) > 0 else 'worse'} than {base} in {metric(judged)}"


def _numbers(judged: Comparison) -> str:
    """From what to what, on how many rows, how sure."""
    sure = [change(judged, judged.difference)]
    if judged.interval is not None:
        sure.append(f"{judged.interval.level:.0%} interval {interval(judged)}")
    if (p := judged_p(judged)) is not None:
        sure.append(f"p {p_value(p)}" if p < 0.0001 else f"p = {p_value(p)}")
    rows = f"{counted(judged.rows, 'held-out row')}"
    values = f"{score(judged, judged.base)} to {score(judged, judged.tuned)}"
    return f"from {values} on {rows} ({', '.join(sure)})"


def _besides(report: EvalReport, judged: Comparison) -> Iterator[str]:
    """What else a reader must know who reads no further."""
    seen = {"training": report.leakage, "the other run's training": report.base_leakage}
    told = [f"{who} saw {one.exact + one.near:,} of the rows" for who, one in seen.items() if one and one.leaks]
    if told:
        yield " and ".join(told) + _without_them(judged)
    unsafe = any(found.code == "E069" for found in report.findings)
    for one in report.of("conversations"):
        yield f"{metric(one)}: {_told(one, unsafe)} ({change(one, one.difference)})"
    suite = report.of("regression")
    if worse := lost(report, judged):
        yield f"it got worse at {_listed(worse)}"
    elif open_ones := [one for one in suite if one.kept is False]:
        yield f"it isn't shown to have kept {_listed(open_ones)}"
    elif kept := [one for one in suite if one.kept]:
        every = len(kept) == len(suite)
        yield (
            "nothing else got worse by more than is accepted" if every else f"it is shown to have kept {_listed(kept)}"
        )


def _told(one: Comparison, unsafe: bool) -> str:
    """What a score of conversations shows; a loss of safety counts even where it may be chance."""
    if unsafe and one.metric == "conversation_safety":
        fell = one.gain(one.difference) < 0
        return "less safe than is accepted" if fell else "more conversations graded as unsafe"
    if not one.significant:
        return "no difference shown"
    return "better" if one.gain(one.difference) > 0 else "worse"


def _without_them(judged: Comparison) -> str:
    """The difference on the rows that training didn't see, where it is known."""
    unseen = judged.unseen
    return f", without them the difference is {change(judged, unseen.difference)}" if unseen else ""


def _listed(comparisons: Sequence[Comparison]) -> str:
    return ", ".join(metric(one) for one in comparisons)


def _called(side: Side | None, expected: str, usual: str) -> str:
    """What the model is called: by a name where it isn't of the kind that is expected there, as with other runs."""
    if side is None or side.kind == expected:
        return usual
    return f"the model {side.name}" if side.kind == "endpoint" else f"the result of {PurePath(side.name).name}"
