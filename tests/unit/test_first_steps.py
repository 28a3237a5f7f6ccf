"""When the first steps are measured, and what is told of them."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from tests.support.plans import GPU, make_plan, make_recipe
from tunesmith.records import FirstSteps, Plan
from tunesmith.train import first_steps

MIB = 1 << 20


def run(plan: Plan, monkeypatch: pytest.MonkeyPatch, *, steps: int, start: int = 0) -> list[FirstSteps]:
    """What is told over a run from step `start` on, of two seconds a step, in a process that grows by 100 MiB."""
    clock = {"now": 0.0}
    monkeypatch.setattr(first_steps.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(first_steps, "peak_memory", lambda: 150 * MIB)
    monkeypatch.setattr(first_steps, "reserved_memory", lambda: 200 * MIB)
    told: list[FirstSteps] = []
    callback = first_steps.FirstStepsCallback(plan, told.append, before=50 * MIB)
    arguments, control = TrainingArguments(output_dir="out", use_cpu=True), TrainerControl()
    state = TrainerState(global_step=start, max_steps=steps)
    callback.on_train_begin(arguments, state, control)
    for step in range(start + 1, steps + 1):
        clock["now"] += 60.0 if step == start + 1 else 2.0  # the first step compiles and allocates
        state.global_step = step
        callback.on_step_end(arguments, state, control)
    return told


@pytest.fixture
def plan() -> Plan:
    return make_plan(make_recipe())


@pytest.mark.parametrize(
    ("steps", "start", "at"), [(100, 0, [6]), (100, 40, [46]), (4, 0, [4]), (2, 0, [2]), (1, 0, [])]
)
def test_once_after_the_warm_up(
    steps: int, start: int, at: list[int], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = run(plan, monkeypatch, steps=steps, start=start)
    assert [one.step for one in told] == at
    for one in told:
        assert one.step_seconds == pytest.approx(2.0)
        assert one.remaining.likely == pytest.approx(2.0 * (steps - one.step))
        assert (one.allocated, one.reserved) == (100 * MIB, 200 * MIB)


@pytest.mark.parametrize(
    ("device", "planned", "difference"),
    [("cuda", 80 * MIB, 0.25), ("cpu", 80 * MIB, None), ("cpu", 2000 * MIB, -0.95), ("cuda", 0, None)],
)
def test_the_difference_from_the_plan(
    device: str, planned: int, difference: float | None, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {
        "memory": plan.memory.model_copy(update={"allocated": planned}),
        "hardware": GPU if device == "cuda" else plan.hardware,
    }
    (one,) = run(plan.model_copy(update=changes), monkeypatch, steps=10)
    assert one.planned == planned
    assert one.difference == (None if difference is None else pytest.approx(difference))
