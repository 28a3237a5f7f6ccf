"""A byte-level BPE vocabulary as tiktoken takes it, and the proof that both merge alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .settings import NotFastError

_PLAIN_BYTES: Final = [*range(33, 127), *range(161, 173), *range(174, 256)]
_UNSET: Final = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")


def _byte_of_character() -> dict[str, int]:
    """The characters that stand for bytes in byte-level vocabularies, as GPT-2's bytes_to_unicode has them."""
    others = [byte for byte in range(256) if byte not in set(_PLAIN_BYTES)]
    plain = {chr(byte): byte for byte in _PLAIN_BYTES}
    return plain | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTES: Final = _byte_of_character()


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their merges, bytes first.

    Attributes:
        ranks: The bytes of a token -> its place in the order.
        ids: The tokens' ids in that order, shape (len(ranks),).
    """

    ranks: dict[bytes, int]
    ids: npt.NDArray[np.int32]


def read_vocabulary(model: dict[str, Any], added: set[str], bpe: Any) -> Vocabulary:
    """The tokens that merging can give.

    tiktoken merges the two neighbours that make up the token of the lowest rank, and looks a whole word up before it
    merges. Tokenizers merges by pairs. If each token's bytes, merged by pairs, give this token, then both merge alike:
    take the first step at which tiktoken would join two neighbours that aren't a pair. Up to here both did the same,
    within the joined bytes the same as with these bytes by themselves; so by themselves they end as two tokens, not as
    one. Where a token has several pairs, ranks must agree as well: they follow each other in the list of merges.

    Args:
        model: tokenizer.json's `model`.
        added: Contents of the added tokens, which are split off before.
        bpe: The backend's model (tokenizers.models.BPE).

    Raises:
        NotFastError: the model isn't plain byte-level BPE, or the two wouldn't merge alike.
    """
    if model["type"] != "BPE" or any(model.get(name) for name in _UNSET):
        raise NotFastError("its model isn't plain BPE")
    vocabulary: dict[str, int] = model["vocab"]
    if not _BYTES.keys() <= vocabulary.keys():
        raise NotFastError("its vocabulary lacks single bytes")
    tokens = [*_BYTES, *_merged(model["merges"])]
    if model["ignore_merges"] and set(vocabulary) - set(tokens) - added:
        raise NotFastError("its vocabulary has words that no merge gives")
    ids = np.array([vocabulary[token] for token in tokens], np.int32)
    _check_each_gives_itself(tokens, ids, bpe)
    return Vocabulary({to_bytes(token): rank for rank, token in enumerate(tokens)}, ids)


def to_bytes(token: str) -> bytes:
    """The bytes of a token of a byte-level vocabulary."""
    return bytes([_BYTES[character] for character in token])


def _merged(merges: Sequence[Sequence[str]]) -> list[str]:
    """The tokens that merges give, in their order."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    before = None
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        token = left + right
        if token in pairs and token != before:
            raise NotFastError("merges of one token don't follow each other")
        pairs.setdefault(token, []).append((left, right))
        before = token
    if any(len(found) > 1 and _overlap(found) for found in pairs.values()):
        raise NotFastError("pairs of one token overlap, so that their order matters")
    return list(pairs)


def _overlap(pairs: list[tuple[str, str]]) -> bool:
    """Whether three neighbours can be joined to the same token from the left and from the right."""
    return not {right for _, right in pairs}.isdisjoint(left for left, right in pairs if left != right)


def _check_each_gives_itself(tokens: list[str], ids: npt.NDArray[np.int32], bpe: Any) -> None:
    from tokenizers import Tokenizer

    bare = Tokenizer(bpe)
    for token, encoding in zip(ids.tolist(), bare.encode_batch_fast(tokens, add_special_tokens=False), strict=True):
        if encoding.ids != [token]:
            raise NotFastError("its vocabulary has words that no merge gives")
