"""Shares of a few questions, and whether a loss of so many can be ruled out at all."""

from __future__ import annotations

from collections.abc import Sequence

from ...records import Comparison
from ..comparisons import compare_shares, non_inferior


def kept_share(metric: str, base: Sequence[bool], tuned: Sequence[bool], margin: float) -> Comparison:
    """The shares, and whether that of tuned is kept, where so many questions can show it.

    How large a loss stays open even where all answers are as they were depends on their number and on the base's share:
    with 64, from 3.0 points at a half to 6.2 near none or all; with 20, from 9.0 to 17.1. Where that is the margin or
    more, whether the share is kept isn't judged: no answers could show it.
    """
    compared = compare_shares(metric, base, tuned)
    at_best = non_inferior(compare_shares(metric, base, base), margin)
    return non_inferior(compared, margin) if at_best.kept else compared
