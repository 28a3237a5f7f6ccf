"""What a plan takes, by its rows and settings; and by a measured step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import chat_rows, make_recipe, rows_of
from tests.support.runs import small_facts
from tunesmith import pipeline
from tunesmith.errors import UsageError
from tunesmith.plan.hardware import local_hardware
from tunesmith.plan.limits import disk_needs
from tunesmith.plan.machines import find_machine, hardware_of
from tunesmith.plan.outlook import options, schedule_of
from tunesmith.plan.resolve import Resolved, resolve
from tunesmith.records import FirstSteps, Plan, Range, RunRecord


def resolved(**keys: Any) -> Resolved:
    recipe = make_recipe(chat_rows(240), data={"eval": 0.25}, **keys)
    return resolve(recipe, rows_of(recipe), small_facts(), local_hardware(), run="r")


def test_the_schedule_of_a_run() -> None:
    made = resolved(training={"max_steps": 40, "save_steps": 10, "eval_steps": 20}, evaluation={"rows": 5})
    schedule = schedule_of(made.plan, made.rows)
    assert (schedule.updates, schedule.checkpoints, schedule.evaluations) == (40, 4, 2)
    assert (schedule.eval_rows, schedule.compared_rows) == (len(made.rows.eval), 5)
    assert (schedule.merged, schedule.gguf, schedule.download) == (True, 2, 0)
    assert 0 < schedule.scored < 1
    prompt, total = made.rows.lengths.prompt, made.rows.lengths.total
    assert prompt is not None
    assert schedule.scored == pytest.approx(1 - prompt.mean / total.mean)


@pytest.mark.parametrize(
    ("training", "checkpoints", "evaluations"),
    [
        ({"save_strategy": "no", "eval_strategy": "no"}, 0, 0),
        ({"save_strategy": "epoch", "eval_strategy": "epoch"}, 3, 3),
        ({"save_strategy": "epoch", "num_train_epochs": 1.5, "eval_strategy": "no"}, 2, 0),
        ({"save_steps": 0.5, "eval_steps": 0.25}, 2, 4),
    ],
)
def test_intervals(training: dict[str, Any], checkpoints: int, evaluations: int) -> None:
    made = resolved(training=training)
    schedule = schedule_of(made.plan, made.rows)
    assert (schedule.checkpoints, schedule.evaluations) == (checkpoints, evaluations)


def test_all_weights_are_not_merged() -> None:
    made = resolved(adapter={"kind": "none"})
    assert not schedule_of(made.plan, made.rows).merged


@pytest.mark.parametrize("kind", ["none", "lora", "qlora"])
def test_disk_is_held_against_what_each_way_to_train_writes(kind: str) -> None:
    def lacks(spare: int) -> str:
        machine = replace(gpu, disk=made.plan.model.bytes + sum(disk_needs(planned).values()) + spare)
        found = options(made.plan, made.step, made.rows, [machine])
        return next(one.lacks for one in found if one.adapter == kind)

    made, gpu = resolved(), replace(find_machine("h200"), ram=0)
    recipe = make_recipe(chat_rows(240), data={"eval": 0.25}, adapter={"kind": kind})
    planned = resolve(recipe, rows_of(recipe), small_facts(), hardware_of(gpu), run="r", machine=gpu).plan
    assert lacks(0) == ""
    assert lacks(-1).endswith("GB of disk")


def test_time_by_a_measured_step() -> None:
    made = resolved()
    assert made.plan.time is not None
    slow = made.at_speed(10 * made.plan.time.step_seconds.likely).plan.time
    assert slow is not None
    assert slow.train.likely == pytest.approx(10 * made.plan.time.train.likely, rel=0.01)
    assert (slow.train.high - slow.train.low) / slow.train.likely < 0.3
    assert slow.basis.startswith("measured")


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Plan]]:
    """The run folders that a probe would train, with steps of 100 seconds."""
    found: list[tuple[Path, Plan]] = []

    def train(folder: Path, listen: Any) -> RunRecord:
        found.append((folder, Plan.load(folder)))
        left = Range(low=0, likely=0, high=0)
        first = FirstSteps(
            step=6, allocated=1, reserved=None, planned=1, difference=None, step_seconds=100.0, remaining=left
        )
        return RunRecord.load(folder).model_copy(update={"first_steps": first})

    monkeypatch.setattr(pipeline, "train_run", train)
    return found


def test_a_probe_trains_a_few_steps_and_leaves_nothing(probed: list[tuple[Path, Plan]]) -> None:
    recipe = make_recipe(chat_rows(60), training={"max_steps": 500, "learning_rate": 1e-3})
    plan = pipeline.make_plan(recipe, probe=True)
    ((folder, probe),) = probed
    assert not folder.exists()
    assert (probe.steps, probe.training["save_strategy"], probe.training["learning_rate"]) == (6, "no", 1e-3)
    assert plan.steps == 500
    assert plan.time is not None
    assert plan.time.train.likely == pytest.approx(50_000, rel=0.01)


def test_a_probed_plan_in_a_run_folder(probed: list[tuple[Path, Plan]]) -> None:
    plan = Plan.load(pipeline.prepare_run(make_recipe(chat_rows(60)), Path("run"), probe=True))
    assert len(probed) == 1
    assert plan.time is not None
    assert plan.time.basis.startswith("measured")


def test_another_machine_is_not_probed_here() -> None:
    with pytest.raises(UsageError, match="hf-jobs can't be probed here"):
        pipeline.make_plan(make_recipe(launch={"on": "hf-jobs", "flavor": "l4x1"}), probe=True)
