"""The first stage: rows of the source, chunk by chunk, read, filtered, mapped, and known by digest and signature."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from ...progress import Progress, silent
from ..rows import Numbered
from .job import Job
from .transform import Kept, Rejected
from .work import Work, writing

CHUNK = 10_000
"""Rows of a unit of work. It decides which file in .work a row goes through, never what becomes of the row."""
_BATCH = 500
DIGEST = [("high", "<u8"), ("low", "<u8"), ("order", "<u8")]
_ALL = "all"


def unit_of(order: int) -> str:
    """The chunk that holds the row with this number."""
    return f"{order // CHUNK:08}"


def convert(job: Job, rank: int = 0, tasks: int = 1, *, progress: Progress = silent) -> None:
    """Convert the chunks that fall to task `rank`; those that are done already are passed over.

    Each task reads the whole source and converts its own chunks: reading is cheap beside mapping and signatures.
    """
    work = job.work
    if work.counts("read", _ALL):
        return
    transform = job.transform()
    number = read = 0

    def counting() -> Iterator[tuple[int, Numbered]]:
        nonlocal read
        for read, numbered in enumerate(job.source.rows(), 1):
            yield read - 1, numbered

    rows = counting()
    while (first := next(rows, None)) is not None:
        chunk = _chain(first, islice(rows, CHUNK - 1))
        unit = f"{number:08}"
        if number % tasks == rank and work.counts("rows", unit) is None:
            _Chunk(job, unit).write(chunk, transform.batch)
        number += 1
        deque(chunk, maxlen=0)  # the rest, where the chunk is another task's or done
        progress("converting rows", read, None)
    if all(work.counts("rows", f"{one:08}") is not None for one in range(number)):
        work.done("read", _ALL, {"chunks": number})


def _chain(first: tuple[int, Numbered], rest: Iterable[tuple[int, Numbered]]) -> Iterator[tuple[int, Numbered]]:
    yield first
    yield from rest


class _Chunk:
    """What is gathered of one chunk."""

    def __init__(self, job: Job, unit: str) -> None:
        self._job = job
        self._unit = unit
        self._places: list[int | str] = []
        self._offsets: list[int] = []
        self._digests: list[tuple[int, int, int]] = []
        self._reasons: dict[str, Counter[str]] = {"read": Counter(), "filter": Counter(), "map": Counter()}
        self._columns: set[tuple[str, ...]] = set()
        self._kept = 0

    def write(
        self,
        rows: Iterator[tuple[int, Numbered]],
        transform: Callable[[list[tuple[int, Numbered]]], tuple[list[Kept], list[Rejected]]],
    ) -> None:
        """Stream the rows through, batch by batch, into the chunk's files; then mark it as done."""
        work = self._job.work
        with (
            writing(work.path("rows", self._unit), "wb") as kept_file,
            writing(work.path("rejected", self._unit)) as rejected_file,
        ):
            while batch := list(islice(rows, _BATCH)):
                kept, rejected = transform(batch)
                self._places += [raw.place for _, raw in batch]
                self._offsets += [-1] * len(batch)
                for one in kept:
                    self._offsets[one.order % CHUNK] = kept_file.tell()
                    kept_file.write(json.dumps([one.order, one.place, one.split, one.row]).encode() + b"\n")
                rejected_file.writelines(json.dumps(one, default=str) + "\n" for one in rejected)
                self._count(kept, rejected)
        self._save(work)

    def _count(self, kept: list[Kept], rejected: list[Rejected]) -> None:
        for gone in rejected:
            self._reasons[gone.step][gone.reason] += 1
        self._kept += len(kept)
        self._columns |= {tuple(one.row) for one in kept}
        for one in kept:
            high, low = int.from_bytes(one.digest[:8]), int.from_bytes(one.digest[8:])
            self._digests.append((high, low, one.order))

    def _save(self, work: Work) -> None:
        import numpy as np

        work.save("places", self._unit, np.array(self._places))
        work.save("offsets", self._unit, np.array(self._offsets, dtype=np.int64))
        work.save("digests", self._unit, np.array(sorted(self._digests), dtype=DIGEST))
        work.done(
            "rows",
            self._unit,
            {
                "rows": len(self._places),
                "kept": self._kept,
                "reasons": self._reasons,
                "columns": sorted(self._columns),
            },
        )
