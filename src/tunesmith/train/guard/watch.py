"""The guard: holds a run against the rules while it trains, and warns, stops it after saving, or sends it back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...recipe.guard import Action, Guard
from ...records import Finding, Plan, Rollback, Severity
from ...rules import finding
from ...words import counted
from .limits import Limits, check_room
from .policy import ChosenFalls, Collapse, CutOff, EqualRewards, NoMargin, NoSignal
from .rollback import scale_of
from .signals import (
    Detector,
    Diverges,
    Logs,
    NoBetter,
    NotFinite,
    Overfits,
    Signal,
    Spikes,
    WorseThanGuessing,
    ZeroGradient,
)
from .stall import Watchdog
from .weights import Moved

_WHERE: Final = {
    "R012": "model",
    "R013": "evaluation",
    "R014": "evaluation",
    "R021": "machine",
    "R022": "launch.timeout",
    "R023": "launch.budget",
    "R024": "disk",
}
_GOES_ON: Final = "the run goes on"
_MOVED_AFTER: Final = 10  # steps past the warm-up


def detectors(
    method: str, args: Any, *, rate: float, warm_up: int, vocabulary: int, steps: float = math.inf
) -> list[Detector]:
    """Those that a method's metrics feed.

    Args:
        method: As TRL names it.
        args: The trainer's.
        rate: The peak learning rate.
        warm_up: Steps of the warm-up.
        vocabulary: Tokens that the model chooses from; 0 where it isn't known.
        steps: Of the whole run.
    """
    found: list[Detector] = [NotFinite(scaled=args.fp16), ZeroGradient()]
    if method in ("grpo", "rloo"):
        found += [NoSignal(), EqualRewards(), CutOff(args.max_completion_length), Collapse()]
        return [*found, NoBetter("eval_reward", "the mean reward", rises=True)]
    found += [Spikes(rate), Diverges(rate, steps), Overfits(), NoBetter("eval_loss", "the loss")]
    if method in ("sft", "clm") and vocabulary:
        found.append(WorseThanGuessing(vocabulary, rate, steps))
    if method in ("dpo", "kto"):
        found.append(ChosenFalls(args.beta))
    if method in ("dpo", "reward"):
        found.append(NoMargin("rewards/margins" if method == "dpo" else "margin", warm_up))
    return found


class GuardCallback(TrainerCallback):
    """Holds a run against the rules of letter R while it trains.

    Attributes:
        stopped_by: What the run was stopped for.
        back: What the run is to go back for; the trainer has stopped, and its weights don't count.
    """

    def __init__(
        self,
        plan: Plan,
        tell: Callable[[Finding], None],
        *,
        rollbacks: list[Rollback] | None = None,
        limits: Limits | None = None,
        interrupt: Callable[[], None] = lambda: None,
        watchdog: Callable[[Callable[[Signal], None]], Watchdog] = Watchdog,
    ) -> None:
        """`tell` gets the findings; `interrupt` asks for a stop from another thread; `rollbacks` came before."""
        self.stopped_by: Finding | None = None
        self.back: Signal | None = None
        self._plan = plan
        self._tell = tell
        self._guard = Guard.model_validate(plan.recipe.get("guard", {}))
        self._rollbacks = rollbacks or []
        self._limits = limits or Limits.of(plan, 0.0)
        self._interrupt = interrupt
        self._watchdog = watchdog(self._stalled)
        self._told: set[str] = set()
        self._detectors: list[Detector] = []
        self._moved: Moved | None = None
        self._moved_at = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Bring the detectors up to what a resumed run has logged before, and look at the weights."""
        if state.global_step:
            args.eval_on_start = False  # the untrained model's evaluation is in the history
        warm_up = args.get_warmup_steps(state.max_steps)
        rate = args.learning_rate * scale_of(self._rollbacks)
        vocabulary, steps = self._plan.model.vocabulary, state.max_steps
        self._detectors = detectors(
            self._plan.method, args, rate=rate, warm_up=warm_up, vocabulary=vocabulary, steps=steps
        )
        for logs in state.log_history:
            for signal in self._signals(logs["step"], logs):
                self._seen_before(signal)
        self._moved = Moved(model)
        self._moved_at = min(max(warm_up, state.global_step) + _MOVED_AFTER, state.max_steps)
        if self._moved_at <= max(warm_up, state.global_step) + 1:
            self._moved = None  # at a rate of zero, as a warm-up begins and a schedule ends, nothing moves
        self._watchdog.start()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Ask the detectors about what was logged, and whether the weights have moved."""
        for signal in self._signals(state.global_step, logs or {}):
            self._act(signal, control)
        if self._moved is not None and state.global_step >= self._moved_at and (logs or {}).get("grad_norm"):
            count, moved, self._moved = self._moved.count, self._moved.changed(), None
            if not moved:
                self._act(Signal("R012", 1, {"step": state.global_step, "count": count}), control)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Progress."""
        self._watchdog.beat(state.global_step)

    on_substep_end = on_step_begin
    on_prediction_step = on_step_begin
    on_evaluate = on_step_begin

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Progress; and time and money, while there are steps left."""
        self._watchdog.beat(state.global_step)
        self._limits.stepped()
        if state.global_step < state.max_steps and (signal := self._limits.check(state.global_step, state.max_steps)):
            self._act(signal, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Progress; and the disk, while there are checkpoints to come."""
        self._watchdog.beat(state.global_step)
        self._limits.saved()
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.global_step < state.max_steps and (signal := check_room(checkpoint, state.global_step)):
            self._act(signal, control)
            control.should_save = False  # this step's checkpoint is written

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What only shows at the end, of a run that got there."""
        self.close()
        ended = state.global_step >= state.max_steps and self.stopped_by is None and self.back is None
        for detector in self._detectors if ended else []:
            if signal := detector.end():
                self._act(signal, control)

    def close(self) -> None:
        """Watch no longer."""
        self._watchdog.close()

    @property
    def rate_factor(self) -> float:
        """What the learning rate is multiplied by when the run goes back."""
        return self._guard.rate_factor

    def _signals(self, step: int, logs: Logs) -> list[Signal]:
        return [signal for detector in self._detectors if (signal := detector.see(step, logs))]

    def _seen_before(self, signal: Signal) -> None:
        """Of a history that a resumed run begins with: once stopped for it, the run was resumed in spite of it."""
        action = self._guard.action(signal.code)
        if action == "off" or signal.code in self._told:
            return
        self._told.add(signal.code)
        self._find(signal, "warning", _GOES_ON if action == "warn" else "the run was resumed in spite of it")

    def _act(self, signal: Signal, control: TrainerControl) -> None:
        action, tried = self._guard.action(signal.code), ""
        if action == "off" or signal.code in self._told or self.stopped_by or self.back:
            return
        self._told.add(signal.code)
        if action == "rollback" and len(self._rollbacks) >= self._guard.rollbacks:
            action, tried = "stop", f", after going back {counted(len(self._rollbacks), 'time')}"
        if action == "warn":
            self._find(signal, "warning", _GOES_ON)
            return
        control.should_training_stop = True
        control.should_save = action == "stop" and signal.code != "R001"  # weights that are no numbers aren't saved
        control.should_evaluate = False
        if action == "stop":
            self.stopped_by = self._find(signal, "error", f"the run was stopped{tried}")
        else:
            self.back = signal
            self._find(signal, "warning", "the run goes back, to a lower learning rate")

    def _stalled(self, signal: Signal) -> None:
        """Called from the watchdog's thread."""
        action: Action = self._guard.action(signal.code)
        if action == "off" or signal.code in self._told:
            return
        self._told.add(signal.code)
        if action == "warn":
            self._find(signal, "warning", _GOES_ON)
        else:
            self.stopped_by = self._find(signal, "error", "the run is stopped")
            self._interrupt()

    def _find(self, signal: Signal, severity: Severity, done: str) -> Finding:
        where = _WHERE.get(signal.code, "training")
        found = finding(signal.code, where, severity=severity, done=done, **signal.details)
        self._tell(found)
        return found
