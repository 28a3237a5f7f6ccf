"""Mixing sources by weight."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from ...errors import UsageError
from ...recipe.schema import Source

if TYPE_CHECKING:
    import numpy


def weights_of(sources: Sequence[Source]) -> list[Fraction] | None:
    """The sources' weights; None where none has one, or a single source has nothing to be weighed against.

    Raises:
        UsageError: some have a weight and others none.
    """
    given = [source.weight for source in sources if source.weight is not None]
    if not given or len(sources) == 1:
        return None
    if len(given) < len(sources):
        without = next(source.path for source in sources if source.weight is None)
        raise UsageError(
            f"The source {without} has no weight, while others have one.",
            why="Shares of a mixture are known only when every source has a weight.",
            fix="Give every source a `weight`, or none.",
        )
    return [Fraction(str(weight)) for weight in given]


def largest_mixture(rows: Sequence[int], weights: Sequence[Fraction]) -> list[int]:
    """Rows to take of each source: as many as the weights allow without repeating a row.

    With n rows of a source and its weight w, the mixture holds floor(w * min(n / w)) of each.
    """
    unit = min(Fraction(count) / weight for count, weight in zip(rows, weights, strict=True))
    return [int(weight * unit) for weight in weights]


def chosen(rows: int, keep: int, seed: int, number: int) -> numpy.ndarray:
    """Which of a source's rows stay, as booleans: `keep` of them, drawn by the seed and the source's number."""
    import numpy as np

    mask = np.zeros(rows, dtype=bool)
    mask[np.random.default_rng([seed, number]).permutation(rows)[:keep]] = True
    return mask
