"""What one of several processes decides while it trains, all of them do."""

from __future__ import annotations

from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..records import Plan
from ..rules import refuse_errors
from .ranks import anywhere, check_replicas

_FLAGS: Final = ("should_training_stop", "should_epoch_stop", "should_save", "should_evaluate", "should_log")


class TogetherCallback(TrainerCallback):
    """Keeps the processes in step: what one of them decides, by its clock or because of a signal, all do.

    It has to come after every callback that decides.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def _agree(self, control: TrainerControl) -> TrainerControl:
        for name, flag in zip(_FLAGS, anywhere(*(getattr(control, name) for name in _FLAGS)), strict=True):
            setattr(control, name, flag)
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> TrainerControl:
        """After the step all processes save, evaluate or stop, or none does; what is saved is the same in all.

        Raises:
            FindingsError: R035, the processes' weights have become different.
        """
        self._agree(control)
        if control.should_save:
            refuse_errors(check_replicas(model, self._plan))
        return control

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """The same for what the logged numbers led to."""
        return self._agree(control)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """The same for what the evaluation led to."""
        return self._agree(control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """The same once a checkpoint is written: a stop may have been asked for meanwhile."""
        return self._agree(control)
