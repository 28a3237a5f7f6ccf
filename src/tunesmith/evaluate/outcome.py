"""What a measure is: taken of both models on the same held-out rows, then compared."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from ..data.quality.private import without_secrets
from ..progress import Progress
from ..records import ChangedRow, Comparison, Finding, Judging, SuiteName

Arm = Literal["base", "tuned"]

KEPT_CHANGES = 20
KEPT_CHARACTERS = 500


@dataclass(frozen=True)
class Looks:
    """How the greedy answers of one model look, whatever they are worth; see the fields of `records.Side`."""

    answers: int
    stop_rate: float
    empty: float
    tokens: float
    repetition: float


@dataclass(frozen=True)
class Outcome:
    """What a measure says of tuned against base.

    Attributes:
        comparisons: Metric by metric.
        findings: What is wrong with model, rows or measure; the verdict on the primary metric isn't among them.
        changed: Every row on which one of the models is right and the other isn't.
        sides: Of base and tuned, how their answers look.
        judging: Of a judge's grades, how they came about.
        versions: Of the tools that measured, by name.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    changed: list[ChangedRow] = field(default_factory=list)
    sides: tuple[Looks, Looks] | None = None
    judging: Judging | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def of(self, suite: SuiteName) -> Outcome:
        """The same, its comparisons marked as a suite's."""
        return replace(self, comparisons=[one.model_copy(update={"suite": suite}) for one in self.comparisons])


class Measure(Protocol):
    """One measure of a model on held-out rows. What `take` gives of either model is for `compare`.

    Attributes:
        needs_model: It takes likelihoods, which a server doesn't give. One that also has `any_tokenizer = True` encodes
            texts with the model's own tokenizer and compares nothing per token; the others are left out where two runs
            have different tokenizers.
    """

    needs_model: ClassVar[bool]

    def take(self, subject: Any, progress: Progress) -> Any:
        """Measure one model, a `Local` where `needs_model`; `progress` is told of each batch."""

    def compare(self, base: Any, tuned: Any) -> Outcome:
        """Compare what was taken of both."""


@runtime_checkable
class Divisible(Measure, Protocol):
    """A measure of rows one by one: it can be told again without some of them, and no model is asked anew."""

    def without(self, rows: Container[int], taken: Any) -> tuple[Measure, Any] | None:
        """The same measure of all rows but these, and what was taken of a model for them; None where none is left."""


@dataclass(frozen=True)
class Suite:
    """Measures that belong together.

    Attributes:
        name: Its comparisons bear it.
        measures: Taken of both models in this order.
        findings: What is known to be wrong before any model is loaded.
        answer_tokens: Mean length of the answers that the task expects.
        max_new_tokens: Tokens after which answers to the task are cut.
        named: Metrics that the recipe asks for by name, that of `success` first: the verdict rests on the first taken.
    """

    name: SuiteName
    measures: Sequence[Measure]
    findings: Sequence[Finding] = field(default=())
    answer_tokens: float = 0.0
    max_new_tokens: int | None = None
    named: Sequence[str] = ()


def changed_row(row: int, prompt: str, expected: str, base: str, tuned: str, *, fixed: bool) -> ChangedRow:
    """A changed row as it is kept: without secrets, and cut so that a report of many stays readable."""
    shown = (shortened(without_secrets(text)) for text in (prompt, expected, base, tuned))
    texts: dict[str, Any] = dict(zip(("prompt", "expected", "base", "tuned"), shown, strict=True))
    return ChangedRow(row=row, change="fixed" if fixed else "broken", **texts)


def first_changes(changed: list[ChangedRow]) -> list[ChangedRow]:
    """The first of the fixed rows and of the broken ones."""
    kinds = ([row for row in changed if row.change == kind] for kind in ("fixed", "broken"))
    return [row for kind in kinds for row in kind[:KEPT_CHANGES]]


def shortened(text: str) -> str:
    """Text without what goes beyond `KEPT_CHARACTERS`."""
    return text if len(text) <= KEPT_CHARACTERS else text[: KEPT_CHARACTERS - 1] + "…"
