"""Rows tokenised by TRL's own preparation: all of them whole, and what is left of them in the trainer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from ..errors import TunesmithError
from ..rules import FindingsError, finding
from .label_findings import refusal_finding, refused_rows
from .rows import Place, Row

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from .labels import LabelColumns


def truncation(args: Any) -> str:
    """Which end of a long row stays: keep_start or keep_end."""
    return str(getattr(args, "truncation_mode", "keep_start"))


def _splits(args: Any) -> bool:
    """Whether packing spreads long rows over several: nothing is cut, and rows can't be told apart any more."""
    return bool(getattr(args, "packing", False)) and args.packing_strategy != "bfd"


def cut_at(args: Any, method: str) -> int | None:
    """Tokens at which rows are cut; a reward model's rows are dropped instead."""
    return None if method == "reward" or _splits(args) else args.max_length


def sides(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, training: dict[str, Any], method: str
) -> list[LabelColumns]:
    """The token sequences of a prepared dataset with their labels: two for each row of pairs, else one."""
    from .labels import LabelColumns
    from .trl_preparation import TRAINERS, collate

    if TRAINERS[method].collator is None:
        return [LabelColumns.of(dataset)]
    return LabelColumns.of_batches(collate(dataset, tokenizer, training, method), TRAINERS[method].sides)


def kept(
    dataset: Dataset,
    whole: list[LabelColumns],
    tokenizer: PreTrainedTokenizerBase,
    training: dict[str, Any],
    method: str,
) -> Dataset:
    """What is left of the tokenised rows in the trainer: cut (sft) and without those that it drops."""
    import numpy as np

    from .trl_preparation import TRAINERS, arguments, prepare_dataset

    args = arguments(training, method)
    if TRAINERS[method].collator is None:
        if _splits(args):
            return dataset
        return prepare_dataset(dataset, tokenizer, {**training, "shuffle_dataset": False})
    if args.max_length is None or truncation(args) == "keep_end":
        return dataset
    # As the trainers' _prepare_dataset drops rows; running it again would tokenise all of them once more.
    if method == "reward":
        stay = reduce(np.logical_and, [side.lengths <= args.max_length for side in whole])
    else:
        stay = whole[0].per_row(~whole[0].trained) < args.max_length
    return dataset.select(np.flatnonzero(stay))


def tokenized(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    training: dict[str, Any],
    places: Sequence[Place],
    method: str,
) -> Dataset:
    """All rows tokenised, with a column row (their position): nothing cut, dropped, packed or shuffled."""
    from .trl_preparation import as_dataset, prepare_dataset

    chat = any(isinstance(value, list) for value in rows[0].values())
    if chat and not tokenizer.chat_template:
        raise FindingsError([finding("T005", "chat template", model=tokenizer.name_or_path or "The model")])
    if tokenizer.eos_token is None:
        raise FindingsError([finding("T009", "tokenizer", model=tokenizer.name_or_path or "The model")])
    dataset = as_dataset(rows).add_column("row", list(range(len(rows))))
    untouched = {**training, "max_length": None, "packing": False, "shuffle_dataset": False}
    try:
        prepared = prepare_dataset(dataset, tokenizer, untouched, method)
    except TunesmithError:
        raise
    except Exception:
        # Templates raise whatever Jinja, or the objects in it, raise: rendering row by row tells whether it was one.
        refused = refused_rows(rows, lambda row: _render(row, tokenizer))
        if not refused:
            raise
        raise FindingsError([refusal_finding(refused, places)]) from None
    ids = [name for name in prepared.column_names if name.endswith("_ids") or name in ("labels", "label", "row")]
    return prepared.select_columns(ids)


def _render(row: Row, tokenizer: PreTrainedTokenizerBase) -> None:
    """Render a row's conversations as the trainer does: the prompt alone, and with each answer."""
    messages = row["messages"] if "messages" in row else row.get("prompt", "")
    if not isinstance(messages, list):
        return
    tools = json.loads(row["tools"]) if row.get("tools") else None
    answers = [row[name] for name in ("completion", "chosen", "rejected") if name in row]
    if answers:
        tokenizer.apply_chat_template(messages, tokenize=False, tools=tools, add_generation_prompt=True)
    for answer in answers or [[]]:
        tokenizer.apply_chat_template([*messages, *answer], tokenize=False, tools=tools)
