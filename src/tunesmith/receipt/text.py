"""Values of records as text for a report; all pure functions."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, Final

from ..records import Comparison, CostEstimate, Range

NONE = "\u2013"

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


def number(value: float | None, digits: int = 4, *, sign: str = "") -> str:
    """A number to so many significant digits, large ones without an exponent; `sign` as in format specifications."""
    if value is None:
        return NONE
    return f"{value:{sign},.0f}" if 10.0**digits <= abs(value) < 1e15 else f"{value:{sign}.{digits}g}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 as a percentage."""
    return NONE if share is None else f"{100 * share:.{digits}f} %"


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


_METRICS: Final = {
    "exact_match": "exact match",
    "loss": "held-out loss",
    "chosen_loss": "loss of chosen answers",
    "desirable_loss": "loss of desirable answers",
    "preference_accuracy": "preference accuracy",
    "reward_accuracy": "accuracy of implicit rewards",
    "reward_margin": "margin of implicit rewards",
    "score_margin": "margin of scores",
    "reward": "mean reward",
}
_SHARES: Final = ("exact_match", "preference_accuracy", "reward_accuracy")


def metric(comparison: Comparison) -> str:
    """A comparison's metric in words."""
    return _METRICS.get(comparison.metric, comparison.metric)


def score(comparison: Comparison, value: float) -> str:
    """A value of the comparison's metric, in its unit."""
    if comparison.metric == "perplexity":
        return f"{value:.3g}"
    return percent(value) if comparison.metric in _SHARES else number(value)


def change(comparison: Comparison, value: float) -> str:
    """A difference in the comparison's metric, with its sign."""
    if comparison.metric in _SHARES:
        return f"{100 * value:+.1f} points"
    if comparison.metric == "perplexity":
        return f"{value:+.3g}"
    return number(value, sign="+")


def interval(comparison: Comparison) -> str:
    """The comparison's confidence interval, or a dash."""
    found = comparison.interval
    if found is None:
        return NONE
    low, high = change(comparison, found.low).removesuffix(" points"), change(comparison, found.high)
    return f"{low} to {high}"


def p_value(value: float | None) -> str:
    """A p-value, not more exact than anybody needs."""
    if value is None:
        return NONE
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"
