"""Planted faults: for each rule a faulty case and its clean twin, and the table of what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.records import Finding
from tunesmith.rules import RULES, FindingsError

Check = Callable[[Path], Iterable[Finding]]
"""Runs tunesmith on a case that it makes in the given empty folder; gives the findings, or raises FindingsError."""


@dataclass(frozen=True)
class Case:
    """A fault that one rule must find, and a twin without it.

    Attributes:
        code: The rule.
        fault: What was planted, in a few words, for the table.
        faulty: Runs tunesmith on the fault.
        clean: Runs it in the same way on the twin.
    """

    code: str
    fault: str
    faulty: Check
    clean: Check


@dataclass(frozen=True)
class Count:
    """What became of the cases of one rule.

    Attributes:
        planted: Number of faults.
        found: Faults at which the rule reported.
        false_alarms: Findings, of any rule, on clean twins.
    """

    code: str
    faults: list[str]
    planted: int
    found: int
    false_alarms: list[str]


def count(cases: Sequence[Case], folder: Path) -> list[Count]:
    """Run all cases, each in a folder of its own under `folder`; one count per rule, sorted by code."""
    counts: dict[str, Count] = {}
    for number, case in enumerate(sorted(cases, key=lambda case: case.code)):
        found = case.code in {finding.code for finding in _findings(case.faulty, folder / f"{number}-faulty")}
        alarms = [f"{finding.code}: {finding.what}" for finding in _findings(case.clean, folder / f"{number}-clean")]
        before = counts.get(case.code, Count(case.code, [], 0, 0, []))
        counts[case.code] = Count(
            case.code,
            [*before.faults, case.fault],
            before.planted + 1,
            before.found + found,
            [*before.false_alarms, *alarms],
        )
    return list(counts.values())


def _findings(check: Check, folder: Path) -> list[Finding]:
    folder.mkdir(parents=True)
    try:
        return list(check(folder))
    except FindingsError as refusal:
        return refusal.findings


def table(counts: Sequence[Count]) -> str:
    """The counts as a Markdown table."""
    lines = ["| rule | planted | found | false alarms | faults |", "| --- | ---: | ---: | ---: | --- |"]
    for each in counts:
        alarms = len(each.false_alarms)
        rule = f"{each.code} {RULES[each.code].title}"
        lines.append(f"| {rule} | {each.planted} | {each.found} | {alarms} | {'; '.join(each.faults)} |")
    planted, found = sum(each.planted for each in counts), sum(each.found for each in counts)
    alarms = sum(len(each.false_alarms) for each in counts)
    return "\n".join([*lines, f"| all | {planted} | {found} | {alarms} | |", ""])
