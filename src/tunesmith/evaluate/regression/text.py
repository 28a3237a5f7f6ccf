"""How likely neutral text is: a model that learnt its task alone finds everything else less likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...progress import Progress
from ...rules import finding
from ..comparisons import compare_losses, non_inferior
from ..findings import broken
from ..measure import row_losses
from ..outcome import Outcome
from ..rows import Encoded
from ..statistics import ROWS_NEEDED
from ..subject import Local
from .tables import VERSION, table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GUESSED = 8
"""Bits per byte of a model that knows nothing, to whom all 256 bytes are as likely: with more, there is no skill."""


def passages() -> list[str]:
    """The texts of passages.yaml: several subjects, ten languages, some code."""
    return [text for _language, _subject, text in table("passages.yaml")]


@dataclass(frozen=True)
class NeutralText:
    """Bits per byte of neutral text.

    The negative log-likelihood of a text in bits, by its length in UTF-8 (Gao et al. 2020, The Pile, section 3.1): by
    bytes rather than tokens, so that models with different tokenizers can be compared.

    Attributes:
        batch_size: Passages at once, at most.
        margin: Share of the base's figure by which it may rise and still count as kept.
        context: Tokens that the model takes; passages that are longer are left out. None: any number.
    """

    batch_size: int
    margin: float
    context: int | None
    needs_model: ClassVar[bool] = True
    any_tokenizer: ClassVar[bool] = True

    def take(self, subject: Local, progress: Progress) -> list[float | None]:
        """Nats per passage, None where it doesn't fit into the context."""
        rows = [_encoded(text, subject.tokenizer) for text in passages()]
        fitting = [row for row in rows if self.context is None or len(row.ids) <= self.context]
        label = f"{subject.name}: neutral text"
        losses = iter(row_losses(subject.model, fitting, batch_size=self.batch_size, label=label, progress=progress))
        return [next(losses) if self.context is None or len(row.ids) <= self.context else None for row in rows]

    def compare(self, base: Sequence[float | None], tuned: Sequence[float | None]) -> Outcome:
        """The figure over the passages that both models take and the base knows anything of; whether it is kept."""
        taken = [
            (old / math.log(2), new / math.log(2), len(text.encode()))
            for old, new, text in zip(base, tuned, passages(), strict=True)
            if old is not None and new is not None
        ]
        if found := broken("loss of neutral text", "regression", *([one[arm] for one in taken] for arm in (0, 1))):
            return Outcome(findings=found)
        known = [one for one in taken if one[0] < GUESSED * one[2]]
        if len(known) < ROWS_NEEDED:
            return Outcome(findings=[finding("E050", "regression", count=len(taken) - len(known), total=len(taken))])
        before, after, lengths = zip(*known, strict=True)
        compared = compare_losses(before, after, lengths, "neutral_bits_per_byte")
        return Outcome([non_inferior(compared, self.margin * compared.base)], versions=VERSION)


def _encoded(text: str, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """All tokens of a text, each predicted, the first one from BOS, or EOS where there is no BOS (as in lm-eval)."""
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    before = [] if start is None else [start]
    return Encoded(before + ids, [False] * len(before) + [True] * len(ids))
