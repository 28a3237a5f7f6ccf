"""Token lengths, and the label audit: what is really trained on after the trainer's own preparation of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from ..records import LabelAudit, Lengths, LossOn, TokenLengths, TrainedLayout
from .label_findings import audit_findings, refusal_finding, refused_rows
from .rows import Place, Row
from .tokenized import cut_at, kept, sides, tokenized, truncation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


EncodeRows = Callable[[Sequence[Row], TrainedLayout], tuple[Sequence[int] | None, Sequence[int]]]
"""Gives the lengths of rows in tokens: of the prompts (None where nothing is split off) and of the whole rows."""

__all__ = [
    "Audited",
    "EncodeRows",
    "audit",
    "audit_findings",
    "audit_prepared",
    "audit_with_lengths",
    "lengths",
    "lengths_from",
    "percentile",
    "refusal_finding",
    "refused_rows",
]


@dataclass(frozen=True)
class Audited:
    """The label audit of rows, and their lengths before anything was cut.

    Attributes:
        audit: The audit.
        lengths: Statistics of the lengths.
        tokens: Tokens of each row, of a pair's longer side, shape (rows,).
        prompts: Tokens of each row's prompt, shape (rows,); None where nothing is split off.
    """

    audit: LabelAudit
    lengths: TokenLengths
    tokens: npt.NDArray[np.int64]
    prompts: npt.NDArray[np.int64] | None


def lengths(rows: Sequence[Row], layout: TrainedLayout, encode: EncodeRows) -> TokenLengths:
    """Token lengths of prepared rows, counted by `encode`."""
    prompts, totals = encode(rows, layout)
    return lengths_from(totals, prompts)


def lengths_from(totals: Sequence[int], prompts: Sequence[int] | None = None) -> TokenLengths:
    """The statistics of lengths in tokens; completions are what prompts leave of the totals.

    Raises:
        ValueError: there are no rows, or not as many prompts as totals.
    """
    if prompts is None:
        return TokenLengths(total=_statistics(totals))
    completions = [total - prompt for total, prompt in zip(totals, prompts, strict=True)]
    return TokenLengths(total=_statistics(totals), prompt=_statistics(prompts), completion=_statistics(completions))


def _statistics(values: Sequence[int]) -> Lengths:
    if not values:
        raise ValueError("no rows to measure")
    ordered = sorted(values)
    total = sum(ordered)
    return Lengths(
        rows=len(ordered),
        min=ordered[0],
        mean=total / len(ordered),
        median=percentile(ordered, 50),
        p90=percentile(ordered, 90),
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
        max=ordered[-1],
        total=total,
    )


def percentile(ordered: Sequence[int], percent: int) -> int:
    """The nearest-rank percentile of ascending values: the smallest that `percent` % of them don't exceed."""
    return ordered[max(1, math.ceil(percent * len(ordered) / 100)) - 1]


def audit(
    rows: Sequence[Row],
    layout: TrainedLayout,
    tokenizer: PreTrainedTokenizerBase,
    *,
    training: dict[str, Any],
    stop_ids: Sequence[int] = (),
    preview: int = 4,
    places: Sequence[Place] | None = None,
    method: str = "sft",
) -> LabelAudit:
    """Run the installed TRL's own preparation on prepared rows, and count what is left to train on.

    Args:
        rows: Prepared rows for the method, not none.
        layout: Their layout.
        tokenizer: The model's, with its chat template.
        training: Arguments of TRL's config class (max_length, packing, assistant_only_loss and the like).
        stop_ids: Tokens besides the tokenizer's EOS at which generation stops, from the model's generation_config.
        preview: Number of rows to show with their labels.
        places: The rows' numbers in their file, for findings and preview; counted from 1 where they aren't given.
        method: sft, clm, dpo, kto or reward.

    Raises:
        FindingsError: T005 no chat template, T008 the template refuses rows, T009 no EOS token.
        EnvironmentLacksError: the installed TRL prepares datasets in an unknown way.
        UsageError: assistant_only_loss with a template that can't mark the assistant's turns.
    """
    return audit_with_lengths(
        rows, layout, tokenizer, training=training, stop_ids=stop_ids, preview=preview, places=places, method=method
    ).audit


def audit_with_lengths(
    rows: Sequence[Row],
    layout: TrainedLayout,
    tokenizer: PreTrainedTokenizerBase,
    *,
    training: dict[str, Any],
    stop_ids: Sequence[int] = (),
    preview: int = 4,
    places: Sequence[Place] | None = None,
    method: str = "sft",
) -> Audited:
    """As `audit`, with the token lengths that it knows anyway."""
    import numpy as np

    from .counts import Counted
    from .trl_preparation import arguments

    places = list(places) if places is not None else list(range(1, len(rows) + 1))
    args = arguments(training, method)
    dataset = tokenized(rows, tokenizer, training, places, method)
    whole = sides(dataset, tokenizer, {**training, "max_length": None}, method)
    totals: npt.NDArray[np.int64] = reduce(np.maximum, [side.lengths for side in whole])
    loss_on = _loss_on(layout, args, method)
    limit = cut_at(args, method)
    cut = totals > limit if limit else np.zeros(len(rows), dtype=bool)
    result = audit_prepared(
        kept(dataset, whole, tokenizer, training, method),
        tokenizer,
        rows_given=len(rows),
        max_length=args.max_length,
        layout=layout,
        loss_on=loss_on,
        stop_ids=stop_ids,
        rows_cut=int(cut.sum()),
        longest=int(totals.max()),
        preview=preview,
        method=method,
        training=training,
        places=places,
        cut=cut,
    )
    if limit and cut.any():
        from_end = truncation(args) == "keep_end"
        cutting = Counted(whole, tokenizer, _stops(tokenizer, stop_ids)).cutting(limit, from_end=from_end)
        result = result.model_copy(update={"cutting": cutting})
    prompts = whole[0].per_row(~whole[0].trained) if loss_on == "completion" else None
    measured = lengths_from(totals.tolist(), None if prompts is None else prompts.tolist())
    return Audited(result, measured, totals, prompts)


def audit_prepared(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rows_given: int,
    max_length: int | None,
    layout: TrainedLayout,
    loss_on: LossOn,
    stop_ids: Sequence[int] = (),
    rows_cut: int = 0,
    longest: int | None = None,
    preview: int = 4,
    method: str = "sft",
    training: dict[str, Any] | None = None,
    places: Sequence[Place] | None = None,
    cut: npt.NDArray[np.bool_] | None = None,
) -> LabelAudit:
    """Count in a dataset that the trainer has prepared, such as its train_dataset.

    Args:
        dataset: The columns that `trl_preparation.prepare_dataset` names for the method; when it is packed,
            seq_lengths; a column row numbers the preview.
        tokenizer: The model's.
        rows_given: Rows before the trainer prepared them.
        max_length: Tokens at which the trainer cuts rows.
        layout: The layout that the rows had.
        loss_on: What is trained of each row.
        stop_ids: Tokens besides the tokenizer's EOS at which generation stops.
        rows_cut: Rows that were longer than `max_length`; a prepared dataset no longer tells, the plan's audit does.
        longest: Tokens of the longest row before cutting, known likewise.
        preview: Number of rows to show with their labels.
        method: The trainer's.
        training: The trainer's arguments; needed where its collator cuts (dpo, kto).
        places: Where the rows stand in their file; the dataset's column row then holds positions in it.
        cut: Which of the `places` were cut.
    """
    from .counts import Counted
    from .trl_preparation import library

    columns = sides(dataset, tokenizer, {"max_length": max_length, **(training or {})}, method)
    counted = Counted(columns, tokenizer, _stops(tokenizer, stop_ids))
    numbers: list[Any] | None = dataset["row"][:] if "row" in dataset.column_names else None
    shown = numbers or range(1, counted.rows + 1)
    if numbers and places is not None:
        shown = [places[number] for number in numbers]
    return LabelAudit(
        prepared_by=library(method),
        method=method,
        layout=layout,
        loss_on=loss_on,
        max_length=max_length,
        rows=rows_given,
        rows_cut=rows_cut,
        longest=longest,
        preview=counted.preview(preview, shown, cut[numbers] if numbers and cut is not None else None),
        **counted.fields(scored=loss_on == "score"),
    )


def _loss_on(layout: TrainedLayout, args: Any, method: str) -> LossOn:
    """What TRL trains of the rows: completion_only_loss does nothing to messages and text."""
    if method == "reward":
        return "score"
    if method in ("dpo", "kto"):
        return "completion"
    if args.assistant_only_loss:
        return "assistant"
    return "completion" if layout == "prompt-completion" and args.completion_only_loss is not False else "all"


def _stops(tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int]) -> list[int]:
    return list(dict.fromkeys([tokenizer.eos_token_id, *stop_ids]))
