"""The patterns of patterns.yaml, compiled."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib.resources import files

import yaml


@dataclass(frozen=True)
class Patterns:
    """All patterns.

    Attributes:
        refusal: Matches the beginning of an answer that refuses.
        placeholders: "strict", never meant, and "loose", wanted in letters.
        markup: What chat templates write around turns, in RE2's syntax too.
        secrets: Keys and tokens: kind and pattern.
        first_looks: What texts contain that are worth a closer look, in RE2's syntax.
    """

    refusal: re.Pattern[str]
    placeholders: dict[str, re.Pattern[str]]
    markup: re.Pattern[str]
    secrets: list[tuple[str, re.Pattern[str]]]
    first_looks: dict[str, str]


@functools.cache
def patterns() -> Patterns:
    """Read and compile them."""
    table = yaml.safe_load(files(__package__).joinpath("patterns.yaml").read_text(encoding="utf-8"))
    return Patterns(
        re.compile(r"\s*" + _either([_joined(parts) for parts in table["refusals"].values()]), re.IGNORECASE),
        {name: _any_of(some) for name, some in table["placeholders"].items()},
        re.compile("(?m)" + "|".join(f"(?:{one})" for one in table["markup"])),
        [(kind, re.compile(pattern)) for kind, pattern in table["secrets"]],
        table["first_looks"],
    )


def _joined(parts: list[str | list[str]]) -> str:
    return "".join(part if isinstance(part, str) else _either(part) for part in parts)


def _either(some: list[str]) -> str:
    return "(?:" + "|".join(some) + ")"


def _any_of(some: list[str]) -> re.Pattern[str]:
    # A flag inside a pattern may stand at its beginning only, so it is bound to its own alternative.
    return re.compile("|".join(f"(?i:{one[4:]})" if one.startswith("(?i)") else f"(?:{one})" for one in some))
