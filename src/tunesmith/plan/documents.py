"""Token lengths of the rows as a histogram: what padding, packing and attention over documents come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

_CLASSES = 512  # distinct lengths kept; neighbours beyond that are put together
_WORTH = 0.1  # of the tokens computed: padding below that isn't worth a less random order of the rows


@dataclass(frozen=True)
class Documents:
    """Rows by their length.

    Attributes:
        counts: (tokens, rows) pairs, shortest first.
    """

    counts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, lengths: Iterable[int] | Mapping[int, int], longest: int | None = None) -> Self:
        """From the lengths of the rows, or from length -> rows; rows are cut at `longest` tokens."""
        counts = Counter[int]()
        for length, rows in lengths.items() if isinstance(lengths, Mapping) else Counter(lengths).items():
            if length > 0 and rows > 0:
                counts[min(length, longest or length)] += rows
        return cls(_grouped(sorted(counts.items())))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(rows for _, rows in self.counts)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(length * rows for length, rows in self.counts)

    @property
    def mean(self) -> float:
        """Tokens of a row."""
        return self.tokens / self.rows if self.counts else 0.0

    @property
    def shares(self) -> tuple[tuple[int, float], ...]:
        """(tokens, share of the rows) pairs."""
        return tuple((length, rows / self.rows) for length, rows in self.counts)

    def longest_of(self, rows: int) -> tuple[tuple[int, float], ...]:
        """(tokens, probability) of the longest among `rows` rows drawn at random: what a batch is padded to.

        The distribution function of a maximum of n independent draws is F(x)^n.
        """
        below, total, result = 0, self.rows, []
        for length, count in self.counts:
            result.append((length, ((below + count) / total) ** rows - (below / total) ** rows))
            below += count
        return tuple(result)


def worth_grouping(documents: Documents, rows: int) -> bool:
    """Whether batches of `rows` rows of like length compute noticeably fewer tokens than rows drawn at random."""
    padded = sum(length * share for length, share in documents.longest_of(rows))
    return documents.mean < (1 - _WORTH) * padded


def _grouped(counts: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """At most _CLASSES lengths: neighbours become their mean, so that the tokens stay the same but for rounding."""
    size = -(-len(counts) // _CLASSES) or 1
    grouped = []
    for start in range(0, len(counts), size):
        part = counts[start : start + size]
        rows = sum(rows for _, rows in part)
        grouped.append((round(sum(length * rows for length, rows in part) / rows), rows))
    return tuple(grouped)
