"""What every method's trainer is built from: a plan, its run folder, and what the worker listens with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.fast import FastResult
from ..data.rows import Row, without_columns
from ..errors import UsageError
from ..models.load import load_planned_tokenizer, load_processor
from ..records import Plan
from .checkpoints import FOLDER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback

    from .model import Trainable


def _silent(_results: dict[str, FastResult]) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Job:
    """One training, as the builders of methods get it.

    Attributes:
        plan: The plan.
        run: The run folder.
        callbacks: The trainer's.
        fast: Prepare the rows on the fast path where they are many, and it gives what the trainer's own gives.
        report: Is told how the fast path fared with the rows ("train", "eval").
    """

    plan: Plan
    run: Path
    callbacks: list[TrainerCallback] = field(default_factory=list)
    fast: bool = True
    report: Callable[[dict[str, FastResult]], None] = _silent

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, with the recipe's chat template.

        Raises:
            UsageError: it can't be loaded.
        """
        return load_planned_tokenizer(self.plan.model, self.plan.recipe["chat_template"])

    @cached_property
    def processor(self) -> PreTrainedTokenizerBase | ProcessorMixin:
        """What makes batches of the rows: the tokenizer, or with images the model's processor.

        Raises:
            UsageError: it can't be loaded.
        """
        if not self.plan.images:
            return self.tokenizer
        model = self.plan.model
        return load_processor(model.location, revision=model.revision, chat_template=self.plan.recipe["chat_template"])

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The prepared rows that the trainer gets, by "train" and "eval"."""
        paths = {"train": self.plan.train.path}
        if self.plan.eval and self.plan.training["eval_strategy"] != "no":
            paths["eval"] = self.plan.eval.path
        return {name: _read(self.run / path) for name, path in paths.items()}

    def given(self, trainable: Trainable) -> dict[str, Any]:
        """The arguments that the trainer of every method takes alike."""
        return {
            "model": trainable.model,
            "peft_config": trainable.peft_config,
            "processing_class": self.processor,
            "callbacks": self.callbacks,
        }

    def arguments(self, config: type) -> Any:
        """The plan's training arguments as TRL's config class of the method.

        Raises:
            UsageError: TRL refuses them.
        """
        # The trainer deletes old checkpoints before the new one is known to be whole; the worker does so after.
        training = {**self.plan.training, "save_total_limit": None}
        try:
            return config(output_dir=str(self.run / FOLDER), **training)
        except (ValueError, TypeError, ImportError) as error:
            raise UsageError(
                "The installed TRL refuses the training arguments.",
                why=str(error).splitlines()[0],
                fix="Correct `training:` in the recipe and start a new run; this one keeps the plan it was made with.",
            ) from error


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as file:
        return [without_columns(json.loads(line)) for line in file]
