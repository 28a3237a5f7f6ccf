"""Saving what a run has made, whole or not at all, and what it took."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import disk_errors
from ..records import Plan
from . import ranks
from .model import save_trained

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

FOLDER = "model"


def save(trainer: Trainer, plan: Plan, run: Path) -> str:
    """Save model or adapter with its tokenizer in `run`/model, in the dtype of the source. Returns the folder's name.

    It is written beside and renamed at the end, so that `model` is whole or absent. Of several processes the main one
    writes; all of them have to call it.

    Raises:
        EnvironmentLacksError: disk full or not writable.
    """
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    if plan.peft is None and plan.model.dtype in ("bfloat16", "float16"):
        # Trained in fp32 for precision; saved as the source was, or the result takes twice the space.
        model = model.to(getattr(torch, plan.model.dtype))
    state = ranks.full_state(trainer)
    if ranks.is_main():
        _write(trainer, model, state, run)
    return FOLDER


def _write(trainer: Trainer, model: PreTrainedModel, state: dict[str, Any] | None, run: Path) -> None:
    target, partial = run / FOLDER, run / f".{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with disk_errors(target):
        save_trained(model, partial, state)
        trainer.processing_class.save_pretrained(str(partial))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)


def no_fall(losses: list[float]) -> tuple[float, float] | None:
    """Mean loss of the first and of the last third, when the fall between them is within two standard errors."""
    third = len(losses) // 3
    first, last = losses[:third], losses[-third:]
    error = ((statistics.variance(first) + statistics.variance(last)) / third) ** 0.5
    before, after = statistics.mean(first), statistics.mean(last)
    return (before, after) if before - after < 2 * error else None


def peak_memory() -> int:
    """Peak memory in bytes: allocated on the GPU where there is one, else this process's resident set."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reserved_memory() -> int | None:
    """Bytes that torch's allocator holds of the GPU at most; None without one."""
    torch = sys.modules.get("torch")
    return int(torch.cuda.max_memory_reserved()) if torch is not None and torch.cuda.is_available() else None
