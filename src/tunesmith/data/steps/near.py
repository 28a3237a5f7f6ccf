"""Near duplicates in stages that many tasks share: sign chunks, meet in bands, compare in buckets, and one small union.

The clusters are those that `data.quality.near` finds in memory: its functions do the work here too. Of each cluster the
row that was read first stays. On disk, .work holds 8 bytes per band and 24 more for each row (152 at threshold 0.8); in
memory are 24 bytes per row, for one band at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from ...progress import Progress, silent
from ..quality.near import (
    band_keys,
    banding,
    candidates,
    common_shingles,
    components,
    identities,
    signatures,
    similarities,
)
from ..quality.shingles import shingle
from ..quality.texts import said
from ..rows import Row
from .convert import CHUNK, unit_of
from .dedup import BUCKETS, dropped, within
from .job import Job
from .work import Work, read_lines, share

_ONE: Final = "all"
_TEXTS: Final = 200
"""Texts shingled at once."""
_SAMPLE_CHUNKS: Final = 16
_SAMPLE: Final = 1_000


def near(job: Job, *, progress: Progress = silent) -> None:
    """All stages in one process."""
    stages = (common, sign, meet, compare, union)
    for number, stage in enumerate(stages):
        progress("near duplicates", number, len(stages))
        stage(job)
    progress("near duplicates", len(stages), len(stages))


def text_of(row: Row) -> str:
    """What is compared of a prepared row: all that is said in it, but for system messages, which many rows share."""
    return said(row).whole


def common(job: Job, rank: int = 0, _tasks: int = 1) -> None:
    """Find the shingles that count for nothing, in rows of chunks that are spread evenly; one task does it."""
    work = job.work
    if rank or work.counts("common", _ONE):
        return
    units = work.units("rows")
    chosen = units[:: max(1, len(units) // _SAMPLE_CHUNKS)][:_SAMPLE_CHUNKS]
    texts: list[str] = []
    for unit in chosen:
        rows = [row for _, row in _survivors(work, unit)]
        step = max(1, len(rows) * len(chosen) // _SAMPLE)
        texts += [text_of(row) for row in rows[::step]]
    work.save("common", _ONE, common_shingles(texts))
    work.done("common", _ONE, {"texts": len(texts)})


def _survivors(work: Work, unit: str) -> Iterator[tuple[int, Row]]:
    """The rows of a chunk that equal no earlier row, with their numbers."""
    first = int(unit) * CHUNK
    gone = within(dropped(work, "exact"), first, first + CHUNK - 1)
    return ((order, row) for order, _, _, row in read_lines(work.path("rows", unit)) if order not in gone)


def sign(job: Job, rank: int = 0, tasks: int = 1) -> None:
    """Write number, identity and band keys of each row, for the chunks that fall to task `rank`."""
    import numpy as np

    work, bands = job.work, banding(job.settings.near_threshold)
    (ignored,) = work.arrays("common")
    for unit in share(work.units("rows"), rank, tasks):
        if work.counts("signed", unit) is not None:
            continue
        signed = [np.empty((0, bands.bands + 2), dtype="<u8")]
        for batch in _batches(_survivors(work, unit)):
            made = shingle([text_of(row) for _, row in batch]).without(ignored)
            orders = np.array([order for order, _ in batch], dtype="<u8")
            keys = band_keys(signatures(made), bands)
            signed.append(np.column_stack([orders, identities(made), keys]))
        # By column: a band's task then reads its column alone.
        work.save("signed", unit, np.asfortranarray(np.concatenate(signed)))
        work.done("signed", unit, {})


def _batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(rows, _TEXTS)):
        yield batch


def meet(job: Job, rank: int = 0, tasks: int = 1) -> None:
    """Write the pairs whose keys are equal in a band, and of equal texts, for the bands that fall to task `rank`."""
    import numpy as np

    work = job.work
    for band in share(list(range(banding(job.settings.near_threshold).bands)), rank, tasks):
        unit = f"{band:03}"
        if work.counts("pairs", unit) is not None:
            continue
        columns = np.concatenate([array[:, [0, 1, 2 + band]] for array in work.arrays("signed")])
        columns = columns[columns[:, 1] != 0]  # a row without words is like no other
        columns = columns[np.lexsort((columns[:, 0], columns[:, 1]))]
        new = np.ones(len(columns), dtype=bool)
        new[1:] = columns[1:, 1] != columns[:-1, 1]
        distinct = columns[new]
        if band == 0:
            same = np.stack([distinct[np.cumsum(new) - 1, 0], columns[:, 0]], axis=1)[~new]
            work.save("links", "same", same)
        pairs = np.sort(distinct[candidates(distinct[:, 2]), 0], axis=1)
        work.save("pairs", unit, pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])
        work.done("pairs", unit, {})


def compare(job: Job, rank: int = 0, tasks: int = 1) -> None:
    """Compare the pairs of the buckets that fall to task `rank`, each once and exactly; write those that are alike."""
    import numpy as np

    work = job.work
    (ignored,) = work.arrays("common")
    rows = _Rows(work)
    for bucket in share(list(range(BUCKETS)), rank, tasks):
        unit = f"{bucket:02}"
        if work.counts("links", unit) is not None:
            continue
        found = [pairs[pairs[:, 0] % BUCKETS == bucket] for pairs in work.arrays("pairs")]
        pairs = np.unique(np.concatenate([np.empty((0, 2), dtype="<u8"), *found]), axis=0)
        alike = np.zeros(len(pairs), dtype=bool)
        for start in range(0, len(pairs), _TEXTS):
            some = pairs[start : start + _TEXTS]
            one, other = (shingle([rows.text(int(order)) for order in side]).without(ignored) for side in some.T)
            alike[start : start + _TEXTS] = similarities(one, other) >= job.settings.near_threshold
        work.save("links", unit, pairs[alike])
        work.done("links", unit, {})


def union(job: Job, rank: int = 0, _tasks: int = 1) -> None:
    """Join linked rows into clusters, and write which rows go and which one stays for each; one task does it."""
    import numpy as np

    work = job.work
    if rank or work.counts("near", _ONE) is not None:
        return
    links = np.concatenate([np.empty((0, 2), dtype="<u8"), *work.arrays("links")])
    orders, index = np.unique(links, return_inverse=True)
    clusters = components(index.reshape(-1, 2).astype(np.int64), len(orders))
    _, first, inverse = np.unique(clusters, return_index=True, return_inverse=True)
    stays = orders[first[inverse]]  # numbers ascend, so the first of a cluster is its smallest
    gone = orders != stays
    work.save("near", _ONE, np.stack([orders[gone], stays[gone]], axis=1).astype("<u8"))
    work.done("near", _ONE, {"rows": int(gone.sum())})


class _Rows:
    """The texts of rows, wherever they stand in the chunks' files."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._chunks: dict[str, tuple[Any, Any]] = {}

    def text(self, order: int) -> str:
        """The text of the row with this number."""
        import numpy as np

        unit = unit_of(order)
        if unit not in self._chunks:
            if len(self._chunks) == 64:
                self._chunks.pop(next(iter(self._chunks)))[1].close()
            offsets = np.load(self._work.path("offsets", unit, "npy"), mmap_mode="r")
            self._chunks[unit] = offsets, self._work.path("rows", unit).open("rb")
        offsets, file = self._chunks[unit]
        file.seek(int(offsets[order % CHUNK]))
        return text_of(json.loads(file.readline())[3])
