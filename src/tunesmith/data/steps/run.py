"""A dataset made in steps: the stages in order, in one process. `datatrove_steps` runs the same ones on many."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ...errors import UsageError
from ...files import disk_errors, exclusive, make_folder, write_atomic
from ...progress import Progress, silent
from ...records import Preparation, PreparationSettings
from ...rules import FindingsError
from ..formats import unusable
from ..paths import paths_of
from .bad import refuse_bad_rows
from .convert import convert
from .dedup import exact
from .finish import finish, versions
from .job import Job
from .near import near
from .work import NAME
from .write import write

Made = TypeVar("Made")
_LOCK = "lock"
_SETTINGS = "settings.json"


def prepare_dataset(settings: PreparationSettings, output: Path, *, progress: Progress = silent) -> Preparation:
    """Raw rows in, a dataset's folder out: train, eval and test files, rejected.jsonl, README.md, manifest.json.

    Memory doesn't grow with the source, but for digests (1.5 bytes per row) and, for near duplicates, a band of
    signatures at a time (24 bytes per row). Started again after it was killed, it continues, and ends with the same
    bytes; of a finished folder it gives the record.

    Raises:
        UsageError: a source isn't there, the mapping doesn't fit, or the folder holds something else.
        FindingsError: the method can't train on the rows, or rows can't be used and `bad_rows` is "error".
        EnvironmentLacksError: the disk is full or not writable.
    """
    return once(settings, output, lambda job: _stages(job, progress))


def once(settings: PreparationSettings, output: Path, work: Callable[[Job], Made]) -> Preparation | Made:
    """Take the output folder and do the work there, alone; of a finished folder give the record.

    Raises:
        UsageError, FindingsError, EnvironmentLacksError: as prepare_dataset, and what `work` raises.
    """
    with disk_errors(output):
        job = look(settings, output)
        found = finished(job)
        if found is not None:
            return found
        take(job)
        with alone(job):
            return work(job)


@contextlib.contextmanager
def alone(job: Job) -> Iterator[None]:
    """Hold the output folder while inside.

    Raises:
        UsageError: another command holds it.
    """
    with exclusive(job.work.folder / _LOCK) as held:
        if not held:
            raise UsageError(
                f"{job.output} is being written by another command.",
                why="Two at once would write over each other's files.",
                fix="Wait until it has ended, or choose another --output.",
            )
        yield


def _stages(job: Job, progress: Progress) -> Preparation:
    convert(job, progress=progress)
    refuse_bad_rows(job)
    if job.settings.dedup != "none":
        exact(job)
    if job.settings.dedup == "near":
        near(job, progress=progress)
    write(job, progress=progress)
    return finish(job)


def look(settings: PreparationSettings, output: Path) -> Job:
    """Find out what the source holds; nothing is written.

    Raises:
        UsageError, FindingsError: the source can't be read, or the method can't train on it.
    """
    job = Job(settings, output)
    refusal = unusable(job.detection, job.source.name, settings.method)
    if refusal:
        raise FindingsError([refusal])
    for option, column in [*(("--filter", name) for name in settings.filter), ("--group", settings.group)]:
        if column is not None and not any(
            all(path.shape(group.shape) for path in paths_of(column))
            for part in job.detection.parts
            for group in part.groups
        ):
            raise _no_column(option, column, job)
    return job


def _no_column(option: str, column: str, job: Job) -> UsageError:
    columns = list(job.detection.profiles)
    near_names = difflib.get_close_matches(column, columns, n=1, cutoff=0.5)
    return UsageError(
        f"{option} names the column {column!r}, which isn't there.",
        why=f"The columns are {', '.join(columns)}.",
        fix=f"Did you mean {near_names[0]!r}?" if near_names else "Name one of these columns.",
    )


def take(job: Job) -> None:
    """Take the output folder for this job, or continue the same job there.

    Raises:
        UsageError: the folder holds something else, or the same work with other settings or sources.
        EnvironmentLacksError: it can't be written.
    """
    marker = job.work.folder / _SETTINGS
    wanted = _identity(job)
    if marker.exists():
        if json.loads(marker.read_bytes()) != json.loads(wanted):
            raise _other(job.output, f"It was begun with other settings, sources or versions ({NAME}/{_SETTINGS}).")
        return
    make_folder(job.output)
    if {path.name for path in job.output.iterdir()} - {NAME}:
        raise _other(job.output, "A dataset is never written into a folder that holds something else.")
    make_folder(job.work.folder)
    write_atomic(marker, wanted)


def _identity(job: Job) -> str:
    """What must be the same for work to be continued; whether bad rows are errors doesn't change what is done."""
    settings = job.settings.model_dump(exclude={"bad_rows"})
    sources = [source.model_dump() for source in job.sources]
    return json.dumps({"settings": settings, "sources": sources, "versions": versions()}, indent=2)


def finished(job: Job) -> Preparation | None:
    """The record of a folder that this job has finished; None where it hasn't.

    Raises:
        UsageError: the folder holds another dataset, or a file of it was changed.
    """
    if not (job.output / Preparation.filename).exists():
        return None
    record = Preparation.load(job.output)
    if (record.settings, record.sources) != (job.settings, job.sources):
        raise _other(job.output, "It holds a dataset that was made with other settings or from other sources.")
    for file in [*record.files.values(), record.rejected]:
        path = job.output / file.name
        if not path.exists() or path.stat().st_size != file.bytes:
            raise _other(job.output, f"{file.name} isn't there as it was written.")
    job.work.clear()
    return record


def _other(output: Path, why: str) -> UsageError:
    return UsageError(
        f"{output} can't be used for this dataset.",
        why=why,
        fix="Choose another --output, or remove that folder; to continue it, repeat the command that began it.",
    )
