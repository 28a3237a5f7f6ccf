"""An evaluation in the terminal: the verdict, a table and a forest plot for each suite, and what they rest on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..recipe.evaluation import Evaluation
from ..records import ChangedRow, Comparison, EvalReport, Interval, Judging, Side, units
from ..words import counted
from .output import Output, safe

_NAME: Final = 28
_PLOT: Final = 25
_TOLD: Final = 25
_SHOWN: Final = 3
_LINE: Final = 62


Arms = tuple[str, str]
"""What the columns of both models are headed by."""


@dataclass(frozen=True)
class Signs:
    """What a forest plot is drawn with."""

    low: str
    high: str
    line: str
    point: str
    zero: str
    margin: str


UNICODE: Final = Signs("├", "┤", "─", "●", "│", "┊")
ASCII: Final = Signs("[", "]", "-", "*", "|", ":")


def say_where_kept(output: Output, folder: Path, settings: Evaluation, against: Path | None = None) -> None:
    """Say where the report is, if it is kept apart from the run's own."""
    from ..evaluate.arms import report_folder

    if (kept := report_folder(folder, settings, against)) != folder:
        output.say(f"Kept in {safe(kept)}; receipt and card have only the run's own result against its base.")


def show_evaluation(output: Output, report: EvalReport) -> None:
    """Tuned against base."""
    if report.conclusion is not None:
        _wrapped(output, report.conclusion.sentence, bold=True)
        _criteria(output, report.conclusion.met, report.conclusion.reasons)
    arms = units.arms(report)
    for suite, title in units.SUITES.items():
        if comparisons := report.of(suite):
            own = f"{units.versus(report)}, {counted(report.rows, 'held-out row')}"
            _suite(output, own if suite == "task" else title, comparisons, arms)
    if report.judging is not None:
        _judging(output, report.judging, arms)
    _looks(output, list(zip(arms, (report.base, report.tuned), strict=True)))
    if report.leakage is not None:
        output.show(units.leaked(report.leakage) + "\n")
    if report.base_leakage is not None:
        output.show(units.leaked(report.base_leakage, "the other run") + "\n")
    _unseen(output, report.of("task"), arms)
    _changes(output, report, arms)
    if report.versions:
        _wrapped(output, "Measured with " + ", ".join(f"{name} {version}" for name, version in report.versions.items()))


def forest(comparisons: Sequence[Comparison], signs: Signs = UNICODE) -> list[str]:
    """Lines of a forest plot: each difference with its interval, right of the middle where tuned is better.

    Every line has its own scale, since metrics have different units: lengths are not to be compared between lines,
    sides are. Without an interval only the difference is told; one that doesn't fit stands below its difference.
    """
    half = _PLOT // 2
    head = f"{'':{_NAME}} {'worse':<{half}}0{'better':>{half}} difference (95% interval)"
    return [head, *(line for one in comparisons for line in _lines(one, signs))]


def _lines(one: Comparison, signs: Signs) -> Iterator[str]:
    told = next((said for digits in (4, 3, 2) if len(said := _told(one, digits)) <= _TOLD), "")
    drawn = _bar(one, one.interval, signs) if one.interval is not None else f"{'no interval':^{_PLOT}}"
    yield f"{_short(units.metric(one), _NAME):<{_NAME}} {drawn} {told or units.change(one, one.difference)}"
    if not told:
        yield f"{f'({units.interval(one, 3)})':>{_NAME + _PLOT + _TOLD + 2}}"


def _told(one: Comparison, digits: int) -> str:
    """The difference with its interval, to so many digits."""
    difference = units.change(one, one.difference, digits)
    if one.interval is None:
        return difference
    return f"{difference.removesuffix(' points')} ({units.interval(one, digits).removesuffix(' points')})"


def _bar(one: Comparison, interval: Interval, signs: Signs) -> str:
    low, high = sorted((one.gain(interval.low), one.gain(interval.high)))
    at, margin = one.gain(one.difference), -(one.margin or 0.0)
    reach = max(abs(low), abs(high), abs(at), -margin) or 1.0

    def column(value: float) -> int:
        return round((value / reach + 1) / 2 * (_PLOT - 1))

    cells = [" "] * _PLOT
    cells[column(0)] = signs.zero
    if margin:
        cells[column(margin)] = signs.margin
    for place in range(column(low), column(high) + 1):
        cells[place] = signs.line
    cells[column(low)], cells[column(high)] = signs.low, signs.high
    cells[column(at)] = signs.point
    return "".join(cells)


def _suite(output: Output, title: str, comparisons: Sequence[Comparison], arms: Arms) -> None:
    signs = UNICODE if output.data.encoding.lower().startswith("utf") else ASCII
    output.table(title, ("metric", *arms, "p", "verdict"), [_row(one) for one in comparisons])
    for line in forest(comparisons, signs):
        output.show(safe(line))
    output.show()
    for line in _legend(comparisons, signs):
        _wrapped(output, line)


def _legend(comparisons: Sequence[Comparison], signs: Signs) -> Iterator[str]:
    told: dict[str, list[str]] = {}
    for one in comparisons:
        if (unit := units.unit(one)) and unit not in units.metric(one):
            told.setdefault(unit, []).append(units.metric(one))
    if named := [f"{', '.join(names)} in {unit}" for unit, names in told.items()]:
        yield f"Units: {'; '.join(named)}."
    if any(one.margin for one in comparisons):
        yield f"{signs.margin} The loss that is accepted; kept: shown to lose less."
    yield from filter(None, (units.correction(comparisons), units.could_show(comparisons)))


def _row(one: Comparison) -> tuple[str, ...]:
    values = (units.score(one, one.base), units.score(one, one.tuned), units.p_value(units.judged_p(one)))
    return (units.metric(one), *values, units.outcome(one))


def _criteria(output: Output, met: bool | None, reasons: Sequence[str]) -> None:
    if met is None:
        return
    colour, words = ("green", "met") if met else ("red", "not met")
    output.show(f"Criteria: [{colour}]{words}[/]")
    for reason in reasons:
        _wrapped(output, f"- {reason}", end="")
    output.show()


def _judging(output: Output, judging: Judging, arms: Arms) -> None:
    if judging.criteria:
        _grades(output, judging, arms)
    _wrapped(output, judged_by(judging))


def _grades(output: Output, judging: Judging, arms: Arms) -> None:
    output.table(
        f"Grades from 0 to 1, by {judging.judge}",
        ("criterion", "weight", *arms, "difference"),
        [
            (
                f"{one.name} (safety)" if one.safety else one.name,
                f"{one.weight:g}",
                f"{one.base:.2f}",
                f"{one.tuned:.2f}",
                f"{one.difference:+.2f}",
            )
            for one in judging.criteria
        ],
    )


def judged_by(judging: Judging) -> str:
    """How the conversations came about, and how far their judge can be trusted."""
    graded = f"{judging.graded:,} of {counted(judging.conversations, 'pair')} graded in both orders"
    graded += f", {judging.safety_graded:,} by safety"
    parts = [f"{counted(judging.personas, 'persona')} played by {judging.simulator}, {graded}"]
    if judging.agreement is not None:
        parts.append(f"both orders agree on {judging.agreement:.0%}")
    if judging.position_bias is not None:
        sure = "" if judging.position_p_value is None else f" (p {units.p_value(judging.position_p_value)})"
        parts.append(f"standing first gains {judging.position_bias:+.2f}{sure}")
    if judging.failed:
        parts.append(f"{judging.failed:,} of {judging.asked:,} gradings failed")
    if judging.dropped:
        parts.append(f"{counted(judging.dropped, 'further pair')} that nobody began")
    for what, counts in (("cut off", judging.cut), ("refused", judging.refused)):
        if any(counts):
            of = [f"{count:,} of {total:,}" for count, total in zip(counts, judging.turns, strict=True)]
            parts.append(f"turns {what}: base {of[0]}, tuned {of[1]}")
    return f"{'; '.join(parts)}. Transcripts: {judging.transcripts}"


def _looks(output: Output, arms: Sequence[tuple[str, Side | None]]) -> None:
    sides = [(name, side) for name, side in arms if side is not None and side.answers]
    if not sides:
        return
    output.table(
        "Greedy answers",
        ("", "answers", "stop by themselves", "empty", "repetition", "mean tokens"),
        [
            (
                name,
                f"{side.answers:,}",
                units.percent(side.stop_rate),
                units.percent(side.empty),
                units.percent(side.repetition),
                units.number(side.tokens, 3),
            )
            for name, side in sides
        ],
    )


def _unseen(output: Output, comparisons: Sequence[Comparison], arms: Arms) -> None:
    """The task's metrics again, without the rows that training saw."""
    rows = [(one, one.unseen) for one in comparisons if one.unseen]
    if not rows:
        return
    output.table(
        "Without those rows (p isn't corrected)",
        ("metric", "rows", *arms, "difference", "p"),
        [
            (
                _short(units.metric(one), _NAME),
                f"{unseen.rows:,}",
                units.score(one, unseen.base),
                units.score(one, unseen.tuned),
                units.change(one, unseen.difference),
                units.p_value(unseen.p_value),
            )
            for one, unseen in rows
        ],
    )


def _changes(output: Output, report: EvalReport, arms: Arms) -> None:
    """Examples lost and won."""
    if not (report.fixed or report.broken):
        return
    better, worse = units.changes(graded=report.graded).values()
    output.show(f"{counted(report.fixed, 'row')} {better}, {report.broken:,} {worse}.")
    for kind in ("broken", "fixed"):
        for row in [one for one in report.changed if one.change == kind][:_SHOWN]:
            for line in _changed(row, arms):
                output.show(safe(line))
    output.show()


def _changed(row: ChangedRow, arms: Arms) -> Iterator[str]:
    scored = "" if row.scores is None else f" ({row.scores[0]:.3g} to {row.scores[1]:.3g})"
    kind = units.changes(graded=row.scores is not None)[row.change]
    yield f"  {kind:<6} row {row.row}{scored}: {_short(row.prompt, _LINE - len(scored))}"
    for name, said in zip(("expected", *arms), (row.expected, row.base, row.tuned), strict=True):
        yield f"    {name:<9} {_short(said, _LINE)}"


def _short(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _wrapped(output: Output, text: str, *, bold: bool = False, end: str = "\n") -> None:
    filled = safe(textwrap.fill(text, output.data.width, break_on_hyphens=False))
    output.show((f"[bold]{filled}[/]" if bold else filled) + end)
