"""One small module for each family of TRL's trainers; a method's name leads to its builder."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..job import Job

METHODS: Final = {
    "sft": "sft:build",
    "clm": "sft:build",
    "dpo": "preference:build_dpo",
    "kto": "preference:build_kto",
    "reward": "preference:build_reward",
    "grpo": "rl:build_grpo",
    "rloo": "rl:build_rloo",
}
"""Method -> module and function, which takes a Job and gives TRL's trainer."""

IMAGES: Final = "vision:build"
"""The same where rows have images; sft alone takes them."""


def build_trainer(job: Job) -> Any:
    """The trainer of a job's plan, with model, adapter, data and callbacks.

    Raises:
        UsageError: the model or its tokenizer can't be loaded, or TRL refuses the arguments.
    """
    module, _, name = (IMAGES if job.plan.images else METHODS[job.plan.method]).partition(":")
    build: Callable[[Job], Any] = getattr(importlib.import_module(f".{module}", __name__), name)
    from ..speed import callbacks

    trainer = build(job)
    for callback in callbacks(job.plan):
        trainer.add_callback(callback)
    return trainer
