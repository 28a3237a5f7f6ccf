"""What preferences and marked answers teach besides what they mean to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...rules import finding
from .texts import Said
from .view import Outcome, View

_BIAS_SHARE, _BIAS_RATIO, _BIAS_P = 0.65, 1.2, 0.001
_UNEVEN = 3


@dataclass(frozen=True)
class LengthBias:
    """How chosen answers compare with rejected ones in length.

    Attributes:
        pairs: Pairs of different lengths.
        longer: Of them, those whose chosen answer is the longer one.
        ratio: Median of chosen length by rejected length, over all pairs.
        p: Chance of a share as uneven when length doesn't matter (two-sided sign test).
    """

    pairs: int
    longer: int
    ratio: float
    p: float

    @property
    def share(self) -> float:
        """Share of the pairs whose chosen answer is the longer one; a half when there are none."""
        return self.longer / self.pairs if self.pairs else 0.5


def length_bias(rows: Sequence[Said]) -> LengthBias:
    """Compare lengths, in characters, over all rows with a rejected answer; there must be one."""
    import numpy as np
    from scipy.stats import binomtest

    lengths = [(sum(map(len, row.answers)), len(row.rejected)) for row in rows if row.rejected is not None]
    different = [(chosen, rejected) for chosen, rejected in lengths if chosen != rejected]
    longer = sum(chosen > rejected for chosen, rejected in different)
    ratio = float(np.median([max(chosen, 1) / max(rejected, 1) for chosen, rejected in lengths]))
    p = float(binomtest(longer, len(different)).pvalue) if different else 1.0
    return LengthBias(len(different), longer, ratio, p)


def contradictions(rows: Sequence[Said]) -> list[int]:
    """Numbers of rows that prefer, or mark as good, what an earlier row with the same prompt doesn't.

    For preferences: the same two answers the other way round. For marked answers: the same answer marked otherwise.
    """
    seen: set[tuple[str, str, str | None, bool | None]] = set()
    found = []
    for number, row in enumerate(rows):
        answer = "\n".join(row.answers)
        better, worse = (answer, None) if row.rejected is None else (row.rejected, answer)
        if (row.prompt, better, worse, None if row.label is None else not row.label) in seen:
            found.append(number)
        seen.add((row.prompt, answer, row.rejected, row.label))
    return found


def check_pairs(view: View) -> Outcome:
    """D035 for a bias in length; nothing where nothing is rejected."""
    pairs = [(number, row) for number, row in enumerate(view.rows) if row.rejected is not None]
    if not pairs:
        return Outcome()
    bias = length_bias([row for _, row in pairs])
    found = Outcome(
        {
            "chosen_longer_share": round(bias.share, 4),
            "chosen_to_rejected_length": round(bias.ratio, 4),
        }
    )
    uneven = max(bias.share, 1 - bias.share) >= _BIAS_SHARE and max(bias.ratio, 1 / bias.ratio) >= _BIAS_RATIO
    if uneven and bias.p < _BIAS_P:
        longer, share = ("longer", bias.share) if bias.share > 0.5 else ("shorter", 1 - bias.share)
        percent, ratio = f"{100 * share:.0f}", f"{bias.ratio:.2g}"
        details: dict[str, Any] = {"percent": percent, "total": f"{bias.pairs:,}", "longer": longer, "ratio": ratio}
        found.findings.append(finding("D035", view.where, **details))
    return found


def check_labels(view: View) -> Outcome:
    """D036 where one label is three times as frequent as the other, D042 for contradictions."""
    judged = [number for number, row in enumerate(view.rows) if row.rejected is not None or row.label is not None]
    if not judged:
        return Outcome()
    crossed = contradictions(view.rows)
    found = Outcome({"contradictions": len(crossed)})
    if crossed:
        found.findings.append(finding("D042", view.where, **view.named(crossed)))
    good, bad = (sum(row.label is label for row in view.rows) for label in (True, False))
    if good + bad:
        found.figures["desirable_share"] = round(good / (good + bad), 4)
    if max(good, bad) > _UNEVEN * min(good, bad):
        total = f"{good + bad:,}"
        found.findings.append(
            finding("D036", view.where, good=f"{good:,}", bad=f"{bad:,}", total=total, advice=_advice(good, bad))
        )
    return found


def _advice(good: int, bad: int) -> str:
    """How to weight the rarer side: the middle of the range that TRL asks for, 1:1 to 4:3 in favour of the good."""
    if not good or not bad:
        return f"Add answers that are marked as {'bad' if good else 'good'}."
    if good > bad:
        return f"Set `training: {{undesirable_weight: {good / bad / 1.15:.2f}}}`."
    return f"Set `training: {{desirable_weight: {bad / good * 1.15:.2f}}}`."
