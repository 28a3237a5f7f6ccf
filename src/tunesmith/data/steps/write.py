"""The last stage but one: each chunk's rows into the parts of the splits, and every row that went into its own part."""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...progress import Progress, silent
from ..prepare import one_layout
from ..rows import Row
from .convert import CHUNK, unit_of
from .dedup import dropped, within
from .identity import SPLITS
from .job import Job
from .transform import Rejected
from .work import Work, read_lines, share, writing

if TYPE_CHECKING:
    import numpy as np

REASONS = {"exact": "equals an earlier row", "near": "nearly equals an earlier row"}


def write(job: Job, rank: int = 0, tasks: int = 1, *, progress: Progress = silent) -> None:
    """Write the parts of the chunks that fall to task `rank`."""
    work = job.work
    gone = {step: dropped(work, step) for step in ("exact", "near")}
    layout = one_layout(columns(work))
    units = share(work.units("rows"), rank, tasks)
    for number, unit in enumerate(units, start=1):
        if work.counts("parts", unit) is None:
            _write_chunk(work, unit, gone, layout)
        progress("writing rows", number, len(units))


def columns(work: Work) -> list[tuple[str, ...]]:
    """The sets of columns that converted rows have."""
    found = {tuple(one) for unit in work.units("rows") for one in (work.counts("rows", unit) or {})["columns"]}
    return sorted(found)


def _write_chunk(work: Work, unit: str, gone: dict[str, np.ndarray], layout: Callable[[Row], Row]) -> None:
    first = int(unit) * CHUNK
    chunk = {step: within(pairs, first, first + CHUNK - 1) for step, pairs in gone.items()}
    place_of = _places(work)
    counts: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {step: Counter() for step in REASONS}

    def duplicates() -> Iterator[list[Any]]:
        for order, place, split, row in read_lines(work.path("rows", unit)):
            step = next((step for step in REASONS if order in chunk[step]), None)
            if step is None:
                files[split].write(json.dumps(layout(row), ensure_ascii=False) + "\n")
                counts[split] += 1
            else:
                reasons[step][REASONS[step]] += 1
                like = f"row {place_of(chunk[step][order])}"
                yield list(Rejected(order, step, None, REASONS[step], "", like, place, row))

    with ExitStack() as stack:
        files = {split: stack.enter_context(writing(work.path(f"parts/{split}", unit))) for split in SPLITS}
        rejected = stack.enter_context(writing(work.path("parts/rejected", unit)))
        # Both are in reading order; so is what comes out.
        for entry in heapq.merge(read_lines(work.path("rejected", unit)), duplicates(), key=lambda one: one[0]):
            told = _without_unknown(dict(zip(Rejected._fields[1:], entry[1:], strict=True)))
            rejected.write(json.dumps(told, allow_nan=False) + "\n")
            counts["rejected"] += 1
    work.done("parts", unit, {"rows": counts, "reasons": reasons})


def _without_unknown(value: Any) -> Any:
    """A value in which the numbers that JSON doesn't know are texts."""
    if isinstance(value, dict):
        return {key: _without_unknown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_unknown(item) for item in value]
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value


def _places(work: Work) -> Callable[[int], int | str]:
    """Where the row with a given number stood in its file."""
    import numpy as np

    @lru_cache(maxsize=64)
    def places(unit: str) -> np.ndarray:
        found: np.ndarray = np.load(work.path("places", unit, "npy"), mmap_mode="r")
        return found

    def place(order: int) -> int | str:
        found: int | str = places(unit_of(order))[order % CHUNK].item()
        return found

    return place
