"""The last stage: the parts of all chunks into one file per split, the card, and the record that ends the work."""

from __future__ import annotations

import shutil
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from ...files import sha256, write_atomic
from ...records import Finding
from ...records.preparation import DatasetFile, Preparation, PreparationStep
from ...rules import FindingsError, finding
from ..prepare import dropped_finding, notes
from ..split import few_rows
from .bad import bad_rows
from .card import card
from .dedup import dropped
from .identity import SPLITS
from .job import Job
from .tables import write_parquet
from .work import Work, writing
from .write import columns

REJECTED = "rejected.jsonl"
CARD = "README.md"


def finish(job: Job, _rank: int = 0, _tasks: int = 1) -> Preparation:
    """Write the files of the dataset and the record of how it was made.

    The files are made under the working folder and take their places at the end, the record last: a folder that has a
    record is complete.

    Raises:
        FindingsError: D002, no rows are left to train on.
    """
    work = job.work
    counts = Counter(_sum(work, "parts", "rows"))
    if not counts["train"]:
        raise FindingsError([finding("D002", job.source.name, left=" left to train on")])
    made = work.folder / "out"
    made.mkdir(exist_ok=True)
    files = {split: _file(work, made, split, job.settings.format, counts[split]) for split in SPLITS if counts[split]}
    _joined(work, "rejected", made / REJECTED)
    record = Preparation(
        settings=job.settings,
        sources=job.sources,
        layout=job.detection.layout,
        columns=list(dict.fromkeys(name for one in columns(work) for name in one)),
        steps=_steps(job, work),
        files=files,
        rejected=_described(made / REJECTED, counts["rejected"]),
        versions=versions(),
        findings=_findings(job, counts),
    )
    write_atomic(made / CARD, card(record))
    for path in [*(made / file.name for file in files.values()), made / REJECTED, made / CARD]:
        path.replace(job.output / path.name)
    record.save(job.output)
    work.clear()
    return record


def versions() -> dict[str, str]:
    """The packages on which the content of the files depends."""
    return {name: metadata.version(name) for name in ("tunesmith", "datasets", "numpy", "pyarrow")}


def _file(work: Work, made: Path, split: str, form: str, rows: int) -> DatasetFile:
    path = made / f"{split}.{form}"
    if form == "jsonl":
        _joined(work, split, path)
    else:
        write_parquet(_parts(work, split), path)
    return _described(path, rows)


def _described(path: Path, rows: int) -> DatasetFile:
    return DatasetFile(name=path.name, rows=rows, bytes=path.stat().st_size, sha256=sha256(path))


def _parts(work: Work, name: str) -> list[Path]:
    return [work.path(f"parts/{name}", unit) for unit in work.units("parts")]


def _joined(work: Work, name: str, path: Path) -> None:
    with writing(path, "wb") as whole:
        for part in _parts(work, name):
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)


def _sum(work: Work, step: str, key: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for unit in work.units(step):
        found: dict[str, Any] = work.counts(step, unit) or {}
        total.update(found[key] if isinstance(found[key], dict) else {key: found[key]})
    return dict(total)


def _reasons(work: Work, marker: str, step: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for unit in work.units(marker):
        total.update((work.counts(marker, unit) or {})["reasons"][step])
    return dict(sorted(total.items()))


def _steps(job: Job, work: Work) -> list[PreparationStep]:
    """Every step with its rows; PreparationStep and Preparation refuse figures that lose a row."""
    rows = _sum(work, "rows", "rows").get("rows", 0)
    asked = {"none": (), "exact": ("exact",), "near": ("exact", "near")}[job.settings.dedup]
    for step in asked:
        if len(dropped(work, step)) != sum(_reasons(work, "parts", step).values()):
            raise AssertionError(f"rows that {step} found aren't those that went")
    markers = dict.fromkeys(("read", "filter", "map"), "rows") | dict.fromkeys(asked, "parts")
    steps = []
    for name in (*markers, "split", "write"):
        reasons = _reasons(work, markers[name], name) if name in markers else {}
        left = rows - sum(reasons.values())
        steps.append(
            PreparationStep.model_validate({"name": name, "rows_in": rows, "rows_out": left, "reasons": reasons})
        )
        rows = left
    return steps


def _findings(job: Job, counts: Counter[str]) -> list[Finding]:
    """What was found in the source (known after a pass over it), what went, and what is too little."""
    asked, where = job.settings, job.source.name
    gone = {step: sum(_reasons(job.work, "rows", step).values()) for step in ("read", "filter", "map")}
    rows = _sum(job.work, "rows", "rows")["rows"]
    bad = bad_rows(job)
    if bad:
        bad = [dropped_finding(bad, gone["read"] + gone["map"], rows, where)]
    few = [found for split in ("eval", "test") if getattr(asked, split) for found in few_rows(counts[split], split)]
    return [
        *job.source.findings,
        *bad,
        *notes(job.detection, asked.method, asked.filter, gone["filter"], rows, where),
        *few,
    ]
