"""Near duplicates: MinHash signatures, bands that bring candidates together, and their exact similarity.

The clusters are those of all documents at once, whatever their order and however they come in batches, and each step is
a function of its own: signatures and band keys are made where a document is, candidates where a band's keys meet,
`similarities` wherever both texts are. So a run on many machines finds the same clusters.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ...progress import Progress, silent
from .shingles import Hashes, Shingles, mix, shingle

Indices = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint32]

THRESHOLD = 0.8
"""Share of shingles that two documents have in common, of all that either has (Jaccard), from which on they are near
duplicates; as in Lee et al. 2022 and FineWeb."""
PERMUTATIONS = 80
_RECALL = 0.995
_WINDOW = 16
_PAIRS = 100_000
_CHARACTERS = 100_000
_COMMON = 0.1
_COMMON_LEAST = 100


@dataclass(frozen=True)
class Banding:
    """How signatures are cut into bands: documents whose signatures are equal in a band become candidates.

    Attributes:
        bands: Number of bands.
        rows: Values of the signature in each.
    """

    bands: int
    rows: int

    def found(self, similarity: float) -> float:
        """The chance that a pair of this similarity becomes a candidate: 1 - (1 - s ** rows) ** bands."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


def banding(threshold: float) -> Banding:
    """The bands with the fewest false candidates that still find 99.5% of the pairs right at `threshold`."""
    choices = [Banding(PERMUTATIONS // rows, rows) for rows in range(PERMUTATIONS, 0, -1)]
    return next((choice for choice in choices if choice.found(threshold) >= _RECALL), choices[-1])


def signatures(shingles: Shingles) -> Signatures:
    """MinHash signatures (documents, PERMUTATIONS) of documents; that of one without shingles means nothing.

    Broder 1997; the permutations are x -> a * x xor b on the upper halves of the shingles' hashes, which are random
    already. NumPy does this several times as fast as rensa, which hands its signatures over as Python numbers only.
    """
    signed = np.zeros((len(shingles.offsets) - 1, PERMUTATIONS), dtype=np.uint32)
    filled = np.flatnonzero(shingles.counts)
    if not len(filled):
        return signed
    starts = shingles.offsets[filled]
    upper = (shingles.hashes >> np.uint64(32)).astype(np.uint32)
    permuted = np.empty_like(upper)
    for column, (factor, mask) in enumerate(zip(*_permutations(), strict=True)):
        np.multiply(upper, factor, out=permuted)
        np.bitwise_xor(permuted, mask, out=permuted)
        signed[filled, column] = np.minimum.reduceat(permuted, starts)
    return signed


@functools.cache
def _permutations() -> tuple[Signatures, Signatures]:
    drawn = np.random.default_rng(1).integers(0, 1 << 32, (2, PERMUTATIONS), dtype=np.uint32)
    return drawn[0] | np.uint32(1), drawn[1]


def band_keys(signed: Signatures, bands: Banding) -> Hashes:
    """One key for each band of each signature, (documents, bands); equal bands have equal keys."""
    cut = signed[:, : bands.bands * bands.rows].reshape(len(signed), bands.bands, bands.rows).astype(np.uint64)
    keys = np.zeros(cut.shape[:2], dtype=np.uint64)
    for row in range(bands.rows):
        keys = mix(keys + cut[:, :, row])
    return keys


def identities(shingles: Shingles) -> Hashes:
    """A number for each document, equal where the shingles are equal; 0 for a document without any."""
    totals = np.zeros(len(shingles.offsets) - 1, dtype=np.uint64)
    filled = np.flatnonzero(shingles.counts)
    if len(filled):
        totals[filled] = np.add.reduceat(mix(shingles.hashes), shingles.offsets[filled])
    return totals


def candidates(keys: Hashes) -> Indices:
    """Pairs of documents (pairs, 2) with equal keys in one band, `keys` being that band's.

    In a group of many documents each is paired with the first and with its next neighbours only; so documents must
    stand in an order that depends on nothing but themselves, that of their identities.
    """
    order = np.argsort(keys)
    equal = keys[order[1:]] == keys[order[:-1]]
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[1:] |= equal
    repeated[:-1] |= equal
    order = order[repeated]
    order = order[np.lexsort((order, keys[order]))]
    ordered = keys[order]
    first = np.searchsorted(ordered, ordered)
    made = [np.stack([order[first], order], axis=1)[np.arange(len(order)) - first > _WINDOW]]
    for distance in range(1, _WINDOW + 1):
        near = ordered[distance:] == ordered[:-distance]
        if not near.any():
            break
        made.append(np.stack([order[:-distance][near], order[distance:][near]], axis=1))
    pairs = np.concatenate(made).astype(np.int64)
    return np.sort(pairs, axis=1)


def similarities(one: Shingles, other: Shingles) -> npt.NDArray[np.float64]:
    """The exact Jaccard similarity of document i of `one` and document i of `other`; 0 where both are empty."""
    owned, owners = _sets(one)
    others, other_owners = _sets(other)
    count = len(one.offsets) - 1
    both = np.sort(np.concatenate([owned, others]))
    shared = np.bincount((both[1:][both[1:] == both[:-1]] >> _OWNER).astype(np.int64), minlength=count)
    either = owners + other_owners - shared
    return np.asarray(np.divide(shared, either, out=np.zeros(count), where=either > 0))


_OWNER = np.uint64(40)
"""Bits of a shingle's hash that are kept beside the number of its document."""


def _sets(shingles: Shingles) -> tuple[Hashes, Indices]:
    """Each document's distinct shingles, marked with its number, and how many each has."""
    count = len(shingles.offsets) - 1
    owner = np.repeat(np.arange(count, dtype=np.uint64), shingles.counts)
    distinct = np.unique((owner << _OWNER) | (shingles.hashes >> np.uint64(64 - int(_OWNER))))
    return distinct, np.bincount((distinct >> _OWNER).astype(np.int64), minlength=count)


def common_shingles(texts: Sequence[str]) -> Hashes:
    """What more than a tenth of the different ones among `texts` share, sorted: boilerplate, by which none are alike.

    A thousand texts are enough; of fewer than a hundred different ones, nothing is boilerplate.
    """
    numbers, owned = [np.empty(0, dtype=np.uint64)], []
    for part in parts([len(text) for text in texts]):
        made = shingle(texts[part])
        numbers.append(identities(made))
        owned += [np.unique(hashes) for hashes in np.split(made.hashes, made.offsets[1:-1])]
    distinct = np.unique(np.concatenate(numbers), return_index=True)[1]
    if len(distinct) < _COMMON_LEAST:
        return np.empty(0, dtype=np.uint64)
    hashes, documents = np.unique(np.concatenate([owned[index] for index in distinct]), return_counts=True)
    return np.asarray(hashes[documents > _COMMON * len(distinct)])


def clusters(
    texts: Sequence[str], threshold: float = THRESHOLD, *, common: Hashes | None = None, progress: Progress = silent
) -> Indices:
    """The cluster of each text, (texts,): the number of the first text in it, so its own where it is alone.

    Texts are in one cluster when a chain of near duplicates joins them. A text without words is alone.

    Args:
        texts: The documents.
        threshold: Jaccard similarity of shingles from which on two documents are near duplicates.
        common: Shingles that count for nothing, sorted.
        progress: Hears of documents and of bands.
    """
    common = np.empty(0, dtype=np.uint64) if common is None else common
    bands = banding(threshold)
    identity, keys = _signed(texts, common, bands, progress)
    filled = np.flatnonzero(identity)
    _, distinct, same = np.unique(identity[filled], return_index=True, return_inverse=True)
    distinct = filled[distinct]
    joined = _Joined(len(distinct))
    for band in range(bands.bands):
        progress("Comparing documents", band, bands.bands)
        for pairs in joined.open(candidates(keys[distinct, band])):
            similar = _similarities_of(texts, distinct[pairs], common) >= threshold
            joined.tell(pairs, similar)
    found = np.arange(len(texts), dtype=np.int64)
    _, first, inverse = np.unique(joined.labels[same], return_index=True, return_inverse=True)
    found[filled] = filled[first[inverse]]
    return found


class _Joined:
    """Which documents are known to be in one cluster, and which pairs need no second look."""

    def __init__(self, documents: int) -> None:
        self.labels = np.arange(documents, dtype=np.int64)
        self._links = np.empty((0, 2), dtype=np.int64)
        self._apart: Indices = np.empty(0, dtype=np.int64)

    def open(self, pairs: Indices) -> Iterator[Indices]:
        """Those of `pairs`, some at a time, that aren't joined already and weren't found apart."""
        for start in range(0, len(pairs), _PAIRS):
            some = pairs[start : start + _PAIRS]
            some = some[self.labels[some[:, 0]] != self.labels[some[:, 1]]]
            some = some[~np.isin(self._codes(some), self._apart)]
            if len(some):
                yield some

    def tell(self, pairs: Indices, similar: npt.NDArray[np.bool_]) -> None:
        """Join the pairs that are `similar`, and remember the others."""
        self._apart = np.concatenate([self._apart, self._codes(pairs[~similar])])
        if similar.any():
            self._links = np.concatenate([self._links, pairs[similar]])
            self.labels = components(self._links, len(self.labels))

    def _codes(self, pairs: Indices) -> Indices:
        return pairs[:, 0] * len(self.labels) + pairs[:, 1]


def components(pairs: Indices, count: int) -> Indices:
    """The number of the component of each of `count` documents, when `pairs` (pairs, 2) are linked."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _signed(texts: Sequence[str], common: Hashes, bands: Banding, progress: Progress) -> tuple[Hashes, Hashes]:
    """Identity and band keys of all texts."""
    identity = np.empty(len(texts), dtype=np.uint64)
    keys = np.empty((len(texts), bands.bands), dtype=np.uint64)
    for part in parts([len(text) for text in texts]):
        made = shingle(texts[part]).without(common)
        identity[part] = identities(made)
        keys[part] = band_keys(signatures(made), bands)
        progress("Reading documents", part.stop, len(texts))
    return identity, keys


def _similarities_of(texts: Sequence[str], pairs: Indices, common: Hashes) -> npt.NDArray[np.float64]:
    """The exact similarities of pairs of texts, (pairs,)."""
    found = np.empty(len(pairs))
    for part in parts([len(texts[one]) + len(texts[other]) for one, other in pairs]):
        one, other = (shingle([texts[index] for index in side]).without(common) for side in pairs[part].T)
        found[part] = similarities(one, other)
    return found


def parts(lengths: Sequence[int]) -> Iterator[slice]:
    """Parts of a sequence of texts, each of about 100,000 characters: the arrays then stay in the processor's cache."""
    ends = np.cumsum(np.asarray(lengths, dtype=np.int64)) // _CHARACTERS
    bounds = [0, *(np.flatnonzero(np.diff(ends)) + 1).tolist(), len(lengths)]
    return (slice(start, stop) for start, stop in pairwise(bounds) if stop > start)
