"""Tokens and keys that were written into a recipe, where every log and every run folder would keep them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..records import Finding
from ..rules import finding

# The shapes that vendors give their tokens, which no path and no commit has.
# Source: the vendors' documentation and gitleaks' rules, read in November 2026.
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}"
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,}|glpat-[\w-]{20,}"
    r"|sk-(?=[\w-]*[0-9])(?=[\w-]*[A-Z])[\w-]{32,}|A[KS]IA[A-Z2-7]{16}\b|AIza[\w-]{35}|xox[abeoprs]-[\w-]{20,})",
    re.ASCII,
)
HIDDEN = "***"


def is_token(text: str) -> bool:
    """Whether a token or key of a known vendor stands in `text`."""
    return _TOKEN.search(text) is not None


def without_tokens(text: str) -> str:
    """The text with every token hidden."""
    return _TOKEN.sub(HIDDEN, text)


def written_tokens(values: Any, where: str, lines: dict[str, int]) -> list[Finding]:
    """H001 for each value or key of a recipe that looks like a token; the token itself is in no text."""
    found = []
    for path in _places(values, ()):
        key = ".".join(path)
        line = f" line {lines[key]}" if key in lines else ""
        found.append(finding("H001", f"{where}{line}", key=without_tokens(key) or "the recipe"))
    return found


def _places(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            deeper = (*path, str(key))
            if is_token(str(key)):
                yield deeper
            yield from _places(inner, deeper)
    elif isinstance(value, list):
        for inner in value:
            yield from _places(inner, path)
    elif isinstance(value, str) and is_token(value):
        yield path
