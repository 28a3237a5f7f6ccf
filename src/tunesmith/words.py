"""Counts in words: "1 row", "2 rows"."""

from __future__ import annotations

import string
from typing import Any, Final

_SHORT: Final = 120


def counted(count: int, noun: str) -> str:
    """A count with its noun, which takes an s unless the count is 1."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def lasting(seconds: float) -> str:
    """A time in words: "40 seconds", "12.5 minutes"; below two minutes in seconds."""
    return f"{seconds:.0f} seconds" if seconds < _SHORT else f"{seconds / 60:.1f} minutes"


class Agreeing(string.Formatter):
    """As str.format; a field may also choose words by a count: `{count:row has|rows have}`."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """The first words for 1, the others for every other count, where the field has two."""
        one, choice, many = format_spec.partition("|")
        if not choice:
            return str(super().format_field(value, format_spec))
        return one if str(value) == "1" else many
