"""Supervised fine-tuning, and continued pretraining on text: TRL's SFTTrainer, nothing left to defaults that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...data.fast import FastResult, prepare_fast
from ...data.trl_preparation import as_dataset
from .. import speed
from ..model import load_trainable
from ..shared import shared

if TYPE_CHECKING:
    from trl import SFTTrainer

    from ..job import Job


WORTH = 2_000
"""Rows from which on the fast path gains more than holding it against TRL costs, which is about a second."""


def build(job: Job) -> SFTTrainer:
    """The trainer of a job; its rows take the fast path where they are many."""
    from trl import SFTConfig, SFTTrainer

    args = job.arguments(SFTConfig)
    fast = job.fast and sum(map(len, job.rows.values())) >= WORTH
    results = {name: _prepare_fast(name, job) for name in job.rows} if fast else {}
    job.report(results)
    datasets = {name: result.dataset for name, result in results.items() if result.dataset is not None}
    if datasets.keys() == job.rows.keys():
        args.dataset_kwargs = {"skip_prepare_dataset": True}
        # The labels say it already; the trainer would look for messages to mask.
        args.assistant_only_loss = False
    else:
        datasets = {name: shared(as_dataset(given), job.run, name) for name, given in job.rows.items()}
    model, peft_config = load_trainable(job.plan)
    trainer = SFTTrainer(
        model=model,
        args=args,
        data_collator=speed.end_to_end(args, model, job.tokenizer),
        train_dataset=datasets["train"],
        eval_dataset=datasets.get("eval"),
        processing_class=job.tokenizer,
        peft_config=peft_config,
        callbacks=job.callbacks,
    )
    speed.check_apart(trainer, job.plan)
    return trainer


def _prepare_fast(name: str, job: Job) -> FastResult:
    packs = job.plan.training.get("eval_packing") if name == "eval" else None
    training = job.plan.training if packs is None else {**job.plan.training, "packing": packs}
    return prepare_fast(job.rows[name], job.plan.layout, job.tokenizer, training)
