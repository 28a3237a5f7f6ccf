"""Supervised fine-tuning: a plan turned into TRL's SFTTrainer, nothing added, nothing left to defaults that matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.trl_preparation import as_dataset
from ..errors import UsageError
from ..models.load import load_base, load_tokenizer
from ..records import Plan
from .checkpoints import FOLDER

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTTrainer


def build_trainer(plan: Plan, run: Path, callbacks: list[TrainerCallback]) -> SFTTrainer:
    """The trainer of a plan, with model, adapter, data and callbacks.

    Raises:
        UsageError: the model or its tokenizer can't be loaded.
    """
    from trl import SFTConfig, SFTTrainer

    def rows(path: str) -> Dataset:
        with (run / path).open(encoding="utf-8") as file:
            return as_dataset([json.loads(line) for line in file])

    try:
        args = SFTConfig(output_dir=str(run / FOLDER), **plan.training)
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(
            "The installed TRL refuses the training arguments.",
            why=str(error).splitlines()[0],
            fix="Correct `training:` in the recipe and start a new run; this one keeps the plan it was made with.",
        ) from error
    tokenizer = load_tokenizer(
        plan.model.location, revision=plan.model.revision, chat_template=plan.recipe["chat_template"]
    )
    model = load_base(plan.model, **plan.model_kwargs)
    return SFTTrainer(
        model=model,
        args=args,
        train_dataset=rows(plan.train.path),
        eval_dataset=rows(plan.eval.path) if plan.eval and plan.training["eval_strategy"] != "no" else None,
        processing_class=tokenizer,
        peft_config=_lora(plan.lora) if plan.lora else None,
        callbacks=callbacks,
    )


def _lora(arguments: dict[str, Any]) -> Any:
    from peft import LoraConfig

    return LoraConfig(**arguments)
