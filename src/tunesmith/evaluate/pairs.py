"""Held-out answers as the trainers of dpo, kto and reward prepare them: TRL's own preparation and collator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.trl_preparation import as_dataset, collate, prepare_dataset
from ..records import Plan
from .rows import Encoded, Row

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, each with the prompt before it; of which row."""

    row: Row
    chosen: Encoded
    rejected: Encoded


@dataclass(frozen=True)
class Marked:
    """An answer after its prompt, and whether it is desirable; of which row."""

    row: Row
    answer: Encoded
    desirable: bool


def encode_pairs(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, plan: Plan) -> list[Pair]:
    """Pairs as the plan's method (dpo, reward) cuts and masks them; rows that it drops aren't among them."""
    dataset = _prepared(as_dataset([row.content for row in rows]).add_column("row", range(len(rows))), tokenizer, plan)
    chosen, rejected = _sides(dataset, tokenizer, plan)
    return [Pair(rows[index], *pair) for index, *pair in zip(dataset["row"], chosen, rejected, strict=True)]


def encode_marked(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, plan: Plan) -> list[Marked]:
    """Marked answers as kto cuts and masks them; a pair gives two."""
    halves = [(row, half) for row in rows for half in _halves(row.content)]
    dataset = as_dataset([half for _, half in halves]).add_column("row", range(len(halves)))
    dataset = _prepared(dataset, tokenizer, plan)
    (answers,) = _sides(dataset, tokenizer, plan)
    marked = zip(dataset["row"], answers, dataset["label"], strict=True)
    return [Marked(halves[index][0], answer, bool(mark)) for index, answer, mark in marked]


def _halves(content: dict[str, Any]) -> list[dict[str, Any]]:
    """A marked answer as it is; of a pair both answers, marked, as TRL takes it apart."""
    if "chosen" not in content:
        return [content]
    rest = {name: value for name, value in content.items() if name not in ("chosen", "rejected")}
    return [{**rest, "completion": content[name], "label": name == "chosen"} for name in ("chosen", "rejected")]


def _prepared(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, plan: Plan) -> Dataset:
    return prepare_dataset(dataset, tokenizer, plan.training, plan.method)


def _sides(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, plan: Plan) -> list[list[Encoded]]:
    """The answers of all rows: chosen and rejected where rows are pairs."""
    batches = [list(_rows(batch)) for batch in collate(dataset, tokenizer, plan.training, plan.method)]
    sides = 1 if plan.method == "kto" else 2
    return [
        [row for batch in batches for row in batch[side * len(batch) // sides : (side + 1) * len(batch) // sides]]
        for side in range(sides)
    ]


def _rows(batch: dict[str, Any]) -> Iterator[Encoded]:
    """The rows of a padded batch; of methods that score whole rows no token is marked as trained."""
    masks = batch.get("completion_mask", 0 * batch["attention_mask"])
    for ids, real, mask in zip(batch["input_ids"], batch["attention_mask"].bool(), masks.bool(), strict=True):
        yield Encoded(ids[real].tolist(), mask[real].tolist())
