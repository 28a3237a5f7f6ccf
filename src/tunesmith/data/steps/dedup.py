"""The stages that see all rows: equal digests by buckets, near signatures by bands, and their union.

Of rows that are equal, or nearly so, the one that was read first stays; so the result is the same however the work is
shared.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any, Final

from .convert import DIGEST
from .job import Job
from .work import Work, share

if TYPE_CHECKING:
    import numpy as np

BUCKETS: Final = 16
"""Digests are compared a bucket at a time: 24 bytes per row of the bucket, 1.5 bytes per row of the data."""


def exact(job: Job, rank: int = 0, tasks: int = 1) -> None:
    """Find rows that equal an earlier one, in the buckets that fall to task `rank`."""
    for bucket in share(list(range(BUCKETS)), rank, tasks):
        unit = f"{bucket:02}"
        if job.work.counts("exact", unit) is None:
            pairs = repeats(_bucket(job.work, bucket))
            job.work.save("exact", unit, pairs)
            job.work.done("exact", unit, {"rows": len(pairs)})


def _bucket(work: Work, bucket: int) -> np.ndarray:
    """The digests whose first bits name the bucket; each chunk has its own in order, so they are a slice of it."""
    import numpy as np

    width = 2**64 // BUCKETS
    parts = []
    for chunk in work.arrays("digests"):
        start, end = (_first_from(chunk, number * width) for number in (bucket, bucket + 1))
        parts.append(chunk[start:end])
    return np.concatenate(parts) if parts else np.empty(0, dtype=DIGEST)


def _first_from(chunk: Any, bound: int) -> int:
    return bisect.bisect_left(chunk, bound, key=lambda entry: int(entry["high"]))


def repeats(digests: np.ndarray) -> np.ndarray:
    """Rows that equal an earlier one: pairs of (its number, the first one's number), in order; shape (n, 2), uint64."""
    import numpy as np

    ordered = digests[np.lexsort((digests["order"], digests["low"], digests["high"]))]
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = (ordered["high"][1:] != ordered["high"][:-1]) | (ordered["low"][1:] != ordered["low"][:-1])
    first = ordered["order"][new][np.cumsum(new) - 1] if len(ordered) else ordered["order"]
    pairs = np.stack([ordered["order"], first], axis=1)[~new]
    return pairs[np.argsort(pairs[:, 0])]


def dropped(work: Work, kind: str) -> np.ndarray:
    """All pairs (row that goes, row that stays in its place) that a step found, in order; shape (n, 2), uint64."""
    import numpy as np

    pairs = np.concatenate([np.empty((0, 2), dtype="<u8"), *work.arrays(kind)])
    return pairs[np.argsort(pairs[:, 0])]


def within(pairs: np.ndarray, first: int, last: int) -> dict[int, int]:
    """The pairs of rows with numbers from `first` to `last`, as a dict."""
    import numpy as np

    start, end = np.searchsorted(pairs[:, 0], np.array([first, last + 1], dtype="<u8"))
    return {int(gone): int(kept) for gone, kept in pairs[start:end]}
