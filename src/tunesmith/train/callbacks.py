"""What the worker adds to the trainer: events, and checkpoints that count once they are whole."""

from __future__ import annotations

import numbers
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..records import CheckpointOrigin
from ..track.events import EventLog
from . import ranks
from .checkpoints import FOLDER, mark_complete, prune


def all_finite(model: Any) -> bool:
    """Whether every trained weight is a number, in all processes; all of them have to call it."""
    trained = (ranks.local_part(parameter) for parameter in model.parameters() if parameter.requires_grad)
    return all(ranks.gathered(all(bool(torch.isfinite(part).all()) for part in trained)))


def figures(logs: dict[str, Any], *, evaluated: bool = False) -> dict[str, float]:
    """The numbers that a trainer logs, of the evaluation or of training; TRL gives None where it has no value."""
    return {
        name: float(value)
        for name, value in logs.items()
        if isinstance(value, numbers.Real) and name.startswith("eval_") == evaluated
    }


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
        trained, evaluated = figures(logs or {}), figures(logs or {}, evaluated=True)
        if "loss" in trained:
            # Of answers that the model writes, the trainer's state counts the tokens, and a checkpoint keeps it.
            before = 0 if state.num_input_tokens_seen else self._tokens
            tokens = before + int(trained.pop("num_tokens", 0))
            seconds = self._seconds + time.monotonic() - self._began
            self._log.write("log", state.global_step, num_tokens=tokens, seconds=seconds, **trained)
            self._update({"step": state.global_step, "loss": trained["loss"], "tokens": tokens, "seconds": seconds})
        elif evaluated:
            self._log.write("eval", state.global_step, **evaluated)
            self._update({"eval_loss": evaluated.get("eval_loss")})

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


class CheckpointCallback(TrainerCallback):
    """Marks a checkpoint complete once everything is written and its weights are numbers; only then old ones go."""

    def __init__(
        self,
        log: EventLog,
        origin: CheckpointOrigin,
        *,
        keep: int | None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`keep` is how many complete checkpoints stay, beside the best one; None: all.

        Once `stopped` by the guard, a run deletes none: the last good one may be the oldest.
        """
        self._log = log
        self._origin = origin
        self._keep = keep
        self._stopped = stopped

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        # Once all have answered, all have written their parts.
        if not all_finite(model) or not ranks.is_main():
            return
        folder = Path(args.output_dir)
        checkpoint = folder / f"checkpoint-{state.global_step}"
        self._origin.save(checkpoint)
        mark_complete(checkpoint)
        self._log.write("save", state.global_step, path=f"{FOLDER}/{checkpoint.name}")
        if self._stopped():
            return
        best = state.best_model_checkpoint
        prune(folder.parent, self._keep, best=Path(best) if best else None)
