"""Going back to the last good checkpoint, with a lower learning rate."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...records import Rollback
from ..checkpoints import MARKER, all_checkpoints, is_intact, step_of

_LOWERED: Final = "lowered_to"


def scale_of(rollbacks: list[Rollback]) -> float:
    """What the plan's learning rate is multiplied by after these."""
    return math.prod(rollback.factor for rollback in rollbacks)


def last_good(run: Path, since: int) -> Path | None:
    """The newest intact checkpoint from before step `since`; None: from the beginning."""
    earlier = [path for path in all_checkpoints(run) if step_of(path) < since]
    return next((path for path in reversed(earlier) if is_intact(path)), None)


def discard_after(run: Path, step: int) -> None:
    """Delete the checkpoints of later steps: they hold what went wrong, and a resume would take the newest."""
    for path in all_checkpoints(run):
        if step_of(path) > step:
            # The marker goes first: a folder that is half deleted must not count.
            (path / MARKER).unlink(missing_ok=True)
            shutil.rmtree(path)


class RateCallback(TrainerCallback):
    """Lowers the learning rate of a run that went back, from the step on at which training begins."""

    def __init__(self, scale: float) -> None:
        """`scale` multiplies the rate of the arguments."""
        self._scale = scale

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """The schedule's state, just loaded, carries the rate it was saved with, which may be lowered already."""
        if not hasattr(lr_scheduler, "base_lrs"):
            self._lower(optimizer)
            return
        factor = args.learning_rate * self._scale / max(lr_scheduler.base_lrs)
        lr_scheduler.base_lrs = [rate * factor for rate in lr_scheduler.base_lrs]
        lr_scheduler._last_lr = [rate * factor for rate in lr_scheduler._last_lr]
        for group in optimizer.param_groups:
            group["lr"] *= factor

    def _lower(self, optimizer: Any) -> None:
        """Schedules that go by evaluations keep the rate in the optimizer alone, with no peak to compare it to.

        Beside it, in what a checkpoint keeps of the optimizer, stands what it was multiplied by so far.
        """
        for group in optimizer.param_groups:
            group["lr"] *= self._scale / group.get(_LOWERED, 1.0)
            group[_LOWERED] = self._scale
