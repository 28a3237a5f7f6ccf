"""The pre-tokenizers of byte-level BPE whose splitting can be done by a regex that both engines read alike."""

from __future__ import annotations

import re
from typing import Any, Final

from .settings import NotFastError

_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What a ByteLevel step with use_regex splits by."""

_SHARED: Final = r"\\[pP]\{[A-Z][a-z]?\}|\\[sSdDrnt]|\\[^\w\s]"
_CONSTRUCTS: Final = re.compile(
    rf"""
    (?: {_SHARED}
      | [^\\\[\](){{}}|?*+^$.]                       # characters that stand for themselves
      | \[\^? (?: {_SHARED} | [^\\\[\]&~] )+ \]      # classes, without nesting and set operations
      | \((?: \?(?: : | i: | ! | = ) | (?!\?) ) | \) | \|    # groups, looking ahead, alternatives
      | (?: [?*+] | \{{\d+(?:,\d*)?\}} ) (?![?+])    # greedy quantifiers
    )+""",
    re.VERBOSE,
)
"""The constructs that Oniguruma (tokenizers) and fancy-regex (tiktoken) take to mean the same."""


def pattern(pre_tokenizer: dict[str, Any] | None) -> str:
    """The regex that splits text into words, from tokenizer.json's `pre_tokenizer`.

    Raises:
        NotFastError: it isn't ByteLevel, or it splits in a way that no such regex describes.
    """
    steps = [pre_tokenizer or {}]
    if steps[0].get("type") == "Sequence":
        steps = steps[0]["pretokenizers"]
    *splits, last = steps or [{}]
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        raise NotFastError("its pre-tokenizer isn't ByteLevel without a prefix space")
    patterns = [_of_split(step) for step in splits] + ([_GPT2] if last["use_regex"] else [])
    if len(patterns) != 1:
        raise NotFastError(f"it splits text in {len(patterns)} steps")
    if not _CONSTRUCTS.fullmatch(patterns[0]):
        raise NotFastError("its regex has constructs whose meaning may differ between engines")
    return patterns[0]


def _of_split(step: dict[str, Any]) -> str:
    regex = step.get("pattern", {}).get("Regex")
    if step.get("type") != "Split" or regex is None or step["behavior"] != "Isolated" or step["invert"]:
        raise NotFastError(f"its pre-tokenizer has a step of another kind ({step.get('type')})")
    return str(regex)
