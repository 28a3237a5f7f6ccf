"""Seconds of optimizer steps, the device's work included."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Clock(TrainerCallback):
    """Takes the time of each step.

    Attributes:
        seconds: Of every step.
    """

    def __init__(self, *, warm: int) -> None:
        """The first `warm` steps compile kernels and make the optimizer's state."""
        self.seconds: list[float] = []
        self._warm = warm
        self._last = 0.0

    @property
    def timed(self) -> list[float]:
        """Seconds of the steps after the warm ones."""
        return self.seconds[self._warm :]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start."""
        self._last = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take the time, once the device has done what it was given."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
