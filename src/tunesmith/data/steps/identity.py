"""What a row is known by: the digest that equal rows share, and the side of the split that its key falls on."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from ..rows import Row
from ..shape import as_text
from ..split import prompt_of

SPLITS: Final = ("train", "eval", "test")
_SPACE: Final = 2**64


def canonical(value: Any) -> str:
    """A value as JSON with sorted keys; equal values have equal texts."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def digest(row: Row) -> bytes:
    """16 bytes that equal rows share.

    Raises:
        UnicodeEncodeError: a text of the row has half a surrogate pair, which no file can hold.
    """
    return hashlib.blake2b(canonical(row).encode(), digest_size=16).digest()


def split_key(prepared: Row, group: Any) -> str:
    """What decides a row's side: its group, or where it has none its prompt."""
    return f"prompt {prompt_of(prepared)}" if group is None else f"group {as_text(group)}"


def side(key: str, seed: int, *, held_out: float, test: float) -> str:
    """The split of all rows with this key: train, eval or test.

    It depends on key and seed alone, never on other rows: rows added later move none. The two fractions are taken from
    the two ends of the range of hashes, so that changing one leaves the other split as it was.
    """
    salt = seed.to_bytes(16, "little")
    number = int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest())
    if number < test * _SPACE:
        return "test"
    return "eval" if number >= (1 - held_out) * _SPACE else "train"
