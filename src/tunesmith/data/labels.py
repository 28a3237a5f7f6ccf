"""Counting in a dataset of input_ids and labels, on whole columns: 100,000 rows in about a second."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..records import PreviewRow, Span

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_MASKED = -100
_BATCH = 10_000
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
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        return cls(np.concatenate(ids), np.concatenate(trained), starts)

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
        """Row `row`, counted from 0, as runs of trained and of masked tokens."""
        first, last = self.starts[row], self.starts[row + 1]
        ids, trained = self.ids[first:last], self.trained[first:last]
        cuts = [0, *(np.flatnonzero(np.diff(trained)) + 1).tolist(), len(ids)]
        return [
            Span(text=tokenizer.decode(ids[a:b].tolist()), tokens=b - a, trained=bool(trained[a]))
            for a, b in itertools.pairwise(cuts)
            if b > a
        ]

    def preview(self, rows: int, tokenizer: PreTrainedTokenizerBase, numbers: list[int]) -> list[PreviewRow]:
        """The first rows, under their `numbers`."""
        first = range(min(rows, self.rows))
        return [PreviewRow(row=numbers[row], spans=self.spans(row, tokenizer)) for row in first]


def _values(lists: Any) -> npt.NDArray[np.int64]:
    """All values of a column of lists (pyarrow.ChunkedArray), end to end."""
    # A column of empty lists only has values of type null, which numpy would make floats.
    values = (chunk.flatten().to_numpy(zero_copy_only=False) for chunk in lists.chunks)
    return np.concatenate([_NONE, *values]).astype(np.int64, copy=False)


def _lengths(lists: Any) -> npt.NDArray[np.int64]:
    """The length of each list of a column of lists (pyarrow.ChunkedArray)."""
    return np.concatenate([_NONE, *(chunk.value_lengths().to_numpy() for chunk in lists.chunks)])
