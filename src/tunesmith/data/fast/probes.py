"""Texts on which two encoders must agree before one may stand in for the other."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import numpy as np

from .encoders import Encoder
from .rendering import Rendered

_TEXTS: Final = (
    "",
    " ",
    "   leading and trailing   ",
    "a  b   c    d     e\t\tf \t g",
    "\n\n\n one\r\n two \n\n  three\n",
    "I'm you'LL they'Ve it'\u017f 'S don't 'tis rock'n'roll",
    "1 12 123 1234 12345 3.14159 1e-5 0x1F 1,000,000 ½ ² Ⅷ ٣٤ ๒",
    "def f(x, *args): return {**x, 'k': [1, 2]}  # note\n\tif a != b: pass;;",
    '{"key": "value", "n": -1.5e3, "deep": {"list": [null, true]}}',
    "https://example.org/a_b-c?q=1&r=%20#x <b>bold</b> &amp; \\n \\u0041",
    "naïve café Straße Ελληνικά русский עברית العربية हिन्दी ไทย 日本語 한국어 粵語",
    "e\u0301 n\u0303o \u1100\u1161 \u0958 \u2126 \u212b \ufb01",
    "🙂 👩‍👩‍👧 🏳️‍🌈 🇫🇷 ✔️ \U0001f9ff",
    "\u00a0no-break\u2003em\u200bzero\ufeffbom\u0085next\u2028line\u3000ideographic\u180e",
    "\x00\x01\x07\x1b[31m\x7f\x9f \ufffd\ue000\U0010ffff",
    "<|im_start|> <|im_end|><|endoftext|> <s></s> [INST] <think>\n</think> <|im_start |> <|im_",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ======= ------- ....... ((((())))) !!!??? \n\n\n\n\n\n\n\n",
    "supercalifragilisticexpialidocious antidisestablishmentarianism XMLHttpRequest snake_case_name",
)


def same_probes(encoder: Encoder, exact: Encoder) -> bool:
    """Whether two encoders give the same for texts made to upset tokenizers, between and around added tokens too."""
    texts = [*_TEXTS, "".join(_TEXTS), *("".join(pair) for pair in pairwise(_TEXTS))]
    spans = [[(start, start + 3) for start in range(0, len(text) - 3, 5)] for text in texts]
    return _same(Rendered(texts, special=False, spans=spans), encoder, exact) and _same(
        Rendered(texts, special=True, prompts=[text[: len(text) // 2] for text in texts]), encoder, exact
    )


def same_characters(characters: Iterable[str], encoder: Encoder, exact: Encoder) -> bool:
    """Whether two encoders put each character into the same class: letters, digits, blanks and others.

    A character that this Python's Unicode doesn't know yet never passes: a newer one may compose it.
    """
    ordered = sorted(characters)
    if any(unicodedata.category(character) == "Cn" for character in ordered):
        return False
    return _same(Rendered([f"a{c}b {c}{c} 1{c}2 '{c}s\n{c} \t{c}.{c}" for c in ordered], special=False), encoder, exact)


def _same(rendered: Rendered, encoder: Encoder, exact: Encoder) -> bool:
    ours, theirs = encoder.encode(rendered), exact.encode(rendered)
    names = ("ids", "starts", "shared", "assistant")
    return all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in names)
