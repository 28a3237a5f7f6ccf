"""Values of records as text for a report; all pure functions."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from ..records import CostEstimate, Range
from ..records.units import NONE

# Characters that a terminal or browser obeys rather than shows: controls, direction marks and overrides, separators,
# zero-width and tag characters, lone surrogates. Joiners (U+200C, U+200D) stay: scripts and emoji are spelt with them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(value: str) -> str:
    """The text with characters that hide or reorder text spelt out, as in ⟨U+202E⟩."""
    return _INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", value)


def shorten(value: str, limit: int = 600) -> str:
    """Long text without its middle, and how much is left out."""
    if len(value) <= limit:
        return value
    head, tail = value[: limit * 2 // 3], value[-limit // 3 :]
    return f"{head} […{len(value) - len(head) - len(tail):,} characters…] {tail}"


def newlines(value: str) -> str:
    """Text of tokens with its line ends marked; the last one isn't broken, so that a span's end stays on its line."""
    return value.replace("\n", "↵\n").removesuffix("\n")


def count(value: int | float | None) -> str:
    """A whole number with separators."""
    return NONE if value is None else f"{value:,.0f}"


def size(value: int | None) -> str:
    """Bytes in binary units."""
    if value is None:
        return NONE
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: float | None) -> str:
    """Seconds as hours, minutes and seconds, in the two largest units."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def between(seconds: Range | None) -> str:
    """An interval of durations."""
    return NONE if seconds is None else f"{duration(seconds.low)} to {duration(seconds.high)}"


def dollars(cost: CostEstimate) -> str:
    """The interval of a cost."""
    return f"{cost.total.low:,.2f} to {cost.total.high:,.2f} {cost.currency}"


def moment(value: str) -> str:
    """An ISO 8601 time in UTC, to the second, as people read it."""
    return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plain(value: Any) -> str:
    """Any value of a plan as text: strings as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
