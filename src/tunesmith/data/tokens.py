"""Token lengths, and the label audit: what is really trained on after the trainer's own preparation of the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import TunesmithError
from ..records import Finding, LabelAudit, Lengths, Severity, TokenLengths
from ..rules import FindingsError, finding
from .prepare import LossOn, TrainedLayout
from .rows import Row, name_places

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from .labels import LabelColumns

EncodeRows = Callable[[Sequence[Row], TrainedLayout], tuple[Sequence[int] | None, Sequence[int]]]
"""Gives the lengths of rows in tokens: of the prompts (None where nothing is split off) and of the whole rows."""


_BLANKS = 4
"""Trained tokens besides stop tokens that an empty answer can have: line breaks that the template writes."""


@dataclass(frozen=True)
class Audited:
    """The label audit of rows, and their lengths before anything was cut."""

    audit: LabelAudit
    lengths: TokenLengths


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
    preview: int = 3,
    places: Sequence[int] | None = None,
) -> LabelAudit:
    """Run the installed TRL's own preparation on prepared rows, and count what is left to train on.

    Args:
        rows: Prepared rows, not none.
        layout: Their layout.
        tokenizer: The model's, with its chat template.
        training: Arguments of SFTConfig (max_length, packing, assistant_only_loss and the like); others are ignored.
        stop_ids: Tokens besides the tokenizer's EOS at which generation stops, from the model's generation_config.
        preview: Number of rows to show with their labels.
        places: The rows' numbers in their file, for findings and preview; counted from 1 where they aren't given.

    Raises:
        FindingsError: T005 no chat template, T008 the template refuses rows, T009 no EOS token.
        EnvironmentLacksError: the installed TRL prepares datasets in an unknown way.
        UsageError: assistant_only_loss with a template that can't mark the assistant's turns.
    """
    return audit_with_lengths(
        rows, layout, tokenizer, training=training, stop_ids=stop_ids, preview=preview, places=places
    ).audit


def audit_with_lengths(
    rows: Sequence[Row],
    layout: TrainedLayout,
    tokenizer: PreTrainedTokenizerBase,
    *,
    training: dict[str, Any],
    stop_ids: Sequence[int] = (),
    preview: int = 3,
    places: Sequence[int] | None = None,
) -> Audited:
    """As `audit`, with the token lengths that it knows anyway."""
    from .labels import LabelColumns
    from .trl_preparation import arguments, prepare_dataset

    numbers = list(places) if places is not None else list(range(1, len(rows) + 1))
    args = arguments(training)
    loss_on = _loss_on(layout, args)
    whole = _tokenized(rows, tokenizer, training, numbers)
    columns = LabelColumns.of(whole)
    limit: int | None = args.max_length
    splits = args.packing and args.packing_strategy != "bfd"
    # Other strategies of packing spread a long row over several: nothing is cut, and rows can't be told apart any more.
    kept = whole if splits else prepare_dataset(whole, tokenizer, {**training, "shuffle_dataset": False})
    result = audit_prepared(
        kept,
        tokenizer,
        rows_given=len(rows),
        max_length=limit,
        layout=layout,
        loss_on=loss_on,
        stop_ids=stop_ids,
        rows_cut=0 if splits or limit is None else int((columns.lengths > limit).sum()),
        longest=int(columns.lengths.max()),
        preview=preview,
    )
    prompts = columns.lengths - columns.per_row(columns.trained) if loss_on == "completion" else None
    measured = lengths_from(columns.lengths.tolist(), None if prompts is None else prompts.tolist())
    return Audited(result, measured)


def _loss_on(layout: TrainedLayout, args: Any) -> LossOn:
    """What TRL trains of the rows: completion_only_loss does nothing to messages and text."""
    if args.assistant_only_loss:
        return "assistant"
    return "completion" if layout == "prompt-completion" and args.completion_only_loss is not False else "all"


def _tokenized(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, training: dict[str, Any], numbers: list[int]
) -> Dataset:
    """All rows with input_ids, labels and row (their number): nothing cut, dropped, packed or shuffled."""
    from .trl_preparation import as_dataset, prepare_dataset

    chat = any(isinstance(value, list) for value in rows[0].values())
    if chat and not tokenizer.chat_template:
        raise FindingsError([finding("T005", "chat template", model=tokenizer.name_or_path or "The model")])
    if tokenizer.eos_token is None:
        raise FindingsError([finding("T009", "tokenizer", model=tokenizer.name_or_path or "The model")])
    dataset = as_dataset(rows).add_column("row", numbers)
    untouched = {**training, "max_length": None, "packing": False, "shuffle_dataset": False}
    try:
        prepared = prepare_dataset(dataset, tokenizer, untouched)
    except TunesmithError:
        raise
    except Exception:
        # Templates raise whatever Jinja, or the objects in it, raise: rendering row by row tells whether it was one.
        refused = refused_rows(rows, lambda row: _render(row, tokenizer))
        if not refused:
            raise
        raise FindingsError([refusal_finding(refused, numbers)]) from None
    return prepared.select_columns(["input_ids", "labels", "row"])


def refused_rows(rows: Sequence[Row], render: Callable[[Row], object]) -> dict[int, str]:
    """The rows, counted from 0, that `render` raises on, each with the error's first line."""
    refused: dict[int, str] = {}
    for index, row in enumerate(rows):
        try:
            render(row)
        except Exception as error:  # Jinja hands on whatever the template's expressions raise
            refused[index] = str(error).splitlines()[0] if str(error) else type(error).__name__
    return refused


def _render(row: Row, tokenizer: PreTrainedTokenizerBase) -> None:
    """Render a row's conversation as the trainer does: the prompt alone, and the whole."""
    messages = row["messages"] if "messages" in row else row.get("prompt", "")
    if not isinstance(messages, list):
        return
    tools = json.loads(row["tools"]) if row.get("tools") else None
    if "completion" in row:
        tokenizer.apply_chat_template(messages, tokenize=False, tools=tools, add_generation_prompt=True)
    tokenizer.apply_chat_template([*messages, *row.get("completion", [])], tokenize=False, tools=tools)


def refusal_finding(refused: dict[int, str], numbers: Sequence[int]) -> Finding:
    """T008 for the rows that `refused_rows` found; `numbers` are the numbers of all rows in their file."""
    rows = name_places([numbers[index] for index in refused])
    return finding("T008", "chat template", count=f"{len(refused):,}", error=next(iter(refused.values())), rows=rows)


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
    preview: int = 3,
) -> LabelAudit:
    """Count in a dataset that already has input_ids and labels, such as the train_dataset of a trainer.

    Args:
        dataset: The columns input_ids, labels and, when it is packed, seq_lengths; a column row numbers the preview.
        tokenizer: The model's.
        max_length: Tokens at which the trainer cut rows.
        layout: The layout that the rows had.
        loss_on: What is trained of each row.
        stop_ids: Tokens besides the tokenizer's EOS at which generation stops.
        preview: Number of rows to show with their labels.
        rows_given: Rows before the trainer prepared them.
        rows_cut: Rows that were longer than `max_length`; a prepared dataset no longer tells, the plan's audit does.
        longest: Tokens of the longest row before cutting, known likewise.
    """
    from .labels import LabelColumns
    from .trl_preparation import library

    columns = LabelColumns.of(dataset)
    stops = list(dict.fromkeys([tokenizer.eos_token_id, *stop_ids]))
    trained = columns.per_row(columns.trained)
    stopping = columns.among(stops) & columns.trained
    tokens, trained_tokens = len(columns.ids), int(columns.trained.sum())
    numbers = dataset["row"][:preview] if "row" in dataset.column_names else list(range(1, preview + 1))
    return LabelAudit(
        prepared_by=library(),
        layout=layout,
        loss_on=loss_on,
        max_length=max_length,
        rows=rows_given,
        rows_kept=columns.rows,
        rows_untrained=int((trained == 0).sum()),
        tokens=tokens,
        trained_tokens=trained_tokens,
        trained_percent=round(100 * trained_tokens / tokens, 2) if tokens else 0.0,
        stop_tokens=[str(token) for token in tokenizer.convert_ids_to_tokens(stops)],
        rows_without_stop=int((columns.per_row(stopping) == 0).sum()),
        rows_stop_only=_stop_only(columns, stopping, tokenizer),
        rows_cut=rows_cut,
        longest=longest,
        bos_per_row={0: columns.rows} if tokenizer.bos_token_id is None else columns.leading(tokenizer.bos_token_id),
        preview=columns.preview(preview, tokenizer, numbers),
    )


def _stop_only(columns: LabelColumns, stopping: npt.NDArray[np.bool_], tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows with no trained token but stop tokens (`stopping`, shape (tokens,)) and the blanks around them."""
    others = columns.trained & ~stopping
    per_row = columns.per_row(others)
    few = per_row <= _BLANKS
    suspects = columns.of_rows(others, few)
    blank = [token for token in set(columns.ids[suspects].tolist()) if not tokenizer.decode([token]).strip()]
    said = columns.per_row(suspects & ~columns.among(blank))
    return int((few & (said == 0) & (columns.per_row(stopping) > 0)).sum())


def audit_findings(audit: LabelAudit, where: str, *, context: int | None = None) -> list[Finding]:
    """What is wrong with the labels: T001, T002, T003, T004, T007 and T012.

    Args:
        audit: The label audit.
        where: What was audited.
        context: Tokens that the model takes at most: no longer max_length is advised.
    """
    findings: list[Finding] = []
    lost = max(0, audit.rows - audit.rows_kept) + audit.rows_untrained
    endless = audit.rows_without_stop - audit.rows_untrained
    doubled = {number: rows for number, rows in audit.bos_per_row.items() if number > 1}
    if endless:
        # A few rows that were cut lose their stop, which T002 says; more than that, and the model won't stop.
        by_cutting = endless <= audit.rows_cut and 2 * endless <= audit.rows_kept
        severity: Severity = "warning" if by_cutting else "error"
        stops = ", ".join(audit.stop_tokens)
        findings.append(
            finding("T001", where, severity=severity, count=f"{endless:,}", total=f"{audit.rows_kept:,}", stops=stops)
        )
    if audit.rows_cut:
        findings.append(_cut_finding(audit, where, context))
    if lost:
        findings.append(finding("T003", where, count=f"{lost:,}", total=f"{audit.rows:,}"))
    if doubled:
        rows, most = sum(doubled.values()), max(doubled)
        findings.append(finding("T004", where, count=f"{rows:,}", total=f"{audit.rows_kept:,}", bos=most))
    if audit.loss_on == "all" and audit.layout != "text":
        findings.append(finding("T007", where, percent=round(audit.trained_percent, 1)))
    if audit.rows_stop_only:
        count, stops = f"{audit.rows_stop_only:,}", ", ".join(audit.stop_tokens)
        findings.append(finding("T012", where, count=count, total=f"{audit.rows_kept:,}", stops=stops))
    return findings


def _cut_finding(audit: LabelAudit, where: str, context: int | None) -> Finding:
    count, total, longest = f"{audit.rows_cut:,}", f"{audit.rows:,}", audit.longest or "LONGEST"
    cut = finding("T002", where, count=count, total=total, max_length=audit.max_length, longest=longest)
    if not (context and audit.longest and audit.longest > context):
        return cut
    # P003 refuses a max_length beyond the context.
    fix = f"The model's context is {context} tokens: shorten these rows, or split them."
    return cut.model_copy(update={"fix": fix})
