"""Which evaluation is the best, and when to stop because no better one comes.

Both are read from the trainer's log, which a checkpoint keeps: so a resumed run decides as an undisturbed one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...records import BestCheckpoint, Finding
from ...rules import finding
from ..checkpoints import is_complete
from ..requests import Finished

if TYPE_CHECKING:
    from transformers import Trainer


@dataclass(frozen=True)
class Choosing:
    """How evaluations are compared.

    Attributes:
        metric: Its name without `eval_`.
        higher: Whether more is better.
        patience: Evaluations without a better one after which training stops; None: never.
        least: What a better one must be better by, for patience.
    """

    metric: str
    higher: bool
    patience: int | None = None
    least: float = 0.0

    def evaluations(self, log: Iterable[dict[str, Any]]) -> list[tuple[int, float]]:
        """Step and metric of each evaluation that a trainer has logged, in order."""
        name = f"eval_{self.metric.removeprefix('eval_')}"
        return [(int(entry["step"]), float(entry[name])) for entry in log if entry.get(name) is not None]

    def best(self, log: Iterable[dict[str, Any]]) -> BestCheckpoint | None:
        """The first of the best evaluations, as the trainer chooses it (Trainer._determine_best_metric)."""
        # Of the untrained model, which `eval_on_start` measures, there is no checkpoint.
        numbers = [one for one in self.evaluations(log) if one[0] and not math.isnan(one[1])]
        if not numbers:
            return None
        value = (max if self.higher else min)(value for _, value in numbers)
        step = next(step for step, other in numbers if other == value)
        return BestCheckpoint(step=step, metric=self.metric, value=value)

    def waited(self, log: Iterable[dict[str, Any]]) -> tuple[int, int]:
        """Evaluations since one was better by `least` than all before, and the step of that one (Prechelt 1998)."""
        best, step, waited = None, 0, 0
        for at, value in self.evaluations(log):
            gain = math.inf if best is None else (value - best) * (1 if self.higher else -1)
            if not math.isnan(value) and (best is None or gain > self.least):
                best, step, waited = value, at, 0
            else:
                waited += 1
        return waited, step

    def ends(self, log: Iterable[dict[str, Any]]) -> bool:
        """Whether training stops here."""
        return self.patience is not None and self.waited(log)[0] >= self.patience


class BestCallback(TrainerCallback):
    """Tells of the best evaluation, and stops where none has been better for a while."""

    def __init__(self, choosing: Choosing, tell: Callable[[BestCheckpoint], None]) -> None:
        self._choosing = choosing
        self._tell = tell

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A run that was killed after it had stopped, and before its result was saved, doesn't go on."""
        if self._choosing.ends(state.log_history):
            raise Finished

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Look at the evaluation that was just logged."""
        if best := self._choosing.best(state.log_history):
            self._tell(best)
        if self._choosing.ends(state.log_history):
            control.should_training_stop = True
            control.should_save = True
        return control


def take_best(trainer: Trainer) -> None:
    """Load the best checkpoint where evaluations choose the result, and the trainer ended before it did so itself."""
    state = trainer.state
    if not trainer.args.load_best_model_at_end or not state.best_global_step:
        return
    best = Path(trainer.args.output_dir) / f"checkpoint-{state.best_global_step}"
    if is_complete(best):
        state.best_model_checkpoint = str(best)
        trainer._load_best_model()


def outcome(choosing: Choosing, state: TrainerState) -> Iterator[Finding]:
    """R032 where training stopped early, R033 where the result isn't the last step's."""
    log = state.log_history
    count, since = choosing.waited(log)
    if choosing.ends(log) and state.global_step < state.max_steps:
        yield finding(
            "R032",
            "watch.early_stopping",
            metric=choosing.metric,
            count=count,
            step=since,
            steps=state.max_steps,
            more=2 * count,
        )
    best = choosing.best(log)
    if best and best.step != state.global_step:
        yield finding("R033", "model", best=best.step, last=state.global_step, metric=best.metric, value=best.value)
