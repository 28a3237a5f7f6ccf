"""What the first steps of a run take, beside what the plan foresaw: memory, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..records import Finding, FirstSteps, Plan, Range
from ..rules import finding
from .result import peak_memory, reserved_memory

_WARM: Final = 1  # steps that make kernels, caches and the optimizer's state
_TIMED: Final = 5
_TOLD_APART: Final = 1 << 30  # on a CPU, libraries take about as much as a smaller plan
_PROCESS_ERROR: Final = 0.3  # a process's memory tells less of its tensors' than a GPU's allocator does
_SPREAD: Final = 0.15  # of a run's pace about that of its first steps, on either side


def exceeded(plan: Plan, measured: FirstSteps) -> Iterator[Finding]:
    """R007 and R008: more memory than planned, or more time than the run may take."""
    error = plan.memory.allocated_error if plan.hardware.device == "cuda" else _PROCESS_ERROR
    # Less says nothing: longer rows may come.
    if measured.difference is not None and measured.difference > error:
        actual, planned = measured.allocated / 1e9, measured.planned / 1e9
        yield finding("R007", "memory", difference=measured.difference, actual=actual, planned=planned, error=error)
    timeout, left = plan.recipe["launch"]["timeout"], measured.remaining.likely
    if timeout is not None and left > timeout:
        yield finding("R008", "launch.timeout", left=left / 3600, timeout=timeout / 3600)


class FirstStepsCallback(TrainerCallback):
    """Measures memory and pace over the first steps after the warm-up, once."""

    def __init__(self, plan: Plan, tell: Callable[[FirstSteps], None], *, before: int) -> None:
        """`tell` receives what was measured; `before` is the peak memory before the model was loaded, in bytes."""
        self._plan = plan
        self._tell = tell
        self._before = before
        self._first = 0
        self._began = 0.0
        self._done = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember which step ends the warm-up: a resumed run has one too."""
        self._first = state.global_step + _WARM

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clock after the warm-up, and tell once enough steps are timed or there are no more."""
        if state.global_step == self._first:
            self._began = time.monotonic()
        timed = state.global_step - self._first
        if not self._done and timed >= 1 and (timed == _TIMED or state.global_step >= state.max_steps):
            self._done = True
            self._tell(self._measured(state, (time.monotonic() - self._began) / timed))

    def _measured(self, state: TrainerState, pace: float) -> FirstSteps:
        allocated = peak_memory() - self._before
        planned = self._plan.memory.allocated
        tells = planned > 0 and (self._plan.hardware.device == "cuda" or planned >= _TOLD_APART)
        left = pace * (state.max_steps - state.global_step)
        return FirstSteps(
            step=state.global_step,
            allocated=allocated,
            reserved=reserved_memory(),
            planned=planned,
            difference=allocated / planned - 1 if tells else None,
            step_seconds=pace,
            remaining=Range(low=left * (1 - _SPREAD), likely=left, high=left * (1 + _SPREAD)),
        )
