"""What a measure is: taken of both models on the same held-out rows, then compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..data.quality.private import without_secrets
from ..progress import Progress
from ..records import ChangedRow, Comparison, Finding

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Arm = Literal["base", "tuned"]

KEPT_CHANGES = 20
KEPT_CHARACTERS = 500


@dataclass(frozen=True)
class Outcome:
    """What a measure says of tuned against base.

    Attributes:
        comparisons: Metric by metric.
        findings: What is wrong with model, rows or measure; the verdict on the primary metric isn't among them.
        changed: Every row on which one of the models is right and the other isn't.
        stop_rates: Of base and tuned, the share of answers that ended by themselves.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    changed: list[ChangedRow] = field(default_factory=list)
    stop_rates: tuple[float, float] | None = None


class Measure(Protocol):
    """One measure of a model on held-out rows. What `take` gives of either model is for `compare`."""

    def take(self, arm: Arm, model: PreTrainedModel, progress: Progress) -> Any:
        """Measure one model; `progress` is told of each batch."""

    def compare(self, base: Any, tuned: Any) -> Outcome:
        """Compare what was taken of both."""


def changed_row(row: int, prompt: str, expected: str, base: str, tuned: str, *, fixed: bool) -> ChangedRow:
    """A changed row as it is kept: without secrets, and cut so that a report of many stays readable."""
    shown = (shortened(without_secrets(text)) for text in (prompt, expected, base, tuned))
    names = ("prompt", "expected", "base", "tuned")
    return ChangedRow(row=row, change="fixed" if fixed else "broken", **dict(zip(names, shown, strict=True)))


def first_changes(changed: list[ChangedRow]) -> list[ChangedRow]:
    """The first of the fixed rows and of the broken ones."""
    kinds = ([row for row in changed if row.change == kind] for kind in ("fixed", "broken"))
    return [row for kind in kinds for row in kind[:KEPT_CHANGES]]


def shortened(text: str) -> str:
    """Text without what goes beyond `KEPT_CHARACTERS`."""
    return text if len(text) <= KEPT_CHARACTERS else text[: KEPT_CHARACTERS - 1] + "…"
