"""Rows to the dataset that the trainer gets, with the check against TRL's own preparation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ...records.data import TrainedLayout
from ..prepare import is_conversational
from ..rows import Row
from ..trl_preparation import as_dataset, prepare_dataset
from .columns import Columns, columns, finish
from .encoders import Encoder, TokenizersEncoder
from .probes import same_characters, same_probes
from .rendering import render
from .settings import NotFastError, Settings, check_rows, check_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

EncoderName = Literal["tiktoken", "tokenizers"]

_BATCH: Final = 1000
_COMPARED: Final = 12
"""Rows chosen by chance that are compared with TRL's own preparation, besides the first and the longest."""
_WORTH_BUILDING: Final = 80
"""Characters of data per token of the vocabulary from which on tiktoken saves more time than building it takes."""


@dataclass(frozen=True)
class FastResult:
    """What the fast path made of rows; or why it made nothing of them.

    Attributes:
        dataset: The columns that the trainer reads (input_ids, labels, in packed datasets seq_lengths), with the
            values, the types and the order of rows that SFTTrainer gives them; None if the fast path wasn't taken.
        reason: Why it wasn't taken; None if it was.
        encoder: The library that tokenized; empty if none did.
        slower: Why it wasn't tiktoken, where that would have been worth it; None otherwise.
        lengths: Tokens of each given row before anything was cut, shape (rows,).
        kept: Whether a given row is in the dataset, shape (rows,); before packing.
    """

    dataset: Dataset | None
    reason: str | None = None
    encoder: str = ""
    slower: str | None = None
    lengths: npt.NDArray[np.int64] | None = None
    kept: npt.NDArray[np.bool_] | None = None


def prepare_fast(
    rows: Sequence[Row],
    layout: TrainedLayout,
    tokenizer: PreTrainedTokenizerBase,
    training: dict[str, Any],
    *,
    encoder: EncoderName | None = None,
    seed: int = 42,
) -> FastResult:
    """Tokenize, mask, cut and pack rows as the installed TRL's SFTTrainer would, several times as fast.

    A sample of the rows (the first, the longest, some by chance) goes through TRL's own preparation too. If anything
    differs, or the rows, the tokenizer or the arguments are of a kind that isn't known here, there is no dataset but a
    reason: TRL's own preparation is then the one to use. Faults of the rows (a template that refuses them) are such a
    reason too, so that TRL reports them as ever.

    Args:
        rows: Prepared rows (see data.prepare).
        layout: Their layout.
        tokenizer: The model's, with its chat template.
        training: Arguments of SFTConfig; those left out have its defaults.
        encoder: The library to tokenize with; left out, the faster one for so many rows. tokenizers takes every
            tokenizer; tiktoken byte-level BPE, and gives way to tokenizers when ids differ.
        seed: Of the sample.
    """
    try:
        check_tokenizer(tokenizer)
        check_rows(rows, layout)
        settings = Settings.of(training, tokenizer, conversational=is_conversational(rows[0]))
        return _Job(rows, tokenizer, settings).run(encoder, training, seed)
    except NotFastError as refusal:
        return FastResult(None, str(refusal))
    except Exception as error:
        # Templates raise whatever Jinja raises, pyarrow what it likes: the slow path will say it to the user.
        return FastResult(None, f"{type(error).__name__}: {error}")


class _Job:
    """One call of `prepare_fast`."""

    def __init__(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, settings: Settings) -> None:
        self._rows = rows
        self._tokenizer = tokenizer
        self._settings = settings
        self._exact = TokenizersEncoder(tokenizer.backend_tokenizer)
        self._sizes = [_characters(row) for row in rows]

    def run(self, wanted: EncoderName | None, training: dict[str, Any], seed: int) -> FastResult:
        slower = None
        if wanted == "tiktoken" or (wanted is None and self._is_worth_building()):
            try:
                return self._with(self._tiktoken(), training, seed)
            except NotFastError as refusal:
                slower = str(refusal)
        return replace(self._with(self._exact, training, seed), slower=slower)

    def _with(self, encoder: Encoder, training: dict[str, Any], seed: int) -> FastResult:
        self._compare(encoder, training, seed)
        parts = list(self._parts(self._rows, encoder))
        kept = np.concatenate([part.kept for part in parts])
        if not kept.any():
            raise NotFastError("no row is left to train on")
        return FastResult(
            finish([part.table for part in parts], self._tokenizer, training),
            encoder=encoder.name,
            lengths=np.concatenate([part.lengths for part in parts]),
            kept=kept,
        )

    def _is_worth_building(self) -> bool:
        return sum(self._sizes) > _WORTH_BUILDING * len(self._tokenizer)

    def _tiktoken(self) -> Encoder:
        from .byte_pairs import BytePairEncoder

        encoder = BytePairEncoder(self._tokenizer.backend_tokenizer)
        if not same_probes(encoder, self._exact):
            raise NotFastError("its ids differ for texts made to upset tokenizers")
        return encoder

    def _parts(self, rows: Sequence[Row], encoder: Encoder) -> Iterator[Columns]:
        """The columns of `rows`, batch by batch."""
        strange: set[str] = set()
        for start in range(0, len(rows), _BATCH):
            rendered = render(rows[start : start + _BATCH], self._tokenizer, self._settings)
            strange.update(*(text for text in rendered.texts if not text.isascii()))
            yield columns(encoder.encode(rendered), self._settings)
        if encoder is not self._exact and not same_characters(strange, encoder, self._exact):
            raise NotFastError("its ids differ for a character of the rows")

    def _compare(self, encoder: Encoder, training: dict[str, Any], seed: int) -> None:
        """Hold a sample of the rows against TRL's own preparation of them."""
        everything = range(len(self._rows))
        chosen = {0, max(everything, key=self._sizes.__getitem__)}
        chosen |= set(random.Random(seed).sample(everything, min(_COMPARED, len(self._rows))))
        sample = [self._rows[row] for row in sorted(chosen)]
        training = {**training, "shuffle_dataset": False}
        theirs = prepare_dataset(as_dataset(sample), self._tokenizer, training)
        ours = finish([part.table for part in self._parts(sample, encoder)], self._tokenizer, training)
        for name, feature in ours.features.items():
            if theirs.features[name] != feature or theirs[name][:] != ours[name][:]:
                raise NotFastError(f"{name} differs from TRL's own preparation")


def _characters(row: Row) -> int:
    """Number of characters that a row says, about."""
    values = [value if isinstance(value, list) else [{"content": value}] for value in row.values()]
    return sum(len(message.get("content") or "") for messages in values for message in messages)
