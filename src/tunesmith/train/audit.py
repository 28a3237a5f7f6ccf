"""The label audit of the rows that a trainer really holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..data.tokens import audit_prepared
from ..data.trl_preparation import TRAINERS
from ..records import LabelAudit, Plan

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

_OPENED: Final = 128  # rows with images: opening all of them would take as long as an epoch's loading
_COLLATED: Final = 8


def audit_trainer(trainer: Trainer, plan: Plan, prepared_by: str = "") -> LabelAudit | None:
    """What a trainer is about to train on; None where the model writes its answers itself, and nothing has labels.

    Rows with images become tokens batch by batch: of these the first are audited. `prepared_by` names what prepared the
    rows, where it wasn't the trainer.
    """
    if plan.method not in TRAINERS:
        return None
    dataset, tokenizer, rows = trainer.train_dataset, trainer.processing_class, plan.train.rows
    if plan.images:
        dataset, tokenizer = _collated(trainer), trainer.processing_class.tokenizer
        rows = len(dataset)
        collator = type(trainer.data_collator).__name__
        prepared_by = f"{collator} of TRL, on the first {rows:,} of {plan.train.rows:,} rows"
    audit = audit_prepared(
        dataset,
        tokenizer,
        method=plan.method,
        training=plan.training,
        layout=plan.layout,
        loss_on=plan.loss_on,
        rows_given=rows,
        max_length=plan.training["max_length"],
        rows_cut=plan.train.cut,
        longest=plan.train.longest,
        stop_ids=plan.model.stop_ids,
    )
    if plan.training.get("packing") and plan.training.get("packing_strategy") == "bfd_split":
        audit = _rejoined(audit)
    return audit.model_copy(update={"prepared_by": prepared_by}) if prepared_by else audit


def _collated(trainer: Trainer) -> Dataset:
    """The first rows as the trainer's collator makes them: input_ids and labels without padding."""
    from datasets import Dataset

    rows = range(min(_OPENED, len(trainer.train_dataset)))
    columns: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    for start in rows[::_COLLATED]:
        batch = trainer.data_collator([trainer.train_dataset[row] for row in rows[start : start + _COLLATED]])
        for number, mask in enumerate(batch["attention_mask"].bool()):
            for name, values in columns.items():
                values.append(batch[name][number][mask].tolist())
    return Dataset.from_dict(columns)


def _rejoined(audit: LabelAudit) -> LabelAudit:
    """With documents counted whole that packing spreads over several rows: only their last piece ends in a stop.

    A last piece may be nothing else.
    """
    pieces = max(0, audit.rows_kept - audit.rows)
    without_stop = max(0, audit.rows_without_stop - pieces)
    return audit.model_copy(
        update={"rows_kept": audit.rows_kept - pieces, "rows_without_stop": without_stop, "rows_stop_only": 0}
    )
