"""Where a run can stop: its weights are whole at the end of a step, and within a step until the optimizer begins."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .checkpoints import is_complete
from .requests import Finished, Interrupted, StopRequest

if TYPE_CHECKING:
    from transformers import Trainer


class StopCallback(TrainerCallback):
    """Saves and stops at the first moment after a stop was asked for at which the weights are whole."""

    def __init__(self, request: StopRequest) -> None:
        self._request = request
        self._random: dict[str, Any] = {}
        self._new_epoch = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave at once where nothing is left to do."""
        if state.global_step >= state.max_steps:
            # The trainer would do one more step where the last one isn't the end of an epoch (Transformers 5.23).
            raise Finished

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the random numbers of before the order of rows is drawn: there a resume between epochs takes them up."""
        self._new_epoch = float(state.epoch or 0).is_integer()
        if self._new_epoch:
            self._random = random_state()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave where a stop was asked for since the last step; from here on the step can be given up."""
        if not self._new_epoch:
            self._random = random_state()
        self._new_epoch = False
        # One process of several that leaves a step would let the others wait for it.
        if args.world_size == 1:
            if self._request.asked:
                raise Interrupted
            self._request.within_step = True

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From here on it can't."""
        self._request.within_step = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Save and stop where that was asked for."""
        self._random = {}
        if self._request.asked:
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give up an evaluation that takes too long."""
        if self._request.overdue and args.world_size == 1:
            raise Interrupted

    def rewind(self) -> None:
        """Take random numbers back to the beginning of the step that was interrupted, where one was."""
        self._request.served()
        if self._random:
            set_random_state(self._random)


def save_now(trainer: Trainer) -> None:
    """Write a checkpoint of the last whole step, unless there is one or nothing was trained."""
    state, args = trainer.state, trainer.args
    if state.global_step and not is_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}"):
        trainer._save_checkpoint(trainer.model, trial=None)
        trainer.callback_handler.on_save(args, state, trainer.control)


def random_state() -> dict[str, Any]:
    """The states of all generators that a checkpoint keeps (Transformers 5.23, Trainer._save_rng_state)."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to a state that `random_state` gave."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
