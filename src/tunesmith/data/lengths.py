"""What lengths in tokens say: a histogram, the max_length to set, what packing brings, tokens of an epoch."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..records import Histogram, Packing
from ..words import counted
from .tokens import percentile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Tokens: TypeAlias = "npt.NDArray[np.int64]"

_MULTIPLE: Final = 64
_BINS: Final = 24
_BATCH: Final = 8  # SFTConfig's per_device_train_batch_size
_PACKED_TOGETHER: Final = 1000
"""Rows among which TRL packs: the batches of datasets' map."""

_SEED: Final = 0


@dataclass(frozen=True)
class Measures:
    """What `measures` finds; the fields are those of DataReport.

    Attributes:
        histogram: Of the rows' lengths.
        max_length: The recommended one, in tokens.
        max_length_reason: Why, with what a shorter one would save and cost.
        packing: What packing would bring at that max_length; None where rows are pairs or prompts.
        tokens_per_epoch: Trained tokens of one epoch; None where only the label audit could count them.
    """

    histogram: Histogram
    max_length: int
    max_length_reason: str
    packing: Packing | None
    tokens_per_epoch: int | None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a DataReport."""
        return dict(vars(self))


def measures(
    totals: Tokens,
    prompts: Tokens | None = None,
    *,
    context: int | None = None,
    max_length: int | None = None,
    trained: int | None = None,
    packs: bool = True,
) -> Measures:
    """What the lengths of rows say; `data.tokens.Audited` has them as `tokens` and `prompts`.

    Args:
        totals: Tokens of each row before cutting (of a pair: of its longer side), shape (rows,), not none.
        prompts: Tokens of each row's prompt, which isn't trained, shape (rows,); None where nothing is split off.
        context: Tokens that the model takes at most.
        max_length: Where rows are cut in training; None where they aren't.
        trained: Trained tokens of an epoch, where the label audit has counted them.
        packs: Whether the method can pack rows (sft and clm). Rows of others are pairs or prompts, whose `totals` don't
            tell the trained tokens.
    """
    if trained is None and packs:
        trained = trained_tokens(totals, prompts, max_length)
    recommended, reason = recommend_max_length(totals, context=context)
    return Measures(
        histogram=histogram(totals),
        max_length=recommended,
        max_length_reason=reason,
        packing=packing(totals, recommended) if packs else None,
        tokens_per_epoch=trained,
    )


def trained_tokens(totals: Tokens, prompts: Tokens | None, max_length: int | None) -> int:
    """Tokens that one epoch trains when rows keep their first `max_length` tokens, all but those of the prompts."""
    kept = totals if max_length is None else totals.clip(max=max_length)
    return int((kept if prompts is None else (kept - prompts).clip(min=0)).sum())


def histogram(totals: Tokens, bins: int = _BINS) -> Histogram:
    """Rows by length, in at most `bins` bins of equal width on a log scale; fewer where lengths lie close together."""
    import numpy as np

    low, high = max(1, int(totals.min())), int(totals.max()) + 1
    edges = np.unique(np.round(np.geomspace(low, max(high, low + 1), bins + 1)).astype(np.int64))
    edges[0] = min(int(totals.min()), low)
    return Histogram(edges=edges.tolist(), rows=np.histogram(totals, edges)[0].tolist())


def recommend_max_length(totals: Tokens, *, context: int | None = None) -> tuple[int, str]:
    """The smallest multiple of 64 that cuts no row, within the context; and why, with the price of a shorter one."""
    longest = int(totals.max())
    whole = _rounded(longest)
    if context and longest > context:
        rows, share = _lost(totals, context)
        return context, (
            f"The model's context: the longest row has {longest:,} tokens; {share:.1%} of all are lost, in {rows}."
        )
    length = min(whole, context) if context else whole
    reason = f"The smallest multiple of {_MULTIPLE} that cuts no row: the longest has {longest:,} tokens."
    if length % _MULTIPLE:
        reason = f"The model's context, which cuts no row: the longest has {longest:,} tokens."
    shorter = _rounded(percentile(sorted(totals.tolist()), 99))
    if shorter <= length // 2:
        rows, share = _lost(totals, shorter)
        reason += (
            f" {shorter:,} would hold 99% of the rows and need less memory; {share:.1%} of all tokens would be lost, "
        )
        reason += f"in {rows}."
    return length, reason


def _rounded(tokens: int) -> int:
    """The smallest multiple of 64 that isn't less."""
    return -(-tokens // _MULTIPLE) * _MULTIPLE


def _lost(totals: Tokens, limit: int) -> tuple[str, float]:
    """The rows that are longer than `limit`, in words, and the share of all tokens that cutting there loses."""
    over = totals[totals > limit]
    return counted(len(over), "row"), float((over - limit).sum() / totals.sum())


def packing(totals: Tokens, max_length: int) -> Packing:
    """What packing brings: TRL's best-fit decreasing (`bfd`) against padded batches of 8 rows in random order."""
    import numpy as np

    rows = totals[totals > 0]
    packed = np.array(packed_lengths(totals, max_length), dtype=np.int64)
    cut = rows.clip(max=max_length)
    filled = int(packed.sum())
    return Packing(
        max_length=max_length,
        rows=len(totals),
        sequences=len(packed),
        fill=filled / (len(packed) * max_length) if len(packed) else 0.0,
        gain=_padded(cut) / _padded(packed) if len(packed) else 1.0,
    )


def packed_lengths(totals: Tokens, max_length: int, *, split: bool = False) -> list[int]:
    """Tokens of each sequence that TRL's pack_dataset makes of rows, with strategy bfd or bfd_split.

    Longer rows are cut, or with `split` go on in further pieces.
    """
    sequences: list[int] = []
    for start in range(0, len(totals), _PACKED_TOGETHER):
        rows = totals[start : start + _PACKED_TOGETHER]
        pieces = _pieces(rows, max_length) if split else rows.clip(max=max_length)
        sequences += _best_fit(pieces, max_length)
    return sequences


def _pieces(lengths: Tokens, size: int) -> Tokens:
    """Rows in pieces of at most so many tokens."""
    import numpy as np

    whole = np.full(int((lengths // size).sum()), size, dtype=np.int64)
    return np.concatenate([whole, lengths % size])


def _best_fit(lengths: Tokens, size: int) -> list[int]:
    """Best-fit decreasing: each length goes where the least space is left, into a new sequence if there is none."""
    spaces: list[int] = []
    for length in sorted(lengths[lengths > 0].tolist(), reverse=True):
        at = bisect.bisect_left(spaces, length)
        space = spaces.pop(at) if at < len(spaces) else size
        bisect.insort(spaces, space - length)
    return [size - space for space in spaces]


def _padded(lengths: Tokens) -> int:
    """Tokens of batches of 8 in random order, each padded to its longest."""
    import numpy as np

    mixed = np.random.default_rng(_SEED).permutation(lengths)
    longest = np.maximum.reduceat(mixed, np.arange(0, len(mixed), _BATCH))
    sizes = np.diff([*range(0, len(mixed), _BATCH), len(mixed)])
    return int((longest * sizes).sum())
