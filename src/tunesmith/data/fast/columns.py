"""The columns that the trainer reads, made of numpy arrays: labels, cutting, and dropping rows without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..trl_preparation import arguments, prepare_dataset
from .encoders import Encoded
from .settings import NotFastError, Settings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_MASKED: Final = -100


@dataclass(frozen=True)
class Columns:
    """Some rows as the trainer gets them.

    Attributes:
        table: input_ids and labels, a pyarrow.Table of lists.
        lengths: Tokens of each given row before anything was cut, shape (rows,).
        kept: Whether a given row is in the table, shape (rows,).
    """

    table: Any
    lengths: npt.NDArray[np.int64]
    kept: npt.NDArray[np.bool_]


def columns(encoded: Encoded, settings: Settings) -> Columns:
    """Label, cut and drop rows as SFTTrainer does.

    Raises:
        NotFastError: the template marks nothing of a row as the assistant's, which TRL refuses.
    """
    import pyarrow as pa

    lengths = np.diff(encoded.starts)
    place = np.arange(len(encoded.ids)) - np.repeat(encoded.starts[:-1], lengths)
    ids, labels = encoded.ids, np.where(_trained(encoded, place, settings), encoded.ids, _MASKED)
    bounds, kept = encoded.starts, np.ones(len(lengths), bool)
    if settings.max_length is not None and not settings.packing:
        limit = settings.max_length
        inside = place >= np.repeat(lengths - limit, lengths) if settings.keep_end else place < limit
        ids, labels = ids[inside], labels[inside]
        bounds = _bounds(np.minimum(lengths, limit))
        kept = _per_row(labels != _MASKED, bounds) > 0
        chosen = np.repeat(kept, np.diff(bounds))
        ids, labels, bounds = ids[chosen], labels[chosen], _bounds(np.diff(bounds)[kept])
    offsets = pa.array(bounds.astype(np.int32))
    lists = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (ids, labels.astype(np.int64))]
    return Columns(pa.table(lists, ["input_ids", "labels"]), lengths, kept)


def _trained(encoded: Encoded, place: npt.NDArray[np.int64], settings: Settings) -> npt.NDArray[np.bool_]:
    """Whether a token contributes to the loss, shape (tokens,)."""
    trained = np.ones(len(place), bool)
    if encoded.shared is not None and settings.completion_only:
        trained = place >= np.repeat(encoded.shared, np.diff(encoded.starts))
    if encoded.assistant is None:
        return trained
    if (_per_row(encoded.assistant, encoded.starts) == 0).any():
        raise NotFastError("the template marks nothing of a row as the assistant's")
    return trained & encoded.assistant


def _bounds(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)])


def _per_row(of_token: npt.NDArray[np.bool_], bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.diff(np.concatenate([[0], np.cumsum(of_token)])[bounds])


def finish(tables: list[Any], tokenizer: PreTrainedTokenizerBase, training: dict[str, Any]) -> Dataset:
    """The dataset of the rows in `tables`: packed and shuffled, where `training` says so, by TRL's own code."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.fingerprint import generate_random_fingerprint

    # The fingerprint names a dataset in caches; computing it would read all columns once more.
    dataset = Dataset(pa.concat_tables(tables), fingerprint=generate_random_fingerprint())
    # Rows that aren't packed are cut already.
    uncut = {} if arguments(training).packing else {"max_length": None}
    return prepare_dataset(dataset, tokenizer, {**training, **uncut})
