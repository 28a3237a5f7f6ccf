"""Texts to token ids and masks: by the tokenizers library for every tokenizer, as TRL does row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .rendering import Rendered


@dataclass(frozen=True)
class Encoded:
    """The tokens of some rows, end to end.

    Attributes:
        ids: Shape (tokens,).
        starts: Where each row starts, and the number of tokens as the last one, shape (rows + 1,).
        shared: How many tokens each row begins with that its prompt alone begins with too, shape (rows,).
        assistant: Whether the assistant wrote a token, shape (tokens,).
    """

    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    shared: npt.NDArray[np.int64] | None = None
    assistant: npt.NDArray[np.bool_] | None = None


class Encoder(Protocol):
    """Turns rendered rows into tokens."""

    name: str

    def encode(self, rendered: Rendered) -> Encoded:
        """The tokens of all rows, with `shared` where they have prompts and `assistant` where they have spans."""
        ...


class TokenizersEncoder:
    """Encodes whole batches with the tokenizers library."""

    name = "tokenizers"

    def __init__(self, backend: Any) -> None:
        """`backend` is a tokenizers.Tokenizer."""
        self._backend = backend
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False

    def encode(self, rendered: Rendered) -> Encoded:
        """See Encoder."""
        # Only encode_batch knows which token a character is in.
        encode = self._backend.encode_batch_fast if rendered.spans is None else self._backend.encode_batch
        rows = encode(rendered.texts, add_special_tokens=rendered.special)
        ids = [row.ids for row in rows]
        starts = np.cumsum([0, *map(len, ids)])
        flat = np.fromiter(chain.from_iterable(ids), np.int32, starts[-1])
        return Encoded(flat, starts, self._shared(rendered, ids), _assistant(rendered, rows, starts))

    def _shared(self, rendered: Rendered, ids: list[list[int]]) -> npt.NDArray[np.int64] | None:
        if rendered.prompts is None:
            return None
        prompts = self._backend.encode_batch_fast(rendered.prompts, add_special_tokens=rendered.special)
        return np.array([common(prompt.ids, whole) for prompt, whole in zip(prompts, ids, strict=True)], np.int64)


def _assistant(rendered: Rendered, rows: list[Any], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
    if rendered.spans is None:
        return None
    mask = np.zeros(starts[-1], bool)
    for row, spans, start in zip(rows, rendered.spans, starts.tolist(), strict=False):
        tokens = ((row.char_to_token(begin), row.char_to_token(end - 1)) for begin, end in spans)
        for first, end in assistant_ranges(tokens, len(row.ids)):
            mask[start + first : start + end] = True
    return mask


def assistant_ranges(tokens: Iterable[tuple[int | None, int | None]], length: int) -> Iterator[tuple[int, int]]:
    """The ranges of tokens that the assistant wrote, as Transformers' return_assistant_tokens_mask has them.

    Args:
        tokens: The token that each span's first character is in, and that of its last; None for a character in none.
        length: Tokens of the row.
    """
    for first, last in tokens:
        if first is None:
            return
        yield first, last + 1 if last else length


def common(first: Sequence[object], second: Sequence[object]) -> int:
    """How many leading items two sequences have in common."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next(index for index in range(length) if first[index] != second[index])
