"""What is watched while a run trains: the best evaluation, samples, the machine, own callbacks, trackers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import transformers

from tests.support.training import STEPS, codes, prepare, train, weights
from tunesmith.errors import UsageError
from tunesmith.records import Plan, RunRecord
from tunesmith.rules import FindingsError
from tunesmith.track.events import read_events
from tunesmith.train.checkpoints import last_complete
from tunesmith.train.watch.system import SystemCallback
from tunesmith.train.worker import Worker, guarded

pytestmark = pytest.mark.slow

WORSE = {"learning_rate": 0.3, "max_grad_norm": 0.0, "warmup_steps": 0, "lr_scheduler_type": "constant"}
"""A rate at which evaluations get worse from the first one on, without a number that isn't finite."""
CALM = {"actions": dict.fromkeys(("R009", "R010", "R013", "R014"), "off")}
"""The guard would stop such a run itself."""

CALLBACKS = """
from pathlib import Path

from transformers import TrainerCallback


class Counts(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        with open(Path(args.output_dir).parent / "counted", "a") as file:
            file.write(f"{state.global_step}\\n")


class Breaks(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise ValueError("no more")


class Stops(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 3


class NeedsMore(TrainerCallback):
    def __init__(self, more):
        self.more = more


def text():
    return "no callback"
"""


@pytest.fixture(scope="module")
def declining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that evaluates every step, gets worse, and stops after two evaluations without a better one."""
    run = prepare(
        tmp_path_factory.mktemp("declining"),
        steps=8,
        watch={"early_stopping": 2, "samples": 2, "sample_tokens": 4, "system": 1e-6},
        training={"eval_steps": 1, "save_steps": 1, **WORSE},
        guard=CALM,
    )
    train(run)
    return run


def evaluations(run: Path) -> dict[int, float]:
    return {event.step: event.data["eval_loss"] for event in read_events(run) if event.kind == "eval"}


def test_early_stopping_keeps_the_best_evaluation(declining: Path) -> None:
    record, plan, losses = RunRecord.load(declining), Plan.load(declining), evaluations(declining)
    assert plan.training["load_best_model_at_end"] is True
    assert plan.training["metric_for_best_model"] == "loss"
    assert record.status == "done"
    assert record.best is not None
    assert losses[record.best.step] == record.best.value == min(loss for step, loss in losses.items() if step)
    assert record.step == 2  # neither evaluation is better than the untrained model was
    found = {one.code: one for one in record.findings}
    assert "after step 0" in found["R032"].what
    assert "R034" not in found
    assert f"step {record.best.step} of {record.step}" in found["R033"].what
    best = declining / "checkpoints" / f"checkpoint-{record.best.step}"
    assert weights(declining / "model") == weights(best)
    assert weights(best) != weights(declining / "checkpoints" / f"checkpoint-{record.step}")


def test_a_run_that_had_stopped_early_does_not_go_on_when_it_is_resumed(declining: Path, tmp_path: Path) -> None:
    """Killed after its last checkpoint, before the result was saved."""
    run = shutil.copytree(declining, tmp_path / "moved")
    shutil.rmtree(run / "model")
    before = RunRecord.load(run)
    before.model_copy(update={"status": "running", "result": None}).save(run)

    record = train(run)

    assert (record.status, record.step) == ("done", before.step)
    assert weights(run / "model") == weights(declining / "model")
    assert {"R032", "R033"} <= codes(record)


def test_samples_are_answered_at_each_evaluation(declining: Path) -> None:
    samples = [event for event in read_events(declining) if event.kind == "sample"]
    assert [event.step for event in samples] == sorted(evaluations(declining))
    first = samples[0].data
    assert len(first["prompts"]) == len(first["answers"]) == len(first["expected"]) == 2
    assert first["expected"][0].startswith("{")
    assert first["prompts"][0] != first["prompts"][1]
    assert all(len(answer) < 60 for answer in first["answers"])  # four tokens


def test_the_machine_is_looked_at(declining: Path) -> None:
    looks = [event for event in read_events(declining) if event.kind == "system"]
    assert [event.step for event in looks] == sorted(step for step in evaluations(declining) if step)
    assert looks[-1].data["process_bytes"] > 100_000_000
    assert 0 < looks[-1].data["memory_percent"] < 100
    assert looks[-1].data["memory_free_bytes"] > 0


def test_watching_changes_no_weight(tmp_path: Path) -> None:
    """Samples draw no random numbers that training would have had, with dropout at work."""
    plain = prepare(tmp_path, "plain", steps=4, adapter={"kind": "lora", "dropout": 0.2})
    watched = prepare(tmp_path, "watched", steps=4, adapter={"kind": "lora", "dropout": 0.2}, watch={"samples": 2})
    train(plain)
    record = train(watched)
    assert any(event.kind == "sample" for event in read_events(watched))
    assert not codes(record) & {"R031", "R032", "R033", "R039"}
    assert weights(plain / "model") == weights(watched / "model")


def test_a_model_that_cannot_answer_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tmp_path, steps=4, watch={"samples": 1})

    def broken(*_args: object, **_kwargs: object) -> None:
        raise NotImplementedError("no cache for this architecture")

    monkeypatch.setattr(transformers.Qwen3ForCausalLM, "generate", broken)
    record = train(run)
    assert record.status == "done"
    (found,) = [one for one in record.findings if one.code == "R031"]
    assert "no cache" in found.what
    assert not any(event.kind == "sample" for event in read_events(run))


def test_a_gpu_s_silent_driver_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tmp_path, steps=2, watch={"samples": 0, "system": 1e-6})

    def driver(_self: SystemCallback) -> dict[str, float]:
        _self._failed("NVMLError: driver not loaded")
        return {}

    monkeypatch.setattr(SystemCallback, "measured", driver)
    record = train(run)
    assert record.status == "done"
    (found,) = [one for one in record.findings if one.code == "R039"]
    assert "driver not loaded" in found.what


def test_own_callbacks(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(CALLBACKS)
    run = prepare(tmp_path, watch={"callbacks": f"{own}:Counts", "samples": 0})
    assert train(run).status == "done"
    assert (run / "counted").read_text().split() == [str(step) for step in range(1, STEPS + 1)]

    assert "R034" not in codes(RunRecord.load(run))

    stops = prepare(tmp_path, "stops", watch={"callbacks": f"{own}:Stops", "samples": 0})
    record = train(stops)
    assert (record.status, record.step) == ("done", 3)
    (told,) = [one for one in record.findings if one.code == "R034"]
    assert told.what == f"Your callback {own}:Stops stopped training at step 3 of {STEPS}."

    broken = prepare(tmp_path, "broken", watch={"callbacks": [f"{own}:Breaks"], "samples": 0})
    worker = Worker(broken)
    assert guarded(worker, worker.run) == 2
    worker.log.close()
    (failure,) = [event.data for event in read_events(broken) if event.kind == "fail"]
    assert "own.py raised ValueError: no more" in failure["what"]
    assert "in on_step_end" in failure["why"]

    for name, why in (("NeedsMore", "missing 1 required"), ("text", "makes a str")):
        unusable = prepare(tmp_path, name, watch={"callbacks": [f"{own}:{name}"], "samples": 0})
        with pytest.raises(UsageError, match=f"own.py:{name} can't be used") as refused:
            train(unusable)
        assert why in refused.value.why


def test_what_cannot_be_watched_is_told_before_the_run(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(CALLBACKS)
    for name, keys in {
        "P065": {"watch": {"best": True}, "data": {"train": str(own.with_name("rows-24.jsonl")), "eval": 0}},
        "P066": {"watch": {"best": True, "metric": "f1"}},
        "P068": {"watch": {"early_stopping": 1}, "training": {"save_steps": 3}},
        "P069": {"watch": {"callbacks": f"{own}:Absent"}},
    }.items():
        with pytest.raises(FindingsError, match=name):
            prepare(tmp_path, name, **keys)
        assert not (tmp_path / name).exists()
    warned = prepare(tmp_path, "warned", watch={"best": True})
    assert "P067" in [found.code for found in Plan.load(warned).findings]


def test_a_tracker_by_name_gets_the_metrics_and_its_failure_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = prepare(tmp_path, "fed", steps=2, training={"report_to": "tensorboard"})
    assert "R006" not in codes(train(fed))
    assert list(fed.rglob("events.out.tfevents.*"))

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file" / "logs"))
    unfed = prepare(tmp_path, "unfed", steps=2, training={"report_to": "tensorboard"})
    record = train(unfed)
    assert record.status == "done"
    (found,) = [one for one in record.findings if one.code == "R006"]
    assert found.what.startswith("tensorboard could not be used: NotADirectoryError")


def test_old_checkpoints_go_but_the_best_stays(tmp_path: Path) -> None:
    run = prepare(
        tmp_path,
        steps=5,
        watch={"best": True, "samples": 0},
        training={"eval_steps": 1, "save_steps": 1, "save_total_limit": 2, **WORSE},
        guard=CALM,
    )
    record = train(run)
    assert record.best is not None
    kept = sorted(path.name for path in (run / "checkpoints").glob("checkpoint-*"))
    assert kept == sorted({f"checkpoint-{step}" for step in (record.best.step, 4, 5)})
    assert last_complete(run) == run / "checkpoints" / "checkpoint-5"
