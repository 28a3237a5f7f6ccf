"""How likely held-out texts and answers are: the measure of sft and clm."""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ..progress import Progress
from ..records import Comparison, Plan
from .comparisons import compare_losses, compare_perplexities
from .findings import broken, left_out
from .measure import context_of, row_losses
from .outcome import Outcome
from .rows import Encoded, Row, encode
from .subject import Local

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Loss(NamedTuple):
    """How a model finds the trained part of a row: nats, over so many tokens, which are so many bytes of UTF-8."""

    row: int
    nats: float
    tokens: int
    bytes: int


@dataclass(frozen=True)
class Likelihood:
    """Loss and perplexity at the tokens that training trains, as the trainer itself prepares and masks the rows.

    Attributes:
        rows: Held-out rows.
        encoded: The same by their numbers, for the run's `tokenizer`.
        plan: By which rows are prepared for other tokenizers.
        groups: By row, what it belongs to.
        whole: Rows are encoded whole, since another tokenizer would cut them elsewhere; those that don't fit into a
            model's context are left out.
    """

    rows: Sequence[Row]
    encoded: Mapping[int, Encoded]
    tokenizer: PreTrainedTokenizerBase
    plan: Plan
    batch_size: int
    split: str
    groups: Mapping[int, Hashable] = field(default_factory=dict)
    whole: bool = False
    needs_model: ClassVar[bool] = True
    any_tokenizer: ClassVar[bool] = True

    def take(self, subject: Local, progress: Progress) -> list[Loss]:
        """The loss of each row in which something is trained."""
        own = subject.tokenizer is self.tokenizer
        encoded = self.encoded if own else encode_for(self.rows, subject.tokenizer, self.plan, whole=self.whole)
        if self.whole:
            context = context_of(subject.model)
            encoded = {number: row for number, row in encoded.items() if len(row.ids) <= context}
        label, rows = f"{subject.name}: held-out loss", list(encoded.values())
        losses = row_losses(subject.model, rows, batch_size=self.batch_size, label=label, progress=progress)
        sizes = [(len(row.positions), _bytes(row, subject.tokenizer)) for row in rows]
        return [Loss(number, nats, *size) for number, nats, size in zip(encoded, losses, sizes, strict=True)]

    def without(self, rows: Container[int], taken: list[Loss]) -> tuple[Likelihood, list[Loss]] | None:
        """See Divisible."""
        left = [loss for loss in taken if loss.row not in rows]
        return (self, left) if left else None

    def compare(self, base: list[Loss], tuned: list[Loss]) -> Outcome:
        """Loss per trained token, perplexity unless it is huge, bits per byte; only the last where tokens differ."""
        both = {loss.row for loss in base} & {loss.row for loss in tuned}
        missing = left_out(self.split, len(self.encoded.keys() - both), len(self.rows), "the context of both models")
        if not both:
            return Outcome(findings=missing)
        before, after = ([loss for loss in losses if loss.row in both] for losses in (base, tuned))
        nats = [loss.nats for loss in before], [loss.nats for loss in after]
        if found := broken("loss", self.split, *nats):
            return Outcome(findings=[*missing, *found])
        groups = [self.groups[loss.row] for loss in after] if self.groups else None
        tokens = [loss.tokens for loss in after]
        bits = _bits_per_byte(before, after, groups)
        if tokens != [loss.tokens for loss in before]:
            return Outcome(bits, missing)
        loss = compare_losses(*nats, tokens, groups=groups)
        return Outcome([loss, *compare_perplexities(loss, *nats, tokens, groups), *bits], missing)


def encode_for(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, plan: Plan, *, whole: bool
) -> dict[int, Encoded]:
    """Rows as the trainer prepares them, or the same without its limit of length."""
    return encode(rows, tokenizer, plan, **({"max_length": None} if whole else {}))


def _bits_per_byte(base: Sequence[Loss], tuned: Sequence[Loss], groups: list[Hashable] | None) -> list[Comparison]:
    """The loss in bits for each byte of the text, which doesn't depend on how a tokenizer cuts it.

    BPB = nats / (bytes * ln 2): Gao et al. 2020, The Pile, section 3.1. A row in which the models are trained on
    different bytes, since their templates end answers in different ways, counts with those of tuned.
    """
    sizes = [loss.bytes for loss in tuned]
    if not sum(sizes):
        return []
    seen = [new.bytes / old.bytes if old.bytes else 1.0 for old, new in zip(base, tuned, strict=True)]
    before = [loss.nats * share / math.log(2) for loss, share in zip(base, seen, strict=True)]
    after = [loss.nats / math.log(2) for loss in tuned]
    return [compare_losses(before, after, sizes, "bits_per_byte", groups)]


def _bytes(row: Encoded, tokenizer: PreTrainedTokenizerBase) -> int:
    """Bytes of the text of the trained tokens; a token that ends the text is none of it."""
    text = tokenizer.decode([row.ids[position] for position in row.positions], skip_special_tokens=True)
    return len(text.encode())
