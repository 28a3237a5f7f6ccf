"""Supervised fine-tuning: a plan turned into TRL's SFTTrainer, nothing added, nothing left to defaults that matter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.fast import FastResult, prepare_fast
from ..data.rows import Row
from ..data.trl_preparation import as_dataset
from ..errors import UsageError
from ..models.load import load_base, load_tokenizer
from ..records import Plan
from .checkpoints import FOLDER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback
    from trl import SFTConfig, SFTTrainer


WORTH = 2_000
"""Rows from which on the fast path gains more than holding it against TRL costs, which is about a second."""


def build_trainer(
    plan: Plan,
    run: Path,
    callbacks: list[TrainerCallback],
    *,
    fast: bool = True,
    report: Callable[[dict[str, FastResult]], None] | None = None,
) -> SFTTrainer:
    """The trainer of a plan, with model, adapter, data and callbacks.

    Args:
        plan: The plan.
        run: The run folder.
        callbacks: The trainer's.
        fast: Prepare the rows on the fast path where they are many, and it gives what the trainer's own gives.
        report: Is told how the fast path fared with the rows ("train", "eval").

    Raises:
        UsageError: the model or its tokenizer can't be loaded, or TRL refuses the arguments.
    """
    from trl import SFTTrainer

    args = _arguments(plan, run)
    tokenizer = load_tokenizer(
        plan.model.location, revision=plan.model.revision, chat_template=plan.recipe["chat_template"]
    )
    rows = {name: _read(run / path) for name, path in _paths(plan).items()}
    fast = fast and sum(map(len, rows.values())) >= WORTH
    results = {name: _prepare_fast(name, given, plan, tokenizer) for name, given in rows.items()} if fast else {}
    if report:
        report(results)
    datasets = {name: result.dataset for name, result in results.items() if result.dataset is not None}
    if datasets.keys() == rows.keys():
        args.dataset_kwargs = {"skip_prepare_dataset": True}
        # The labels say it already; the trainer would look for messages to mask.
        args.assistant_only_loss = False
    else:
        datasets = {name: as_dataset(given) for name, given in rows.items()}
    return SFTTrainer(
        model=load_base(plan.model, **plan.model_kwargs),
        args=args,
        train_dataset=datasets["train"],
        eval_dataset=datasets.get("eval"),
        processing_class=tokenizer,
        peft_config=_lora(plan.lora) if plan.lora else None,
        callbacks=callbacks,
    )


def _arguments(plan: Plan, run: Path) -> SFTConfig:
    from trl import SFTConfig

    try:
        return SFTConfig(output_dir=str(run / FOLDER), **plan.training)
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(
            "The installed TRL refuses the training arguments.",
            why=str(error).splitlines()[0],
            fix="Correct `training:` in the recipe and start a new run; this one keeps the plan it was made with.",
        ) from error


def _paths(plan: Plan) -> dict[str, str]:
    """The files of rows that the trainer gets."""
    paths = {"train": plan.train.path}
    if plan.eval and plan.training["eval_strategy"] != "no":
        paths["eval"] = plan.eval.path
    return paths


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _prepare_fast(name: str, rows: list[Row], plan: Plan, tokenizer: PreTrainedTokenizerBase) -> FastResult:
    packs = plan.training.get("eval_packing") if name == "eval" else None
    training = plan.training if packs is None else {**plan.training, "packing": packs}
    return prepare_fast(rows, plan.layout, tokenizer, training)


def _lora(arguments: dict[str, Any]) -> Any:
    from peft import LoraConfig

    return LoraConfig(**arguments)
