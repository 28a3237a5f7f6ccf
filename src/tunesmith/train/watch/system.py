"""Memory and load of the machine while it trains."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...track.events import EventLog


class SystemCallback(TrainerCallback):
    """Writes what the machine is busy with to the event log, at most once every `seconds`; Trackio looks by itself.

    `failed` is told once of a GPU whose driver doesn't tell its load; what PyTorch knows of its memory is kept.
    """

    def __init__(self, log: EventLog, seconds: float, failed: Callable[[str], None]) -> None:
        self._log = log
        self._seconds = seconds
        self._failed = functools.cache(failed)  # a fault is told once
        self._process = psutil.Process()
        self._last = -seconds
        self._process.cpu_percent()  # the first call has no earlier one to compare with, and gives 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look, where it is time."""
        now = time.monotonic()
        if now - self._last >= self._seconds:
            self._last = now
            self._log.write("system", state.global_step, **self.measured())

    def measured(self) -> dict[str, float]:
        """Bytes, and percent: of the process its memory and its share of one core; of a GPU what its driver tells."""
        memory = psutil.virtual_memory()
        values = {
            "process_bytes": float(self._process.memory_info().rss),
            "process_cpu_percent": self._process.cpu_percent(),
            "memory_free_bytes": float(memory.available),
            "memory_percent": memory.percent,
        }
        return values | (self._gpu() if torch.cuda.is_available() else {})

    def _gpu(self) -> dict[str, float]:
        """The device's memory, and its load where the driver tells it through nvidia-ml-py."""
        free, total = torch.cuda.mem_get_info()
        values = {"gpu_free_bytes": float(free), "gpu_memory_percent": 100 * (1 - free / total)}
        try:
            values["gpu_percent"] = float(torch.cuda.utilization())
            values["gpu_watts"] = torch.cuda.power_draw() / 1000
            values["gpu_celsius"] = float(torch.cuda.temperature())
        except Exception as error:  # no nvidia-ml-py, or one of the many faults of its own of a driver
            self._failed(f"{type(error).__name__}: {error}".splitlines()[0])
        return values
