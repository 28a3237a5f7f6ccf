"""Collect the records of a run folder into its receipt."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from ..records import DataReport, EvalReport, Finding, Manifest, Plan, Receipt, Record, RunRecord
from ..rules import finding
from ..track.events import curve, read_events

Kind = TypeVar("Kind", bound=Record)


def build(folder: Path) -> Receipt:
    """Put the records of a run together and save them as receipt.json; evaluation and export may be absent.

    Raises:
        UsageError: the folder lacks run.json, plan.json or data.json, or a record can't be read.
    """
    run, plan, data = RunRecord.load(folder), Plan.load(folder), DataReport.load(folder)
    evaluation, export = _load_if_there(EvalReport, folder), _load_if_there(Manifest, folder / "export")
    stages = [data.findings, plan.findings, run.findings]
    stages += [record.findings for record in (evaluation, export) if record is not None]
    if plan.test is None:
        stages.append([finding("E008", "data")])
    receipt = Receipt(
        run=run,
        recipe=plan.recipe,
        data=data,
        plan=plan,
        curve=curve(read_events(folder)),
        evaluation=evaluation,
        export=export,
        findings=_distinct(found for stage in stages for found in stage),
        versions=plan.versions | run.versions,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    receipt.save(folder)
    return receipt


def _load_if_there(kind: type[Kind], folder: Path) -> Kind | None:
    return kind.load(folder) if (folder / kind.filename).exists() else None


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once, errors first, else in the order of the stages."""
    order = ("error", "warning", "note")
    return sorted(dict.fromkeys(findings), key=lambda found: order.index(found.severity))
