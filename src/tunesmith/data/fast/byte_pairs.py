"""Byte-level BPE by tiktoken, built from the same merges: several times as fast as the tokenizers library."""

from __future__ import annotations

import json
import re
import unicodedata
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .encoders import Encoded, TokenizersEncoder, common
from .offsets import TokenBytes
from .rendering import Rendered
from .settings import NotFastError
from .split import pattern
from .vocabulary import read_vocabulary

_REMEMBERED: Final = 4096
"""Pieces of text whose tokens are kept: headers of turns, system prompts."""
_NEVER: Final = "\U0010fffd\U0010fffe"
"""tiktoken wants a special token; it isn't asked to look for any."""


class BytePairEncoder:
    """Splits texts at added tokens, and has tiktoken encode what lies between.

    It works with ranks, the numbers that tiktoken gives, and translates them to ids at last.
    """

    name = "tiktoken"

    def __init__(self, backend: Any) -> None:
        """`backend` is a tokenizers.Tokenizer.

        Raises:
            NotFastError: its ids can't be had from tiktoken, and why.
        """
        described = json.loads(backend.to_str())
        added = _added(described["added_tokens"], described["normalizer"])
        vocabulary = read_vocabulary(described["model"], set(added), backend.model)
        self._composes = described["normalizer"] is not None
        self._exact = TokenizersEncoder(backend)
        self._ids = np.concatenate([vocabulary.ids, np.array([*added.values()], np.int32)])
        rank_of = {token: rank for rank, token in enumerate(self._ids.tolist())}
        if len(rank_of) < len(self._ids):
            raise NotFastError("an added token is in its merges too")
        self._special = {content: rank_of[token] for content, token in added.items()}
        self._before, self._after = ([rank_of.get(token, -1) for token in ids] for ids in _around(backend))
        if -1 in (*self._before, *self._after):
            raise NotFastError("it adds a token that isn't among its added tokens")
        self._bytes = TokenBytes.of(vocabulary.ranks, added, described["post_processor"])
        longest_first = sorted(map(re.escape, added), key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(longest_first) or '(?!)'})").split
        self._encode = _engine(pattern(described["pre_tokenizer"]), vocabulary.ranks)

    def encode(self, rendered: Rendered) -> Encoded:
        """See Encoder.

        Raises:
            NotFastError: the regex leaves out a part of a text.
            UnicodeEncodeError: a text isn't Unicode.
        """
        texts = [self._pieces(text) for text in rendered.texts]
        ranks = array("I")
        starts, shared = [0], []
        for row, pieces in enumerate(texts):
            at = self._append(ranks, pieces, special=rendered.special)
            if rendered.prompts is not None:
                prompt = self._pieces(rendered.prompts[row])
                shared.append(self._common(prompt, pieces, at, ranks, special=rendered.special) - starts[-1])
            starts.append(len(ranks))
        tokens, bounds = np.array(ranks, np.uint32), np.array(starts, np.int64)
        self._check_nothing_is_lost(texts, tokens, bounds, special=rendered.special)
        return Encoded(
            self._ids[tokens],
            bounds,
            None if rendered.prompts is None else np.array(shared, np.int64),
            None if rendered.spans is None else self._assistant(rendered, texts, tokens, bounds),
        )

    def _append(self, ranks: array[int], pieces: Sequence[str], *, special: bool) -> list[int]:
        """Put a row's tokens behind `ranks`. Returns where each of its pieces begins, and where the last one ends."""
        if special:
            ranks.extend(self._before)
        at = []
        for number, piece in enumerate(pieces):
            at.append(len(ranks))
            if number % 2:
                ranks.append(self._special[piece])
            elif piece:
                ranks.extend(self._encode(piece))
        at.append(len(ranks))
        if special:
            ranks.extend(self._after)
        return at

    def _common(
        self, prompt: Sequence[str], pieces: Sequence[str], at: Sequence[int], ranks: array[int], *, special: bool
    ) -> int:
        """Where in `ranks` the last row, of `pieces`, ceases to be as its prompt by itself is.

        Added tokens separate: pieces that are equal have equal tokens, whatever follows.
        """
        last = len(prompt) - 1
        same = last if prompt[:last] == pieces[:last] else common(prompt, pieces)
        rest = array("I")
        self._append(rest, prompt[same:] if same % 2 == 0 else ["", *prompt[same:]], special=False)
        if special:
            rest.extend(self._after)
        begin = at[same]
        return begin + common(rest, ranks[begin : begin + len(rest)])

    def _pieces(self, text: str) -> list[str]:
        """Text, added token, text, ..., text; composed as the tokenizer does it where it does."""
        pieces = self._split(text)
        if self._composes and not (text.isascii() or unicodedata.is_normalized("NFC", text)):
            pieces[::2] = [unicodedata.normalize("NFC", piece) for piece in pieces[::2]]
        return pieces

    def _check_nothing_is_lost(
        self, texts: list[list[str]], tokens: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64], *, special: bool
    ) -> None:
        """Refuse when tokens haven't as many bytes as the texts: tiktoken drops what the regex doesn't match."""
        around = self._bytes.widths[[*self._before, *self._after]].sum() if special else 0
        sizes = np.array([sum(map(_size, pieces)) for pieces in texts], np.int64)
        if not np.array_equal(np.diff(self._bytes.ends(tokens)[starts]), sizes + around):
            raise NotFastError("its regex leaves out a part of a text")

    def _assistant(
        self, rendered: Rendered, texts: list[list[str]], tokens: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        spans = rendered.spans or []
        mask = self._bytes.assistant(tokens, starts, rendered.texts, spans)
        for row, text in enumerate(rendered.texts):
            # In a text that was composed, or with a blank at its start, widths don't tell where a character is.
            if "".join(texts[row]) != text or (self._bytes.keeps_first and text.startswith(" ")):
                alone = self._exact.encode(Rendered([text], special=False, spans=[spans[row]]))
                mask[starts[row] : starts[row + 1]] = alone.assistant
        return mask


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _engine(regex: str, ranks: dict[bytes, int]) -> Any:
    import tiktoken

    try:
        engine = tiktoken.Encoding(
            "tunesmith", pat_str=regex, mergeable_ranks=ranks, special_tokens={_NEVER: len(ranks)}
        )
    except ValueError as error:
        raise NotFastError(f"tiktoken can't read its regex: {error}") from error
    return lru_cache(_REMEMBERED)(engine.encode_ordinary)


def _added(tokens: list[dict[str, Any]], normalizer: dict[str, Any] | None) -> dict[str, int]:
    """The added tokens that text is split at first, content -> id."""
    if normalizer is not None and normalizer["type"] != "NFC":
        raise NotFastError(f"its normalizer is {normalizer['type']}")
    if any(token["single_word"] or token["lstrip"] or token["rstrip"] for token in tokens):
        raise NotFastError("an added token takes the blanks around it, or stands for whole words")
    kinds = {token["normalized"] for token in tokens}
    if len(kinds) > 1 or (True in kinds and normalizer is not None):
        raise NotFastError("an added token is looked for after normalizing")
    return {token["content"]: token["id"] for token in tokens}


def _around(backend: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and behind a plain text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise NotFastError("what it adds to a text can't be told from the text")
