"""Each rule of the guard, by a training run that goes wrong in its way."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers import TrainerCallback

from tunesmith import pipeline
from tunesmith.demo import task
from tunesmith.recipe import build_recipe
from tunesmith.records import CostEstimate, Finding, Plan, Range, Rollback, RunRecord
from tunesmith.track.events import curve, read_events
from tunesmith.train.guard import limits
from tunesmith.train.guard.stall import Watchdog
from tunesmith.train.guard.watch import GuardCallback
from tunesmith.train.job import Job
from tunesmith.train.methods import build_trainer
from tunesmith.train.worker import Worker, guarded

pytestmark = pytest.mark.slow

QUICK = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "report_to": "none"}
DIVERGES = {"learning_rate": 10, "max_steps": 30, "warmup_steps": 2}


def write(rows: list[dict[str, Any]]) -> str:
    path = Path("rows.jsonl").resolve()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def prepare(
    rows: list[dict[str, Any]] | None = None, training: dict[str, Any] | None = None, *, name: str = "run", **keys: Any
) -> Path:
    """A prepared run on the built-in model, on the demo's rows unless others are given."""
    values = {
        "model": "builtin:small",
        "data": {"train": write(task.rows("train", 64) if rows is None else rows), "eval": keys.pop("held_out", 0)},
        "adapter": {"kind": "none"},
        "watch": {"samples": 0},
        "training": {**QUICK, **(training or {})},
        **keys,
    }
    return pipeline.prepare_run(build_recipe(values, folder=Path.cwd()), Path.cwd() / name)


def train(run: Path) -> tuple[int, RunRecord]:
    """The worker's exit code and record, in this process."""
    worker = Worker(run)
    code = guarded(worker, worker.run)
    worker.log.close()
    return code, RunRecord.load(run)


def of_guard(record: RunRecord) -> dict[str, Finding]:
    """The findings of the guard's rules, by code."""
    return {found.code: found for found in record.findings if found.code == "R001" or "R009" <= found.code <= "R024"}


def rates(run: Path) -> list[float]:
    return [event.data["learning_rate"] for event in curve(read_events(run)) if event.kind == "log"]


def weights(run: Path) -> dict[str, bytes]:
    with safe_open(run / "model" / "model.safetensors", "np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - not a dict


def trained_with(run: Path, *callbacks: TrainerCallback) -> Any:
    """The trainer alone at its end, without what the worker checks before."""
    trainer = build_trainer(Job(Plan.load(run), run, list(callbacks)))
    trainer.train()
    return trainer


def test_a_clean_run_triggers_no_rule() -> None:
    run = prepare(
        training={"learning_rate": 3e-3, "max_steps": 24, "eval_steps": 12, "eval_on_start": True}, held_out=0.2
    )
    code, record = train(run)
    assert (code, record.status) == (0, "done")
    assert of_guard(record) == {}
    assert record.rollbacks == []


@pytest.fixture
def trackio_alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Reads the alerts of a Trackio database of the test's own; Trackio looks at the environment once, on import."""
    from trackio import sqlite_storage, utils

    for module in (sqlite_storage, utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    return lambda: sqlite_storage.SQLiteStorage.get_alerts("tunesmith")


def test_r010_a_rate_of_ten_is_stopped_after_saving_and_everything_tells_the_same(
    trackio_alerts: Callable[[], list[dict[str, Any]]],
) -> None:
    run = prepare(training={**DIVERGES, "report_to": "trackio"})
    code, record = train(run)
    (found,) = of_guard(record).values()
    assert (code, record.status, found.code, found.severity) == (1, "failed", "R010", "error")
    assert found.what.endswith("; the run was stopped.")
    assert record.step == 8 < record.steps
    assert found.what in (record.error or "")
    assert (run / "checkpoints" / "checkpoint-8" / "complete.json").exists()
    assert not (run / "model").exists()

    events = {event.kind: event for event in read_events(run)}
    assert events["finding"].data == found.model_dump()
    assert (events["fail"].data["exit_code"], events["fail"].data["fix"]) == (1, found.fix)
    (alert,) = trackio_alerts()
    assert (alert["title"], alert["level"]) == ("R010 Training diverges", "error")
    assert alert["text"].startswith(found.what)
    assert found in pipeline.write_receipt(run).findings

    # A resume goes on in spite of it, and says so.
    code, record = train(run)
    assert (code, record.status, record.resumed_from) == (0, "done", [8])
    (resumed,) = of_guard(record).values()
    assert (resumed.code, resumed.severity) == ("R010", "warning")
    assert resumed.what.endswith("the run was resumed in spite of it.")


def test_r010_sends_the_run_back_at_a_lower_rate_until_it_trains() -> None:
    guard = {"actions": {"R010": "rollback"}, "rollbacks": 2, "rate_factor": 0.01}
    run = prepare(training={**DIVERGES, "learning_rate": 100, "save_steps": 2}, guard=guard)
    code, record = train(run)
    assert (code, record.status, record.step) == (0, "done", 30)
    assert [(back.code, back.to, back.factor) for back in record.rollbacks] == [("R010", 0, 0.01)] * 2
    assert all(found.severity == "warning" for found in of_guard(record).values())
    assert [event.step for event in read_events(run) if event.kind == "rollback"] == [0, 0]
    assert max(rates(run)) == pytest.approx(0.01)
    assert record.loss is not None
    assert record.loss < 2


def test_r010_goes_back_to_a_checkpoint_from_before_and_no_further_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Jump(TrainerCallback):
        """The rate jumps at step 12, whatever it is."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 12:
                for group in kwargs["optimizer"].param_groups:
                    group["lr"] = 50.0

    real = build_trainer
    monkeypatch.setattr(
        "tunesmith.train.methods.build_trainer",
        lambda job: [trainer := real(job), trainer.add_callback(Jump())][0],
    )
    training = {"learning_rate": 3e-3, "max_steps": 40, "save_steps": 5, "lr_scheduler_type": "constant"}
    run = prepare(training=training, guard={"actions": {"R010": "rollback"}, "rollbacks": 1})
    code, record = train(run)
    assert (code, record.status) == (1, "failed")
    assert [back.to for back in record.rollbacks] == [10]
    assert of_guard(record)["R010"].what.endswith("; the run was stopped, after going back 1 time.")


def test_r010_a_run_too_short_for_the_usual_window_does_not_end_as_if_all_were_well() -> None:
    run = prepare(training={**DIVERGES, "max_steps": 6})
    code, record = train(run)
    assert (code, record.status, record.step, set(of_guard(record))) == (1, "failed", 6, {"R010"})
    assert (run / "checkpoints" / "checkpoint-6" / "complete.json").exists()
    assert not (run / "model").exists()
    # Who wants the result all the same resumes, and is told.
    code, record = train(run)
    assert (code, record.status, of_guard(record)["R010"].severity) == (0, "done", "warning")


def test_r010_a_rate_of_ten_is_stopped_under_lora_as_well() -> None:
    run = prepare(
        task.rows("train", 400), {"max_steps": 40, "learning_rate": 10, "save_steps": 2}, adapter={"kind": "lora"}
    )
    code, record = train(run)
    assert (code, record.status, set(of_guard(record))) == (1, "failed", {"R010"})
    kept = sorted(int(path.name.rpartition("-")[2]) for path in (run / "checkpoints").glob("checkpoint-*"))
    assert kept[-1] == record.step < 40
    assert len(kept) == 3  # the two that the plan keeps and that of the stop


def test_a_run_whose_schedule_goes_by_evaluations_goes_back_and_is_resumed() -> None:
    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_steps": 4, "save_steps": 4}
    guard = {"actions": {"R010": "rollback"}, "rollbacks": 2, "rate_factor": 0.001}
    run = prepare(training={**DIVERGES, **plateau, "max_steps": 12}, guard=guard, held_out=0.2)
    code, record = train(run)
    assert (code, record.status, [back.code for back in record.rollbacks]) == (0, "done", ["R010"])
    assert max(rates(run)) == pytest.approx(0.01)
    before = rates(run)
    shutil.rmtree(run / "checkpoints" / "checkpoint-12")
    shutil.rmtree(run / "model")
    code, record = train(run)
    assert (code, record.resumed_from) == (0, [8])
    assert rates(run) == pytest.approx(before)


def test_a_lowered_rate_outlives_a_resume() -> None:
    run = prepare(training={"learning_rate": 3e-3, "max_steps": 6, "save_steps": 3, "warmup_steps": 0})
    usual = shutil.copytree(run, Path("usual"))
    train(usual)
    record = RunRecord.load(run)
    record.model_copy(update={"rollbacks": [Rollback(code="R010", step=9, to=0, factor=0.25)]}).save(run)
    train(run)
    assert rates(run) == pytest.approx([0.25 * rate for rate in rates(usual)])
    whole, lowered = weights(run), rates(run)
    shutil.rmtree(run / "checkpoints" / "checkpoint-6")
    shutil.rmtree(run / "model")
    code, record = train(run)
    assert (code, record.resumed_from) == (0, [3])
    assert rates(run) == lowered
    assert weights(run) == whole


def test_r001_goes_back_where_the_recipe_says_so() -> None:
    guard = {"actions": {"R001": "rollback"}, "rate_factor": 1e-33}
    wild = {"learning_rate": 1e30, "max_grad_norm": 0.0, "warmup_steps": 1, "max_steps": 12}
    code, record = train(prepare(training=wild, guard=guard))
    assert (code, record.status) == (0, "done")
    assert [back.code for back in record.rollbacks] == ["R001"]


def test_r001_stops_without_saving() -> None:
    run = prepare(training={"learning_rate": 1e30, "max_grad_norm": 0.0, "warmup_steps": 0, "max_steps": 30})
    code, record = train(run)
    assert (code, record.status) == (1, "failed")
    assert of_guard(record)["R001"].severity == "error"
    assert not (run / "checkpoints" / f"checkpoint-{record.step}").exists()


def test_r009_bad_rows_make_a_spike() -> None:
    rows = task.rows("train", 20 * 8)
    for row in rows[15 * 8 : 16 * 8]:
        row["completion"][0]["content"] = "zq kx 99 wj " * 8
    training = {"learning_rate": 3e-3, "max_steps": 20, "train_sampling_strategy": "sequential"}
    code, record = train(prepare(rows, training))
    assert code == 0
    (found,) = of_guard(record).values()
    assert (found.code, found.severity) == ("R009", "warning")
    assert "at step 16" in found.what
    assert found.what.endswith("; the run goes on.")


def test_r011_truncation_that_leaves_nothing_to_train() -> None:
    run = prepare(training={"max_steps": 12, "learning_rate": 1e-3})
    plan = Plan.load(run)
    plan.model_copy(update={"training": {**plan.training, "packing": True, "max_length": 20}}).save(run)
    told: list[Finding] = []
    trainer = trained_with(run, GuardCallback(Plan.load(run), told.append))
    assert [found.code for found in told] == ["R011"]
    assert trainer.state.global_step == 5


def test_r012_a_rate_too_low_for_the_weights_dtype() -> None:
    code, record = train(prepare(training={"learning_rate": 1e-12, "max_steps": 14}))
    (found,) = of_guard(record).values()
    assert (code, found.code) == (1, "R012")
    assert record.step == 11  # ten steps past the warm-up


def test_r013_no_better_than_untrained() -> None:
    training = {"learning_rate": 1e-8, "max_steps": 6, "eval_steps": 3, "eval_on_start": True}
    code, record = train(prepare(training=training, held_out=0.2))
    (found,) = of_guard(record).values()
    assert (code, found.code, found.severity) == (0, "R013", "warning")


def test_r014_few_rows_learnt_by_heart() -> None:
    training = {"learning_rate": 3e-3, "max_steps": 45, "eval_steps": 9, "save_strategy": "no"}
    data = {"train": write(task.rows("train", 8)), "eval": "held_out.jsonl"}
    Path("held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in task.rows("validation", 16)))
    values = {"model": "builtin:small", "data": data, "adapter": {"kind": "none"}, "watch": {"samples": 0}}
    recipe = build_recipe({**values, "training": {**QUICK, **training}}, folder=Path.cwd())
    code, record = train(pipeline.prepare_run(recipe, Path.cwd() / "run"))
    assert code == 0
    assert set(of_guard(record)) == {"R014"}


# Rewards

GROUPS = {
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 4,
    "learning_rate": 1e-5,
}


def asked(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": row["prompt"], "reference": row["completion"][0]["content"]} for row in task.rows("train", count)
    ]


def rewards(source: str) -> list[str]:
    Path("rewards.py").write_text(source)
    return ["rewards.py:reward"]


def test_r015_r017_rewards_that_never_differ_and_answers_that_never_end() -> None:
    same = rewards("def reward(completions, **kwargs):\n    return [0.5] * len(completions)\n")
    run = prepare(asked(40), {**GROUPS, "max_steps": 14}, method="grpo", rewards=same)
    code, record = train(run)
    (found,) = of_guard(record).values()
    assert (code, found.code, record.step) == (1, "R015", 10)

    go_on = {"actions": {"R015": "warn"}}
    run = prepare(asked(40), {**GROUPS, "max_steps": 14}, name="other", method="grpo", rewards=same, guard=go_on)
    code, record = train(run)
    assert code == 0
    assert {code: found.severity for code, found in of_guard(record).items()} == {"R015": "warning", "R017": "warning"}
    assert "max_completion_length of 4" in of_guard(record)["R017"].what


def test_r016_r018_a_reward_that_collapses_and_stays_equal() -> None:
    collapsing = rewards(
        "import itertools\n"
        "def reward(completions, trainer_state, **kwargs):\n"
        "    if trainer_state.global_step >= 12:\n"
        "        return [0.0] * len(completions)\n"
        "    return [1.0 + 0.01 * place for place in range(len(completions))]\n"
    )
    guard = {"actions": {"R017": "off", "R018": "warn"}}
    run = prepare(asked(160), {**GROUPS, "max_steps": 34}, method="grpo", rewards=collapsing, guard=guard)
    code, record = train(run)
    assert code == 0
    assert list(of_guard(record)) == ["R018", "R016"]
    assert all(found.severity == "warning" for found in of_guard(record).values())


# Preferences


def pairs(count: int) -> list[dict[str, Any]]:
    """Each order's ticket against that of another order."""
    rows = task.rows("train", count + 1)
    return [
        {"prompt": one["prompt"], "chosen": one["completion"], "rejected": other["completion"]}
        for one, other in itertools.pairwise(rows)
    ]


def test_r019_chosen_answers_become_unlikely() -> None:
    training = {"learning_rate": 0.3, "max_steps": 12, "loss_type": ["sigmoid"]}
    run = prepare(pairs(48), training, method="dpo", guard={"actions": {"R010": "warn"}})
    code, record = train(run)
    assert code == 0
    assert of_guard(record)["R019"].severity == "warning"
    assert "R020" not in of_guard(record)


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_r020_margins_at_zero(method: str) -> None:
    """By a rate of next to nothing, and by pairs that only differ where the model never looks."""
    training: dict[str, Any] = {"learning_rate": 1e-8, "max_steps": 7}
    rows = pairs(40)
    run = prepare(rows, training, method=method)
    if method == "reward":  # an untrained head scores by chance; made equal, chosen and rejected score alike
        plan = Plan.load(run)
        path = run / plan.train.path
        same = [{**row, "rejected": row["chosen"]} for row in map(json.loads, path.read_text().splitlines())]
        path.write_text("".join(json.dumps(row) + "\n" for row in same))
        told: list[Finding] = []
        trained_with(run, GuardCallback(plan, told.append))
        assert "R020" in [found.code for found in told]
        return
    code, record = train(run)
    assert code == 0
    assert set(of_guard(record)) == {"R020"}


# Time, money, disk


def test_r021_a_step_that_hangs() -> None:
    class Hangs(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            end = time.monotonic() + 60
            while state.global_step == 5 and not told and time.monotonic() < end:
                time.sleep(0.05)

    for action in ("warn", "stop"):
        run = prepare(training={"max_steps": 8}, name=action, guard={"actions": {"R021": action}})
        told: list[Finding] = []
        asked_to_stop = threading.Event()
        dog = functools.partial(Watchdog, least=1.0, first=60)
        plan = Plan.load(run)
        guard = GuardCallback(plan, told.append, watchdog=dog, interrupt=asked_to_stop.set)
        trained_with(run, guard, Hangs())
        (found,) = told
        assert found.code == "R021"
        assert "after step 5" in found.what
        assert asked_to_stop.is_set() == (action == "stop")
        assert guard.stopped_by == (found if action == "stop" else None)


def test_r022_stops_in_time_for_its_timeout() -> None:
    run = prepare(training={"max_steps": 2000, "save_steps": 1000}, launch={"timeout": 12})
    worker = Worker(run)
    began = time.monotonic()
    assert guarded(worker, worker.run) == 1
    assert time.monotonic() - began < 12
    worker.log.close()
    record = RunRecord.load(run)
    assert set(of_guard(record)) == {"R022"}
    assert 0 < record.step < 2000
    assert (run / "checkpoints" / f"checkpoint-{record.step}" / "complete.json").exists()


def test_r023_stops_before_the_budget_is_spent() -> None:
    run = prepare(training={"max_steps": 2000, "save_steps": 1000}, launch={"budget": 10})
    cost = CostEstimate(per_hour=3600, total=Range(low=1, likely=1, high=1), price_date="2026-11-01", price_source="x")
    Plan.load(run).model_copy(update={"cost": cost}).save(run)  # a dollar a second
    code, record = train(run)
    (found,) = of_guard(record).values()
    assert (code, found.code) == (1, "R023")
    assert "of $10.00 are spent" in found.what
    assert record.seconds < 10


def test_r024_no_room_for_another_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(training={"max_steps": 9, "save_steps": 3})
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda _path: usage(10**12, 10**12, 1000))
    code, record = train(run)
    (found,) = of_guard(record).values()
    assert (code, found.code, record.step) == (1, "R024", 3)
    assert (run / "checkpoints" / "checkpoint-3" / "complete.json").exists()
