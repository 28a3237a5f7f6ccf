"""Multiple choice by likelihood: of the options to a question, the model's answer is the one it finds likeliest."""

from __future__ import annotations

import json
from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..data.asked import asked, asks, few_answers, read_options
from ..progress import Progress
from ..records import ChangedRow, Plan
from .comparisons import compare_shares
from .measure import row_losses
from .outcome import Outcome, changed_row
from .rows import Row, as_text, encode
from .subject import Local

_TRAINED: dict[str, Any] = {"max_length": None, "assistant_only_loss": False, "completion_only_loss": True}
"""Arguments of the trainer under which all of an option counts, and nothing but the option."""


@dataclass(frozen=True)
class Choice:
    """A question with options, of which one is right."""

    row: Row
    options: Sequence[str]
    right: int

    def answered(self) -> list[dict[str, Any]]:
        """The row with each of the options as its answer, as TRL's prompt and completion."""
        turns, expected = asked(self.row.content)
        tools = {"tools": self.row.content["tools"]} if self.row.content.get("tools") else {}
        return [{"prompt": turns, "completion": _answer(turns, str(expected), one), **tools} for one in self.options]


Nats = dict[int, list[float]]
"""By the row's number, minus the log-likelihood of each option."""


@dataclass(frozen=True)
class Choices:
    """The likeliest of the options, each as the trainer would prepare it, with the token that ends an answer.

    So it is with and without normalization by length: the sum over an option's tokens favours short ones (Brown et al.
    2020, Language models are few-shot learners, section 2.4, normalizes by tokens; this by bytes, as acc_bytes in
    lm-evaluation-harness, since tokens differ from tokenizer to tokenizer). The harness leaves the ending token out.

    Attributes:
        choices: At least one.
        plan: By which rows are prepared.
        groups: By row, what it belongs to.
    """

    choices: Sequence[Choice]
    plan: Plan
    batch_size: int
    split: str
    groups: Mapping[int, Hashable] = field(default_factory=dict)
    needs_model: ClassVar[bool] = True
    any_tokenizer: ClassVar[bool] = True

    def take(self, subject: Local, progress: Progress) -> Nats:
        """How likely the model finds each option."""
        contents = [content for one in self.choices for content in one.answered()]
        options = [Row(number, content) for number, content in enumerate(contents)]
        rows = list(encode(options, subject.tokenizer, self.plan, **_TRAINED).values())
        label = f"{subject.name}: options"
        losses = row_losses(subject.model, rows, batch_size=self.batch_size, label=label, progress=progress)
        of_option = iter(zip(losses, options, strict=True))  # an option has at least the token that ends it
        return {one.row.number: [next(of_option)[0] for _ in one.options] for one in self.choices}

    def without(self, rows: Container[int], taken: Nats) -> tuple[Choices, Nats] | None:
        """See Divisible."""
        left = {row: nats for row, nats in taken.items() if row not in rows}
        return (self, left) if left else None

    def compare(self, base: Nats, tuned: Nats) -> Outcome:
        """The shares of rightly answered questions."""
        told = [one for one in self.choices if one.row.number in tuned]
        groups = [self.groups[one.row.number] for one in told] if self.groups else None
        picks = [[_likeliest(taken[one.row.number]) for one in told] for taken in (base, tuned)]
        by_byte = [[_likeliest(taken[one.row.number], one.options) for one in told] for taken in (base, tuned)]
        comparisons = [
            compare_shares(metric, _right(told, old), _right(told, new), groups)
            for metric, (old, new) in (("choice_accuracy", picks), ("choice_accuracy_per_byte", by_byte))
        ]
        return Outcome(comparisons, changed=_changed(told, *picks))


def choices(rows: Sequence[Row], column: str | None, plan: Plan, folder: Path) -> list[Choice]:
    """The questions among rows whose right answer is one of their options.

    The options stand in `column`; without one they are the few different answers of the training rows.
    """
    common: Sequence[str] = () if column else _training_answers(folder / plan.train.path)
    found = []
    for row in rows:
        right = (asked(row.content)[1] or "").strip() if asks(row.content) else ""
        options = read_options(row.columns.get(column), right) if column else common
        if len(options) > 1 and right in options:
            found.append(Choice(row, options, options.index(right)))
    return found


def _training_answers(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return few_answers(map(json.loads, file))


def _answer(turns: Any, expected: str, option: str) -> Any:
    """An option in the place of the right answer, with the blanks around it that this one has."""
    if not isinstance(turns, str):
        return [{"role": "assistant", "content": option}]
    start = len(expected) - len(expected.lstrip())
    return expected[:start] + option + expected[len(expected.rstrip()) :]


def _likeliest(nats: Sequence[float], options: Sequence[str] = ()) -> int:
    """The option that is likeliest, by each of its bytes where options are given; of several the first."""
    sizes = [len(option.encode()) or 1 for option in options] or [1] * len(nats)
    return min(range(len(nats)), key=lambda index: nats[index] / sizes[index])


def _right(told: Sequence[Choice], picked: Sequence[int]) -> list[bool]:
    return [one.right == pick for one, pick in zip(told, picked, strict=True)]


def _changed(told: Sequence[Choice], base: Sequence[int], tuned: Sequence[int]) -> list[ChangedRow]:
    """Questions that just one of the models answers rightly."""
    return [
        changed_row(
            one.row.number,
            as_text(asked(one.row.content)[0]),
            one.options[one.right],
            one.options[before],
            one.options[after],
            fixed=after == one.right,
        )
        for one, before, after in zip(told, base, tuned, strict=True)
        if (before == one.right) != (after == one.right)
    ]
