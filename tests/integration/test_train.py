"""Training in a process of its own: the result, stopping, killing, resuming, and the guard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from tunesmith import pipeline
from tunesmith.demo import task
from tunesmith.errors import StoppedError, TunesmithError, UsageError
from tunesmith.launch import local
from tunesmith.recipe import build_recipe
from tunesmith.records import LOCKED, FirstSteps, Plan, Range, RunRecord
from tunesmith.rules import FindingsError
from tunesmith.track.events import curve, read_events
from tunesmith.train.checkpoints import all_checkpoints, is_complete, last_complete
from tunesmith.train.worker import Worker

pytestmark = pytest.mark.slow

STEPS = 12


def prepare(folder: Path, name: str = "run", **training: object) -> Path:
    """A small prepared run on the built-in model."""
    data = folder / "rows.jsonl"
    if not data.exists():
        data.write_text("".join(json.dumps(row) + "\n" for row in task.rows("train", 64)))
    values = {
        "model": "builtin:small",
        "data": {"train": str(data), "eval": 0.1},
        "adapter": {"kind": "none"},
        "training": {"max_steps": STEPS, "save_steps": 3, "eval_steps": 6, "report_to": "none", **training},
    }
    return pipeline.prepare_run(build_recipe(values), folder / name)


def start(run: Path) -> subprocess.Popen[bytes]:
    """The worker, without anyone following it."""
    with (run / local.LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tunesmith.train.worker", str(run)], stdout=log, stderr=log, start_new_session=True
        )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Poll without sleeping long, so that a kill hits the moment."""
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the worker ended before the moment came"
        assert time.monotonic() < end
        time.sleep(0.0005)


def weights(run: Path) -> dict[str, list[float]]:
    """All weights of the result, exactly."""
    with safe_open(run / "model" / "model.safetensors", "np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - not a dict


def final_loss(run: Path) -> float:
    return next(event.data["loss"] for event in reversed(curve(read_events(run))) if event.kind == "log")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs, for comparison."""
    run = prepare(tmp_path_factory.mktemp("undisturbed"))
    pipeline.train_run(run)
    return run


def test_a_run_leaves_a_model_its_events_and_a_record_that_agrees_with_the_plan(undisturbed: Path) -> None:
    plan, record = Plan.load(undisturbed), RunRecord.load(undisturbed)
    assert record.status == "done"
    assert record.step == plan.steps == STEPS
    assert record.parameters_trained == plan.parameters_trained == plan.parameters
    assert record.pid is None
    assert record.peak_memory is not None
    assert record.peak_memory > 50_000_000
    assert record.first_steps is not None
    assert record.first_steps.step == 6
    assert record.first_steps.planned == plan.memory.allocated
    assert record.first_steps.difference is None  # libraries take more than a plan this small
    assert 0 < record.first_steps.remaining.likely < 60
    assert [event.step for event in read_events(undisturbed) if event.kind == "pace"] == [6]
    assert record.audit is not None
    assert record.audit.rows_kept == plan.train.rows
    assert record.audit.rows_without_stop == 0
    assert 0 < record.audit.trained_percent < 100
    assert record.audit.tokens == plan.train.tokens
    steps = [event.step for event in curve(read_events(undisturbed)) if event.kind == "log"]
    assert steps == list(range(1, STEPS + 1))
    assert record.tokens > 0
    assert all(is_complete(checkpoint) for checkpoint in all_checkpoints(undisturbed))
    assert (undisturbed / "model" / "chat_template.jinja").exists()


def after_checkpoint_began(run: Path) -> bool:
    """The second checkpoint's folder is there, its marker not yet: the library is writing."""
    return (run / "checkpoints" / "checkpoint-6").exists()


def between_model_and_optimizer(run: Path) -> bool:
    return (run / "checkpoints" / "checkpoint-6" / "model.safetensors").exists()


def after_trainer_state(run: Path) -> bool:
    return (run / "checkpoints" / "checkpoint-6" / "trainer_state.json").exists()


def before_any_checkpoint(run: Path) -> bool:
    return any(event.kind == "log" for event in read_events(run))


def between_checkpoints(run: Path) -> bool:
    return any(event.kind == "log" and event.step == 5 for event in read_events(run))


def after_training(run: Path) -> bool:
    """All steps are done, the model isn't saved yet or just being saved."""
    return (run / "checkpoints" / f"checkpoint-{STEPS}" / "complete.json").exists()


@pytest.mark.parametrize(
    "moment",
    [
        before_any_checkpoint,
        between_checkpoints,
        after_checkpoint_began,
        between_model_and_optimizer,
        after_trainer_state,
        after_training,
    ],
)
def test_a_run_killed_at_any_moment_resumes_to_the_same_weights(
    moment: Callable[[Path], bool], tmp_path: Path, undisturbed: Path
) -> None:
    run = prepare(tmp_path)
    worker = start(run)
    wait_for(lambda: moment(run), worker)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert not (run / "model").exists() or RunRecord.load(run).status == "done" or moment is after_training

    record = pipeline.train_run(run)

    assert record.status == "done"
    assert final_loss(run) == final_loss(undisturbed)
    assert weights(run) == weights(undisturbed)
    assert record.tokens == RunRecord.load(undisturbed).tokens


def test_killed_twice_it_still_arrives(tmp_path: Path, undisturbed: Path) -> None:
    run = prepare(tmp_path)
    for step in (4, 8):
        worker = start(run)
        wait_for(lambda: any(e.kind == "log" and e.step == step for e in read_events(run)), worker)  # noqa: B023
        worker.kill()
        worker.wait()
    assert pipeline.train_run(run).resumed_from[-1] >= 3
    assert weights(run) == weights(undisturbed)


def test_an_interrupt_saves_and_says_how_to_resume(tmp_path: Path, undisturbed: Path) -> None:
    run, before = prepare(tmp_path), signal.getsignal(signal.SIGINT)

    def interrupt(event: object) -> None:
        if getattr(event, "kind", "") == "log" and getattr(event, "step", 0) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError) as stopped:
        pipeline.train_run(run, interrupt)
    assert stopped.value.exit_code == 130
    assert f"tunesmith resume {run}" in stopped.value.fix
    record = RunRecord.load(run)
    assert record.status == "stopped"
    checkpoint = last_complete(run)
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{record.step}"
    assert signal.getsignal(signal.SIGINT) is before

    pipeline.train_run(run)
    assert weights(run) == weights(undisturbed)


def test_a_run_that_is_going_on_is_not_started_twice_and_can_be_stopped(tmp_path: Path) -> None:
    run = prepare(tmp_path, max_steps=500)
    worker = start(run)
    wait_for(lambda: before_any_checkpoint(run), worker)
    with pytest.raises(UsageError, match="is running already"):
        pipeline.train_run(run)
    local.stop(run)
    assert worker.wait(timeout=60) == 130
    assert RunRecord.load(run).status == "stopped"
    with pytest.raises(UsageError, match="isn't running"):
        local.stop(run)


def test_of_two_workers_on_one_folder_one_steps_back(tmp_path: Path) -> None:
    run = prepare(tmp_path, max_steps=40)
    first, second = start(run), start(run)
    assert sorted((first.wait(timeout=120), second.wait(timeout=120))) == [0, LOCKED]
    assert [event.kind for event in read_events(run)].count("end") == 1
    assert not local.is_alive(run)


def test_weights_that_are_no_numbers_are_no_result(tmp_path: Path) -> None:
    """Even when nothing was logged in between that would tell."""
    wild = {
        "learning_rate": 1e30,
        "max_grad_norm": 0.0,
        "warmup_steps": 0,
        "logging_steps": 1000,
        "eval_strategy": "no",
    }
    run = prepare(tmp_path, max_steps=4, **wild)
    with pytest.raises(TunesmithError, match="R001"):
        pipeline.train_run(run)
    assert RunRecord.load(run).status == "failed"
    assert not (run / "model").exists()
    assert last_complete(run) is None


def test_a_short_run_tells_its_loss_and_tokens_whatever_the_interval(tmp_path: Path) -> None:
    record = pipeline.train_run(prepare(tmp_path, max_steps=3, logging_steps=1000))
    assert record.loss is not None
    assert record.tokens > 0


def test_a_stop_before_the_first_step_is_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for as soon as there is a process, before it can listen."""
    run = prepare(tmp_path)
    real = local._start

    def start_and_interrupt(folder: Path, plan: Plan, *, anyway: bool) -> subprocess.Popen[bytes]:
        process = real(folder, plan, anyway=anyway)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return process

    monkeypatch.setattr(local, "_start", start_and_interrupt)
    with pytest.raises(StoppedError) as stopped:
        pipeline.train_run(run)
    assert "its last complete checkpoint counts" in stopped.value.why
    assert RunRecord.load(run).status == "stopped"
    monkeypatch.undo()
    assert pipeline.train_run(run).status == "done"


def test_arguments_that_trl_refuses_are_told_as_such(tmp_path: Path) -> None:
    run = prepare(tmp_path)
    plan = Plan.load(run)
    plan.model_copy(update={"training": {**plan.training, "eval_strategy": "steps", "bf16": True, "fp16": True}}).save(
        run
    )
    with pytest.raises(TunesmithError, match="TRL refuses") as refused:
        pipeline.train_run(run)
    assert refused.value.exit_code == 2


def test_a_done_run_is_not_trained_again(undisturbed: Path) -> None:
    with pytest.raises(UsageError, match="nothing to resume"):
        pipeline.train_run(undisturbed)


def test_changed_rows_are_refused(tmp_path: Path) -> None:
    run = prepare(tmp_path)
    with (run / "data" / "train.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(TunesmithError, match="R003"):
        pipeline.train_run(run)
    assert [found.code for found in RunRecord.load(run).findings] == ["R003"]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    run = prepare(tmp_path, learning_rate=1e30, max_grad_norm=0.0, warmup_steps=0, max_steps=200)
    with pytest.raises(TunesmithError, match="R001"):
        pipeline.train_run(run)
    record = RunRecord.load(run)
    assert record.status == "failed"
    assert record.step < 200
    assert not (run / "model").exists()
    assert "R001" in [found.code for found in record.findings]


def test_a_plan_with_an_error_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FindingsError, match="P003"):
        prepare(tmp_path, max_length=100_000)
    assert not (tmp_path / "run").exists()


def test_fewer_trained_parameters_than_planned_are_an_error(tmp_path: Path) -> None:
    run = prepare(tmp_path)
    plan = Plan.load(run)
    plan.model_copy(update={"parameters_trained": plan.parameters_trained + 1}).save(run)
    with pytest.raises(TunesmithError, match="R002"):
        pipeline.train_run(run)

    rough = plan.model.model_copy(update={"rough": True})
    plan.model_copy(update={"parameters_trained": plan.parameters_trained + 1, "model": rough}).save(run)
    RunRecord.load(run).model_copy(update={"findings": []}).save(run)
    assert [found.severity for found in pipeline.train_run(run).findings if found.code == "R002"] == ["warning"]


def test_first_steps_beyond_the_plan_are_said(tmp_path: Path) -> None:
    run = prepare(tmp_path, max_steps=8)
    plan = Plan.load(run)
    launch = {**plan.recipe["launch"], "timeout": 3600}
    plan.model_copy(update={"recipe": {**plan.recipe, "launch": launch}}).save(run)
    worker = Worker(run)
    error = 0.3  # on a CPU
    for difference, left, codes in (
        (-0.9, 3600, []),
        (error, 3600, []),
        (error + 0.01, 3601, ["R007", "R008"]),
        (None, 3601, ["R008"]),
    ):
        worker.update({"findings": []})
        worker._first_steps_done(
            FirstSteps(
                step=6,
                allocated=4 * 10**9,
                reserved=None,
                planned=2 * 10**9,
                difference=difference,
                step_seconds=1.0,
                remaining=Range(low=0, likely=left, high=2 * left),
            )
        )
        assert [found.code for found in worker.record.findings] == codes
        assert all(found.severity == "warning" for found in worker.record.findings)
    assert RunRecord.load(run).first_steps is not None
    worker.log.close()


def test_rows_that_training_would_drop_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FindingsError, match="T003"):
        prepare(tmp_path, max_length=20)
    run = prepare(tmp_path)
    plan = Plan.load(run)
    plan.model_copy(update={"training": {**plan.training, "max_length": 20}}).save(run)
    with pytest.raises(TunesmithError, match=r"T00[13]"):
        pipeline.train_run(run)
    assert {"T001", "T003"} & {found.code for found in RunRecord.load(run).findings}


def test_learning_nothing_is_said(tmp_path: Path, undisturbed: Path) -> None:
    run = prepare(tmp_path, learning_rate=1e-8)
    assert "R004" in [found.code for found in pipeline.train_run(run).findings]
    assert "R004" not in [found.code for found in RunRecord.load(undisturbed).findings]


def test_lora_trains_the_adapter_only(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in task.rows("train", 32)))
    values = {
        "model": "builtin:small",
        "data": {"train": str(rows), "eval": 0},
        "adapter": {"kind": "lora", "r": 4},
        "training": {"max_steps": 2, "report_to": "none"},
    }
    run = pipeline.prepare_run(build_recipe(values), tmp_path / "run")
    record = pipeline.train_run(run)
    assert record.parameters_trained == Plan.load(run).parameters_trained < 100_000
    assert (run / "model" / "adapter_model.safetensors").exists()
    assert not (run / "model" / "model.safetensors").exists()


def test_metrics_reach_trackio_and_its_failure_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tmp_path, "tracked", report_to="trackio", max_steps=3)
    record = pipeline.train_run(run)
    assert "R006" not in [found.code for found in record.findings]
    answer = subprocess.run(
        [sys.executable, "-m", "trackio.cli", "list", "runs", "--project", "tunesmith", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "tracked" in answer.stdout + answer.stderr

    (tmp_path / "not-a-folder").write_text("")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "not-a-folder" / "db"))
    broken = pipeline.train_run(prepare(tmp_path, "untracked", report_to="trackio", max_steps=3))
    assert broken.status == "done"
    assert "R006" in [found.code for found in broken.findings]
