"""Which token a character is in, from the number of bytes that each token stands for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .encoders import assistant_ranges
from .rendering import Span
from .settings import NotFastError

_POST_PROCESSORS = ("ByteLevel", "TemplateProcessing")


@dataclass(frozen=True)
class TokenBytes:
    """The bytes of tokens of a byte-level vocabulary.

    Attributes:
        widths: Number of bytes of each token, shape (tokens of the vocabulary,).
        before: Blanks it begins with that the tokenizer doesn't count to it, same shape.
        after: Blanks it ends with that the tokenizer doesn't count to it, same shape.
        keeps_first: A blank at the very start of a text does count.
    """

    widths: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    keeps_first: bool

    @classmethod
    def of(cls, words: Iterable[bytes], added: Collection[str], post_processor: dict[str, Any] | None) -> TokenBytes:
        """For the tokens that are merged (`words`), then those that are `added`, and tokenizer.json's `post_processor`.

        Raises:
            NotFastError: the post-processor may do something to offsets that this code doesn't know.
        """
        steps = [post_processor] if post_processor else []
        if steps and steps[0]["type"] == "Sequence":
            steps = steps[0]["processors"]
        strangers = [step["type"] for step in steps if step["type"] not in _POST_PROCESSORS]
        if strangers:
            raise NotFastError(f"its post-processor is {strangers[0]}")
        levels = [step for step in steps if step["type"] == "ByteLevel"]
        trims = any(step["trim_offsets"] for step in levels)
        if trims and any(token != token.strip() for token in added):
            raise NotFastError("an added token has blanks at its ends, and its post-processor trims them")
        words = [*words, *map(str.encode, added)]
        widths = _sizes(words)
        # Of the characters that stand for bytes only the one for the space counts as a blank.
        before = widths - _sizes([word.lstrip(b" ") for word in words]) if trims else 0 * widths
        after = widths - _sizes([word.rstrip(b" ") for word in words]) if trims else 0 * widths
        return cls(widths, before, after, keeps_first=trims and any(step["add_prefix_space"] for step in levels))

    def ends(self, tokens: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        """Where each of `tokens` ends in bytes, from 0 before the first, shape (len(tokens) + 1,)."""
        return np.concatenate([[0], np.cumsum(self.widths[tokens])])

    def assistant(
        self, tokens: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64], texts: list[str], spans: list[list[Span]]
    ) -> npt.NDArray[np.bool_]:
        """Which of `tokens` (shape (tokens,), rows from `starts`) lie in the spans of the rows' texts."""
        ends = self.ends(tokens)
        counts = [2 * len(row) for row in spans]
        places = np.repeat(ends[starts[:-1]], counts)
        places += np.array(
            [at for text, row in zip(texts, spans, strict=True) for at in _bytes_at(text, row)], np.int64
        )
        found = np.searchsorted(ends, places, "right") - 1
        inside = found < np.repeat(starts[1:], counts)
        held = found[inside]
        first, stop = ends[held] + self.before[tokens[held]], ends[held + 1] - self.after[tokens[held]]
        inside[inside] = (first <= places[inside]) & (places[inside] < stop)
        numbers = iter(np.where(inside, found - np.repeat(starts[:-1], counts), -1).tolist())
        mask = np.zeros(len(tokens), bool)
        for row, (start, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            ranges = [(_or_none(next(numbers)), _or_none(next(numbers))) for _ in spans[row]]
            for begin, stopped in assistant_ranges(ranges, end - start):
                mask[start + begin : start + stopped] = True
        return mask


def _or_none(number: int) -> int | None:
    return None if number < 0 else number


def _sizes(words: Sequence[bytes]) -> npt.NDArray[np.int64]:
    return np.array([len(word) for word in words], np.int64)


def _bytes_at(text: str, spans: list[Span]) -> list[int]:
    """Where the first and the last character of each span are, in bytes."""
    characters = [place for begin, end in spans for place in (begin, end - 1)]
    if any(place < 0 for place in characters):
        raise NotFastError("the assistant wrote nothing at the start of a text")
    return characters if text.isascii() else [len(text[:place].encode()) for place in characters]
