"""What the worker adds to the trainer: events, the guard against NaN, checkpoint markers, and stopping on request."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..records import Finding
from ..rules import finding
from ..track.events import EventLog
from .checkpoints import FOLDER, mark_complete

_LOGGED = ("loss", "grad_norm", "learning_rate", "epoch", "num_tokens", "mean_token_accuracy", "entropy")
_EVALUATED = ("eval_loss", "eval_mean_token_accuracy")


def all_finite(model: Any) -> bool:
    """Whether every trained weight is a number."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return all(bool(torch.isfinite(parameter).all()) for parameter in trained)


class EventCallback(TrainerCallback):
    """Writes what the trainer logs to the run's event log, with the time spent inside the training loop."""

    def __init__(self, log: EventLog, update: Callable[[dict[str, Any]], None], *, tokens: int, seconds: float) -> None:
        """`update` receives the fields of the run record that changed.

        `tokens` and `seconds` were spent before a resume, which the trainer doesn't count.
        """
        self._log = log
        self._update = update
        self._tokens = tokens
        self._seconds = seconds
        self._began = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = time.monotonic()
        self._log.write("start", state.global_step, steps=state.max_steps)
        self._update({"status": "running", "step": state.global_step, "steps": state.max_steps})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        if "loss" in logs:
            data = {name: float(logs[name]) for name in _LOGGED if name in logs}
            tokens = self._tokens + int(data.pop("num_tokens", 0))
            seconds = self._seconds + time.monotonic() - self._began
            self._log.write("log", state.global_step, num_tokens=tokens, seconds=seconds, **data)
            self._update({"step": state.global_step, "loss": data["loss"], "tokens": tokens, "seconds": seconds})
        elif "eval_loss" in logs:
            data = {name: float(logs[name]) for name in _EVALUATED if name in logs}
            self._log.write("eval", state.global_step, **data)
            self._update({"eval_loss": data["eval_loss"]})

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        # The last step is logged whatever the interval, or loss and tokens of a short run would stay unknown.
        control.should_log = control.should_log or state.global_step >= state.max_steps
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._update({"seconds": self._seconds + time.monotonic() - self._began, "step": state.global_step})


class GuardCallback(TrainerCallback):
    """Stops a run whose loss or gradient is no number, before another step is wasted."""

    def __init__(self) -> None:
        self.found: Finding | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        for name in ("loss", "grad_norm", "eval_loss"):
            value = float((logs or {}).get(name, 0.0))
            if not math.isfinite(value) and self.found is None:
                self.found = finding("R001", "training", name=name, value=value, step=state.global_step)
                control.should_training_stop = True
                control.should_save = False
        return control


class MarkerCallback(TrainerCallback):
    """Marks a checkpoint complete once everything is written and its weights are numbers."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if all_finite(model):
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            self._log.write("save", state.global_step, path=f"{FOLDER}/checkpoint-{state.global_step}")


class StopCallback(TrainerCallback):
    """Saves and stops at the end of the step in which a stop was asked for."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._asked():
            control.should_save = True
            control.should_training_stop = True
        return control
