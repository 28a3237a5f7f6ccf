"""Several processes that train one run together, on CPUs: the result is that of one process, and they act as one."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from tunesmith import pipeline
from tunesmith.demo import task
from tunesmith.errors import EnvironmentLacksError, StoppedError, TunesmithError
from tunesmith.plan.choices import Choices
from tunesmith.plan.processes import choose_processes
from tunesmith.recipe import build_recipe
from tunesmith.records import Event, Plan, RunRecord
from tunesmith.track.events import curve, read_events
from tunesmith.train.checkpoints import all_checkpoints, is_complete
from tunesmith.train.worker import Worker

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
STEPS = 6


def prepare(folder: Path, name: str, *, processes: int = 1, adapter: str = "none", **training: Any) -> Path:
    """A small run on rows that fill every batch, so that one process and two see the same rows in each step."""
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in task.rows("train", 64)))
    values = {
        "model": "builtin:small",
        "data": {"train": str(data), "eval": 0},
        "adapter": {"kind": adapter},
        "launch": {"processes": processes},
        "training": {"max_steps": STEPS, "save_steps": 3, "report_to": "none", **training},
    }
    return pipeline.prepare_run(build_recipe(values), folder / name)


def preferring(folder: Path) -> Path:
    """A run of DPO, whose trainer asks the reference model about all rows before it trains."""
    wrong = [{"role": "assistant", "content": "{}"}]
    rows = [{**row, "chosen": row["completion"], "rejected": wrong} for row in task.rows("train", 16)]
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps({n: row[n] for n in ("prompt", "chosen", "rejected")}) + "\n" for row in rows))
    values = {
        "model": "builtin:small",
        "method": "dpo",
        "data": {"train": str(data), "eval": 0},
        "launch": {"processes": 2},
        "training": {"max_steps": 1, "loss_type": ["sigmoid"], "precompute_ref_log_probs": True, "report_to": "none"},
    }
    return pipeline.prepare_run(build_recipe(values), folder / "dpo")


def sharded(run: Path) -> Path:
    """The run as it would be planned on GPUs, where weights can be spread; on CPUs the plan refuses it."""
    plan = Plan.load(run)
    recipe = build_recipe({**plan.recipe, "launch": {**plan.recipe["launch"], "sharding": "fsdp"}})
    choices = Choices({})
    choose_processes(choices, recipe, plan.model, plan.hardware)
    training = {name: value for name, value in plan.training.items() if name != "ddp_find_unused_parameters"}
    processes = plan.processes.model_copy(update={"sharding": "fsdp"})
    plan.model_copy(update={"training": {**training, **choices.training()}, "processes": processes}).save(run)
    return run


def copied(run: Path, name: str, scenario: str = "") -> Path:
    """The same run once more, to which something happens."""
    copy = shutil.copytree(run, run.with_name(name))
    if scenario:
        (copy / "scenario").write_text(scenario)
    return copy


def together(folder: Path, *runs: Path) -> None:
    """Train run folders in two processes, one after the other."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("ab") as log:
        subprocess.run(
            [*command, "-m", "tests.support.processes", *map(str, runs)],
            cwd=folder, env=environment, stdout=log, stderr=log, timeout=240, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process and of two, all of the same recipe, and what happens to them is in their names."""
    folder = tmp_path_factory.mktemp("processes")
    for adapter in ("none", "lora"):
        ddp = prepare(folder, f"ddp-{adapter}", processes=2, adapter=adapter)
        sharded(copied(ddp, f"fsdp-{adapter}"))
        Worker(prepare(folder, f"one-{adapter}", adapter=adapter)).run()
    ddp, fsdp = folder / "ddp-none", folder / "fsdp-none"
    happening = [
        copied(fsdp, "unshimmed"),
        copied(ddp, "drifting", "drift 2"),
        copied(ddp, "elsewhere", "elsewhere"),
        copied(fsdp, "stopped", "stop 2"),
        copied(folder / "fsdp-lora", "stopped-lora", "stop 2"),
        copied(ddp, "stopped-ddp", "stop 4"),
        copied(ddp, "fast"),
        preferring(folder),
    ]
    going_on = [folder / "stopped", folder / "stopped-lora"]
    undisturbed = [folder / f"{way}-{adapter}" for way in ("ddp", "fsdp") for adapter in ("none", "lora")]
    together(folder, *undisturbed, *happening, *going_on, copied(ddp, "failing", "fail 2"))
    return folder


def losses(run: Path) -> list[float]:
    return [event.data["loss"] for event in curve(read_events(run)) if event.kind == "log"]


def weights(run: Path) -> dict[str, Any]:
    (file,) = (run / "model").glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_train_as_one_does(folder: Path, way: str, adapter: str) -> None:
    one, two = folder / f"one-{adapter}", folder / f"{way}-{adapter}"
    assert RunRecord.load(two).status == "done"
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    alone, shared = weights(one), weights(two)
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        np.testing.assert_allclose(shared[name], value, atol=1e-4, err_msg=name)
    assert RunRecord.load(two).tokens == RunRecord.load(one).tokens
    assert RunRecord.load(two).parameters_trained == RunRecord.load(one).parameters_trained


def test_rows_are_prepared_on_the_fast_path_and_shared_where_they_are_not(folder: Path) -> None:
    run = folder / "fast"
    (told,) = [event.data["train"] for event in read_events(run) if event.kind == "rows"]
    assert told["not_taken"] is None
    assert losses(run) == losses(folder / "ddp-none")
    assert RunRecord.load(folder / "dpo").status == "done"
    assert losses(folder / "dpo") == [pytest.approx(math.log(2), abs=1e-4)]  # the model is its own reference yet
    for name in ("fast", "dpo", "fsdp-lora"):
        assert not (folder / name / "rows").exists()


def test_only_the_main_process_writes_records_and_events(folder: Path) -> None:
    run = folder / "fsdp-none"
    kinds = [event.kind for event in read_events(run)]
    assert kinds.count("start") == kinds.count("end") == kinds.count("audit") == 1
    assert [event.step for event in read_events(run) if event.kind == "log"] == list(range(1, STEPS + 1))
    assert not list(run.glob("failed-*.json"))


def test_a_sharded_run_saves_a_checkpoint_of_parts_and_one_whole_result(folder: Path) -> None:
    run = folder / "fsdp-none"
    assert all(is_complete(checkpoint) for checkpoint in all_checkpoints(run))
    parts = {path.name for path in (all_checkpoints(run)[-1] / "optimizer_0").glob("*.distcp")}
    assert parts == {"__0_0.distcp", "__1_0.distcp"}
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    assert sum(parameter.numel() for parameter in model.parameters()) == Plan.load(run).parameters


@pytest.mark.parametrize(("stopped", "as_ever"), [("stopped", "fsdp-none"), ("stopped-lora", "fsdp-lora")])
def test_a_request_that_one_process_gets_stops_all_and_the_run_goes_on_exactly(
    folder: Path, stopped: str, as_ever: str
) -> None:
    """The signal came twice, to the second process alone, after the second step."""
    run = folder / stopped
    assert [event.step for event in read_events(run) if event.kind == "stop"] == [2]
    assert RunRecord.load(run).resumed_from == [2]
    assert RunRecord.load(run).status == "done"
    assert losses(run) == losses(folder / as_ever)
    again, once = weights(run), weights(folder / as_ever)
    assert all((again[name] == value).all() for name, value in once.items())


def test_a_stopped_run_has_the_checkpoint_of_its_step(folder: Path) -> None:
    run = folder / "stopped-ddp"
    assert RunRecord.load(run).status == "stopped"
    assert [checkpoint.name for checkpoint in all_checkpoints(run)] == ["checkpoint-3", "checkpoint-4"]
    assert all(is_complete(checkpoint) for checkpoint in all_checkpoints(run))


def codes(run: Path) -> list[str]:
    return [found.code for found in RunRecord.load(run).findings]


def test_r035_processes_whose_weights_become_different_save_nothing(folder: Path) -> None:
    run = folder / "drifting"
    assert codes(run) == ["R035"]
    assert RunRecord.load(run).status == "failed"
    assert all_checkpoints(run) == []
    assert not (run / "model").exists()


def test_r035_processes_with_different_plans_train_nothing(folder: Path) -> None:
    assert codes(folder / "elsewhere") == ["R035"]
    assert losses(folder / "elsewhere") == []


def test_r037_a_sharding_that_is_silently_left_out_is_told(folder: Path) -> None:
    assert codes(folder / "unshimmed") == ["R037"]
    assert losses(folder / "unshimmed") == []


def test_clean_runs_have_none_of_these_findings(folder: Path) -> None:
    for name in ("ddp-none", "ddp-lora", "fsdp-none", "fsdp-lora", "stopped"):
        assert codes(folder / name) == []


def test_r036_one_process_where_two_were_planned(folder: Path) -> None:
    run = copied(folder / "failing", "alone")
    with pytest.raises(TunesmithError, match="R036"):
        Worker(run).run()


def test_a_process_that_fails_says_why_through_the_main_one(folder: Path) -> None:
    record = RunRecord.load(folder / "failing")
    assert record.status == "failed"
    assert record.error == "Process 1: The device ran out of memory."
    failure = next(event for event in read_events(folder / "failing") if event.kind == "fail")
    assert failure.data["why"] == "out of memory in the second"
    assert failure.data["exit_code"] == EnvironmentLacksError.exit_code


def test_started_by_torchrun_a_killed_process_ends_the_run_and_an_interrupt_stops_it(tmp_path: Path) -> None:
    run = prepare(tmp_path, "run", processes=2, max_steps=200, save_steps=3)

    def kill_the_second(event: Event) -> None:
        if event.kind == "log" and event.step == 4:
            workers = psutil.Process(RunRecord.load(run).pid).parent().children()
            (second,) = [one for one in workers if one.environ()["RANK"] == "1"]
            second.kill()

    with pytest.raises(TunesmithError) as killed:
        pipeline.train_run(run, kill_the_second)
    assert "Another process of this run has ended" in killed.value.what
    assert RunRecord.load(run).status == "failed"

    def interrupt(event: Event) -> None:
        if event.kind == "log" and event.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError) as stopped:
        pipeline.train_run(run, interrupt)
    record = RunRecord.load(run)
    assert record.status == "stopped"
    assert record.resumed_from == [3]
    assert 5 <= record.step < 200
    assert is_complete(all_checkpoints(run)[-1])
    assert f"checkpoint-{record.step}" == all_checkpoints(run)[-1].name
    assert "a checkpoint of this step is saved" in stopped.value.why
