"""Rows that can't be read or mapped, as findings."""

from __future__ import annotations

from ...records import Finding
from ...rules import FindingsError
from ..prepare import bad_row_findings
from ..rows import BadRowError, Place
from ..sources import RawData
from .job import Job
from .work import read_lines


def refuse_bad_rows(job: Job, _rank: int = 0, _tasks: int = 1) -> None:
    """Refuse the rows that can't be used, where the settings say so.

    Raises:
        FindingsError: there are such rows; the chunks converted so far are kept for `--bad-rows drop`.
    """
    if job.settings.bad_rows == "error":
        problems = bad_rows(job)
        if problems:
            raise FindingsError(problems)


def bad_rows(job: Job) -> list[Finding]:
    """Findings on the rows that can't be read or mapped."""
    bad: dict[str, list[tuple[Place, BadRowError]]] = {"read": [], "map": []}
    for unit in job.work.units("rows"):
        for _, step, code, _, field, found, place, _ in read_lines(job.work.path("rejected", unit)):
            if step in bad:
                bad[step].append((place, BadRowError(code, field, found)))
    unparsed = RawData(job.source.name, job.sources, [], [], bad["read"], unit=job.source.unit).unparsed()
    return [*([unparsed] if unparsed else []), *bad_row_findings(bad["map"], job.source.name)]
