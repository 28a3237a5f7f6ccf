"""How likely held-out texts and answers are: the measure of sft and clm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..progress import Progress
from ..records import Comparison
from .comparisons import compare_losses, compare_perplexities
from .findings import broken
from .measure import row_losses
from .outcome import Arm, Outcome
from .rows import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Likelihood:
    """Loss and perplexity at the tokens that training trains, as the trainer itself prepares and masks the rows."""

    rows: Sequence[Encoded]
    batch_size: int
    split: str

    def take(self, arm: Arm, model: PreTrainedModel, progress: Progress) -> list[float]:
        """Nats per row."""
        return row_losses(
            model, self.rows, batch_size=self.batch_size, label=f"{arm}: held-out loss", progress=progress
        )

    def compare(self, base: list[float], tuned: list[float]) -> Outcome:
        """Loss per trained token, and perplexity unless it is huge."""
        found = broken("loss", self.split, base, tuned)
        return Outcome(findings=found) if found else Outcome(self._compared(base, tuned))

    def _compared(self, base: list[float], tuned: list[float]) -> list[Comparison]:
        tokens = [len(row.positions) for row in self.rows]
        loss = compare_losses(base, tuned, tokens)
        return [loss, *compare_perplexities(loss, base, tuned, tokens)]
