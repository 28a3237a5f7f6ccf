"""Counting in a dataset of input_ids and labels, on whole columns: 100,000 rows in about a second."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..records import Span
from .quality.private import hidden

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_MASKED = -100
_BATCH = 10_000
_SHOWN = 1_000  # characters at each end of a long span
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class LabelColumns:
    """The rows of a prepared dataset, end to end; packed rows are taken apart again.

    Attributes:
        ids: Token ids of all rows, shape (tokens,).
        trained: Whether a token contributes to the loss, shape (tokens,).
        starts: Where each row starts, and the number of tokens as the last one, shape (rows + 1,).
    """

    ids: npt.NDArray[np.int64]
    trained: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, dataset: Dataset) -> LabelColumns:
        """Read the columns input_ids, labels and, in a packed dataset, seq_lengths."""
        packed = "seq_lengths" in dataset.column_names
        ids, trained, lengths = [_NONE], [_NONE.astype(bool)], [_NONE]
        needed = dataset.select_columns(["input_ids", "labels", *(["seq_lengths"] if packed else [])])
        for table in needed.with_format("arrow").iter(batch_size=_BATCH):
            batch = table.combine_chunks()
            ids.append(_values(batch["input_ids"]))
            trained.append(_values(batch["labels"]) != _MASKED)
            lengths.append(_values(batch["seq_lengths"]) if packed else _lengths(batch["input_ids"]))
        return cls(np.concatenate(ids), np.concatenate(trained), _starts(np.concatenate(lengths)))

    @classmethod
    def of_batches(cls, batches: Iterable[dict[str, Any]], sides: int) -> list[LabelColumns]:
        """Read the batches of TRL's preference collators, `trl_preparation.collate`: one result for each side of a row.

        Where batches have no completion_mask, a whole sequence gets one score, at its last token.
        """
        empty = (_NONE, _NONE.astype(bool), _NONE)
        parts: list[list[tuple[Any, Any, Any]]] = [[empty] for _ in range(sides)]
        for batch in batches:
            present = batch["attention_mask"].numpy().astype(bool)
            trained = batch["completion_mask"].numpy().astype(bool) if "completion_mask" in batch else _last(present)
            arrays = (batch["input_ids"].numpy(), present, trained)
            for side, (ids, here, labels) in enumerate(zip(*(np.split(array, sides) for array in arrays), strict=True)):
                parts[side].append((ids[here], labels[here], here.sum(1)))
        columns = ([np.concatenate(each) for each in zip(*side, strict=True)] for side in parts)
        return [cls(ids, trained, _starts(lengths)) for ids, trained, lengths in columns]

    @classmethod
    def joined(cls, sides: Sequence[LabelColumns]) -> LabelColumns:
        """All rows of several, one after the other."""
        ids, trained = (np.concatenate([getattr(side, name) for side in sides]) for name in ("ids", "trained"))
        return cls(ids, trained, _starts(np.concatenate([side.lengths for side in sides])))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, shape (rows,)."""
        return np.diff(self.starts)

    def per_row(self, of_token: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """How many tokens of each row `of_token` (shape (tokens,)) is true for, shape (rows,)."""
        return np.diff(np.concatenate([[0], np.cumsum(of_token)])[self.starts])

    def among(self, tokens: list[int]) -> npt.NDArray[np.bool_]:
        """Whether a token is one of `tokens`, shape (tokens,)."""
        return np.isin(self.ids, tokens)

    def of_rows(self, of_token: npt.NDArray[np.bool_], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """`of_token` (shape (tokens,)) in the rows that are `chosen` (shape (rows,)), False in all others."""
        return of_token & np.repeat(chosen, self.lengths)

    def beyond(self, limit: int, *, from_end: bool = False) -> npt.NDArray[np.bool_]:
        """Whether a token stands after the first `limit` ones of its row (before its last ones), shape (tokens,)."""
        position = np.arange(len(self.ids)) - np.repeat(self.starts[:-1], self.lengths)
        if from_end:
            return position < np.repeat(self.lengths - limit, self.lengths)
        return position >= limit

    def same_as(self, other: LabelColumns) -> npt.NDArray[np.bool_]:
        """Whether a row has the same tokens as that of `other`, shape (rows,)."""
        same: npt.NDArray[np.bool_] = self.lengths == other.lengths
        for row in np.flatnonzero(same):
            mine = self.ids[self.starts[row] : self.starts[row + 1]]
            same[row] = np.array_equal(mine, other.ids[other.starts[row] : other.starts[row + 1]])
        return same

    def leading(self, token: int) -> dict[int, int]:
        """Number of `token`s that a row begins with -> rows."""
        counts: dict[int, int] = {}
        at, ends = self.starts[:-1], self.starts[1:]
        number = 0
        while len(at):
            inside = at < ends
            goes_on = inside.copy()
            goes_on[inside] = self.ids[at[inside]] == token
            if done := int((~goes_on).sum()):
                counts[number] = done
            at, ends, number = at[goes_on] + 1, ends[goes_on], number + 1
        return counts

    def spans(self, row: int, tokenizer: PreTrainedTokenizerBase) -> list[Span]:
        """Row `row`, counted from 0, as runs of trained and of masked tokens; the middle of long ones is left out."""
        first, last = self.starts[row], self.starts[row + 1]
        ids, trained = self.ids[first:last], self.trained[first:last]
        cuts = [0, *(np.flatnonzero(np.diff(trained)) + 1).tolist(), len(ids)]
        return [
            Span(text=_shortened(hidden(tokenizer.decode(ids[a:b].tolist()))), tokens=b - a, trained=bool(trained[a]))
            for a, b in itertools.pairwise(cuts)
            if b > a
        ]


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]} … {text[-_SHOWN:]}"


def _starts(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)])


def _last(present: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """True at the last token of each sequence, shape (sequences, tokens); False everywhere else."""
    left = np.cumsum(present[:, ::-1], axis=1)[:, ::-1]
    last: npt.NDArray[np.bool_] = present & (left == 1)
    return last


def _values(lists: Any) -> npt.NDArray[np.int64]:
    """All values of a column of lists (pyarrow.ChunkedArray), end to end."""
    # A column of empty lists only has values of type null, which numpy would make floats.
    values = (chunk.flatten().to_numpy(zero_copy_only=False) for chunk in lists.chunks)
    return np.concatenate([_NONE, *values]).astype(np.int64, copy=False)


def _lengths(lists: Any) -> npt.NDArray[np.int64]:
    """The length of each list of a column of lists (pyarrow.ChunkedArray)."""
    return np.concatenate([_NONE, *(chunk.value_lengths().to_numpy() for chunk in lists.chunks)])
