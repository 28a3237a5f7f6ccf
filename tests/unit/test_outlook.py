"""What a plan takes, by its rows and settings; and by a measured step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import chat_rows, make_recipe, rows_of
from tests.support.runs import small_facts
from tests.support.steps import llama
from tunesmith import pipeline
from tunesmith.errors import UsageError
from tunesmith.plan.compare import recommend
from tunesmith.plan.hardware import local_hardware
from tunesmith.plan.limits import disk_needs
from tunesmith.plan.machines import find_machine, hardware_of
from tunesmith.plan.outlook import options, schedule_of
from tunesmith.plan.resolve import Resolved, resolve
from tunesmith.records import FirstSteps, MachineOption, ModelFacts, Plan, Range, RunRecord


def resolved(**keys: Any) -> Resolved:
    recipe = make_recipe(chat_rows(240), data={"eval": 0.25}, **keys)
    return resolve(recipe, rows_of(recipe), small_facts(), local_hardware(), run="r")


def test_the_schedule_of_a_run() -> None:
    made = resolved(training={"max_steps": 40, "save_steps": 10, "eval_steps": 20}, evaluation={"rows": 5})
    schedule = schedule_of(made.settled)
    assert (schedule.updates, schedule.checkpoints, schedule.evaluations) == (40, 4, 2)
    assert (schedule.eval_rows, schedule.compared_rows) == (len(made.settled.rows.eval), 5)
    assert (schedule.merged, schedule.gguf, schedule.download) == (True, 2, 0)
    assert 0 < schedule.scored < 1
    prompt, total = made.settled.rows.lengths.prompt, made.settled.rows.lengths.total
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
    schedule = schedule_of(made.settled)
    assert (schedule.checkpoints, schedule.evaluations) == (checkpoints, evaluations)


def test_all_weights_are_not_merged() -> None:
    made = resolved(adapter={"kind": "none"})
    assert not schedule_of(made.settled).merged


EIGHT = llama(context=8192)  # billion parameters


def compared(*names: str, model: ModelFacts = EIGHT, **keys: Any) -> list[MachineOption]:
    """Options for a model of eight billion parameters, of which 240 rows of 440 tokens are trained."""
    recipe = make_recipe(chat_rows(240, words=400), data={"eval": 0.25}, **keys)
    made = resolve(recipe, rows_of(recipe), model, local_hardware(), run="r")
    return options(made.plan, made.settled, map(find_machine, names))


def by_kind(name: str, **how: Any) -> dict[str, MachineOption]:
    return {one.adapter: one for one in compared(name, **how)}


def test_the_base_of_an_adapter_is_compared_in_half_wherever_the_recipe_is_for() -> None:
    """On a processor, where the recipe would train, it is loaded in float32."""
    found = by_kind("h200")
    assert [found[kind].dtype for kind in ("none", "lora", "qlora")] == ["float32", "bfloat16", "bfloat16"]
    assert by_kind("t4-medium")["lora"].dtype == "float32"  # its tensor cores have no bf16


def test_full_fine_tuning_falls_back_to_bf16_and_says_what_that_costs() -> None:
    fallback = by_kind("a100-large")["none"]
    assert (fallback.fits, fallback.dtype) == (True, "bfloat16")
    assert "P010" in fallback.note
    fits = by_kind("h200")["none"]
    assert (fits.fits, fits.dtype, fits.note) == (True, "float32", "")


def test_what_the_recipe_sets_holds_for_every_machine() -> None:
    fixed = by_kind("a100-large", dtype="float32")
    assert {one.dtype for one in fixed.values()} == {"float32"}
    assert not fixed["none"].fits
    given = {"per_device_train_batch_size": 1, "gradient_checkpointing": True}
    assert {(one.rows, one.checkpointing) for one in compared("h200", training=given)} == {(1, "full")}
    shared = by_kind("a100x4", launch={"sharding": "ddp"})
    assert (shared["none"].sharding, shared["none"].fits, shared["lora"].sharding) == ("ddp", False, "ddp")


def test_several_devices_share_the_weights_of_full_fine_tuning() -> None:
    four = by_kind("a100x4")
    assert (four["none"].dtype, four["none"].fits, four["none"].sharding) == ("float32", True, "fsdp")
    assert (four["lora"].sharding, four["qlora"].sharding) == ("ddp", "ddp")
    assert "FSDP" in four["none"].note
    assert "FSDP" not in four["lora"].note


def test_a_base_that_fits_on_no_device_is_spread_but_not_one_in_4_bits() -> None:
    four = by_kind("l4x4", dtype="float32")
    assert (four["lora"].sharding, four["lora"].fits) == ("fsdp", True)
    spread = by_kind("l4x4", launch={"sharding": "fsdp"})
    assert (spread["lora"].sharding, spread["qlora"].sharding) == ("fsdp", "ddp")


@pytest.mark.parametrize("launch", [{}, {"processes": 2}, {"processes": 2, "nodes": 3}])
def test_a_recipe_for_this_machine_takes_all_devices_of_another(launch: dict[str, Any]) -> None:
    assert by_kind("a100x4", launch=launch)["lora"] == by_kind("a100x4")["lora"]
    rented = by_kind("a100x4", launch={"on": "hf-jobs", "flavor": "a100x4"})["lora"]
    assert rented == by_kind("a100x4")["lora"]
    half = by_kind("a100x4", launch={"on": "hf-jobs", "flavor": "a100x4", "processes": 2})["lora"]
    assert half.tokens_per_second != rented.tokens_per_second


def test_small_cards_take_qlora_only() -> None:
    found = {kind: one.fits for kind, one in by_kind("rtx-4060-ti-16gb").items()}
    assert found == {"none": False, "lora": False, "qlora": True}


def test_what_the_recipe_trains_is_compared_too() -> None:
    assert {one.adapter for one in compared("h200", adapter={"kind": "ia3"})} == {"none", "lora", "qlora", "ia3"}


def test_a_small_model_is_not_recommended_a_big_machine() -> None:
    best, _ = recommend(compared("a10g-small", "h200x8", model=small_facts()), "lora")
    assert best is not None
    assert best.machine == "a10g-small"


@pytest.mark.parametrize("kind", ["none", "lora", "qlora"])
def test_disk_is_held_against_what_each_way_to_train_writes(kind: str) -> None:
    def lacks(spare: int) -> str:
        machine = replace(gpu, disk=made.plan.model.bytes + sum(disk_needs(planned).values()) + spare)
        found = options(made.plan, made.settled, [machine])
        return next(one.lacks for one in found if one.adapter == kind)

    made, gpu = resolved(), replace(find_machine("h200"), ram=0)
    recipe = make_recipe(chat_rows(240), data={"eval": 0.25}, adapter={"kind": kind})
    planned = resolve(recipe, rows_of(recipe), small_facts(), hardware_of(gpu), run="r", machine=gpu).plan
    assert lacks(0) == ""
    assert lacks(-1).endswith("GB of disk")


def test_disk_is_held_against_the_checkpoints_that_a_run_there_writes() -> None:
    """Eight devices with 16 rows each take an eighth of the steps."""
    eight = replace(find_machine("h200x8"), ram=0)
    often = {"per_device_train_batch_size": 16, "save_steps": 1, "save_total_limit": 400}
    keys: dict[str, Any] = {"training": often, "adapter": {"kind": "none"}}
    launch = {"on": "hf-jobs", "flavor": "h200x8"}
    recipe = make_recipe(chat_rows(240), data={"eval": 0.25}, launch=launch, **keys)
    planned = resolve(recipe, rows_of(recipe), small_facts(), hardware_of(eight), run="r", machine=eight).plan
    room = replace(eight, disk=planned.model.bytes + sum(disk_needs(planned).values()))
    here = resolved(**keys)
    assert sum(disk_needs(here.plan).values()) > sum(disk_needs(planned).values())
    (found,) = options(here.plan, here.settled, [room], ["none"])
    assert found.lacks == ""


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
