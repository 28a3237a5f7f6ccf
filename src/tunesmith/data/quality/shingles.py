"""Texts as sets of hashed shingles, for many documents at once.

A shingle is a few neighbouring words; case and punctuation count for nothing. A character of a script that is written
without spaces (Chinese, Japanese, Thai and others) is a word of its own.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]

WIDTH = 3
_LONGEST = 1_000_000
_SEPARATOR, _WORD, _ALONE = 0, 1, 2
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x30FF),  # Japanese
    (0x3400, 0x9FFF),  # Chinese
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_BASE = 0x9E3779B97F4A7C15
_ODD = 0xD6E8FEB86659FD93
_MIXERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Shingles:
    """The shingles of documents, one after the other.

    Attributes:
        hashes: All of them, (total,); one document may hold the same one several times.
        offsets: Those of document i stand at offsets[i] to offsets[i + 1]; (documents + 1,).
    """

    hashes: Hashes
    offsets: Offsets

    @property
    def counts(self) -> Offsets:
        """Shingles of each document."""
        return np.diff(self.offsets)

    def without(self, common: Hashes) -> Shingles:
        """These shingles but for those in `common`, which must be sorted."""
        if not len(common):
            return self
        kept = ~np.isin(self.hashes, common)
        return Shingles(self.hashes[kept], np.concatenate([[0], np.cumsum(kept)])[self.offsets])


def shingle(texts: Sequence[str], width: int = WIDTH, *, short: bool = True) -> Shingles:
    """The shingles of texts, `width` words each.

    A text with fewer words is one shingle, or with `short` False none; one without any word has none. What follows
    after the first million characters of a text is left out.
    """
    words, word_offsets = _words([text[:_LONGEST].lower() for text in texts])
    if not len(words):
        return Shingles(words, word_offsets)
    counts = np.diff(word_offsets)
    left = np.repeat(word_offsets[1:], counts) - np.arange(len(words))  # words up to the document's end, itself one
    hashes = np.zeros_like(words)
    for place in range(min(width, len(words))):
        # Multiplied by another odd number in each place, so that the order of words counts.
        following = words[place:] * np.uint64(pow(_ODD, place + 1, 1 << 64))
        stop = len(words) - place
        hashes[:stop] += np.where(left[:stop] > place, following, np.uint64(0))
    kept = left >= width
    if short:
        kept[word_offsets[:-1][counts > 0]] = True
    return Shingles(mix(hashes[kept]), np.concatenate([[0], np.cumsum(kept)])[word_offsets])


def mix(hashes: Hashes) -> Hashes:
    """Spread every bit of each hash over all others (the finalizer of SplitMix64, Steele et al. 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _MIXERS[0]
    hashes = (hashes ^ (hashes >> np.uint64(27))) * _MIXERS[1]
    return np.asarray(hashes ^ (hashes >> np.uint64(31)), dtype=np.uint64)


def _words(texts: Sequence[str]) -> tuple[Hashes, Offsets]:
    """The hash of each word of all texts, and where each text's words begin."""
    ends = np.cumsum([0, *(len(text) + 1 for text in texts)])
    encoded = "\n".join([*texts, ""]).encode("utf-32-le", errors="surrogatepass")
    points = np.frombuffer(encoded, dtype="<u4")
    kinds = _kinds()[points]
    starts, stops = _bounds(kinds)
    word_offsets = np.searchsorted(starts, ends)
    # The sum of character * base ** place, over the places of a word, from sums over all places before: Rabin-Karp.
    sums = np.zeros(len(points) + 1, dtype=np.uint64)
    np.cumsum(points * _powers(_BASE, len(points)), out=sums[1:])
    inverse = _powers(pow(_BASE, -1, 1 << 64), len(points))
    return mix((sums[stops] - sums[starts]) * inverse[starts]), word_offsets.astype(np.int64)


def _bounds(kinds: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Where words begin and end, from the kinds of all characters."""
    padded = np.full(len(kinds) + 2, _SEPARATOR, dtype=np.uint8)
    padded[1:-1] = kinds
    before, after = padded[:-2], padded[2:]
    inside = kinds == _WORD
    alone = kinds == _ALONE
    begins = (inside & (before != _WORD)) | alone
    ends = (inside & (after != _WORD)) | alone
    return np.flatnonzero(begins), np.flatnonzero(ends) + 1


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """What each code point is: separator, part of a word, or a word of its own."""
    kinds = np.full(sys.maxunicode + 1, _SEPARATOR, dtype=np.uint8)
    for run in re.finditer(r"[^\W_]+", "".join(map(chr, range(len(kinds))))):
        kinds[run.start() : run.end()] = _WORD
    for first, last in _WITHOUT_SPACES:
        kinds[first : last + 1] *= np.uint8(_ALONE)
    return kinds


def _powers(base: int, count: int) -> Hashes:
    """The powers of `base` modulo 2 ** 64 from 0 on, at least `count` of them."""
    return _powers_up_to(base, 1 << max(count, 1).bit_length())[:count]


@functools.lru_cache(maxsize=4)
def _powers_up_to(base: int, count: int) -> Hashes:
    powers = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)
