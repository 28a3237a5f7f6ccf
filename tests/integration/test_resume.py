"""Resuming: to the same bits from wherever a run ended, and not at all under other conditions unless told to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback
from trl import SFTTrainer

from tests.support.training import STEPS, codes, prepare, train, weights
from tunesmith.cli import main
from tunesmith.files import sha256
from tunesmith.plan.hardware import local_hardware
from tunesmith.records import CheckpointOrigin, Plan, RunRecord
from tunesmith.rules import FindingsError, finding
from tunesmith.track.events import read_events
from tunesmith.train import callbacks, origin
from tunesmith.train.checkpoints import last_complete, mark_complete, step_of
from tunesmith.train.worker import Worker, guarded

pytestmark = pytest.mark.slow

KEYS: dict[str, Any] = {"adapter": {"kind": "lora", "r": 4, "dropout": 0.2}}
"""Dropout draws random numbers: a resume that doesn't restore them ends with other weights."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = prepare(tmp_path_factory.mktemp("undisturbed"), training={"gradient_accumulation_steps": 2}, **KEYS)
    train(run)
    return run


@pytest.fixture
def begun(undisturbed: Path, tmp_path: Path) -> Path:
    """The same run, ended after its checkpoint of step 4."""
    run = shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / f"checkpoint-{STEPS}")
    RunRecord.load(run).model_copy(update={"status": "failed", "result": None, "step": 4}).save(run)
    return run


class At(TrainerCallback):
    """Does something at one moment of one step."""

    def __init__(self, moment: str, step: int, act: Any) -> None:
        def acts(_args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
            if state.global_step == step:
                act()

        setattr(self, moment, acts)


def stopped_at(run: Path, moment: str, step: int, monkeypatch: pytest.MonkeyPatch, *, overdue: bool = True) -> Worker:
    """Train until a stop is asked for at a moment; `overdue`: it has been waited for long enough."""
    worker = Worker(run)

    def ask() -> None:
        if worker.stop.asked:
            return
        worker.stop.ask()
        if overdue:
            worker.stop._due = 0.0
            if worker.stop.within_step:
                worker.stop._reach_in(signal.SIGALRM, None)

    build = Worker._trainer

    def with_callback(self: Worker, begin: int) -> Any:
        trainer = build(self, begin)
        trainer.add_callback(At(moment, step, ask))
        return trainer

    monkeypatch.setattr(Worker, "_trainer", with_callback)
    assert worker.run() == 130
    worker.log.close()
    monkeypatch.undo()
    return worker


def test_a_resumed_run_ends_with_the_same_bits(begun: Path, undisturbed: Path) -> None:
    record = train(begun)
    assert record.resumed_from == [4]
    assert weights(begun / "model") == weights(undisturbed / "model")
    assert record.loss == RunRecord.load(undisturbed).loss
    assert record.tokens == RunRecord.load(undisturbed).tokens
    assert not codes(record) & {"R003", *(f"R{number:03}" for number in range(25, 35))}


def test_a_run_killed_after_its_last_step_isnt_trained_further(undisturbed: Path, tmp_path: Path) -> None:
    """The last step isn't the end of an epoch, where the library would do one more."""
    run = shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(run / "model")
    RunRecord.load(run).model_copy(update={"status": "running", "result": None}).save(run)
    record = train(run)
    assert (record.status, record.step) == ("done", STEPS)
    assert weights(run / "model") == weights(undisturbed / "model")


@pytest.mark.parametrize(
    ("moment", "step", "saved"),
    [
        ("on_step_begin", 3, 3),  # within step 4: what it has computed is thrown away
        ("on_substep_end", 3, 3),
        ("on_optimizer_step", 3, 4),  # too late to throw away, and the step's end is near
        ("on_prediction_step", 4, 4),  # within an evaluation
        ("on_log", 3, 3),
        ("on_save", 2, 2),
        ("on_step_begin", 0, 0),  # nothing is trained yet
    ],
)
def test_a_stop_saves_at_once_wherever_it_comes(
    moment: str, step: int, saved: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(tmp_path, training={"gradient_accumulation_steps": 2}, **KEYS)
    stopped_at(run, moment, step, monkeypatch)
    record = RunRecord.load(run)
    assert record.status == "stopped"
    checkpoint = last_complete(run)
    assert (step_of(checkpoint) if checkpoint else 0) == saved == record.step

    assert train(run).status == "done"
    assert weights(run / "model") == weights(undisturbed / "model")


def test_a_stop_waits_for_the_end_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tmp_path)
    stopped_at(run, "on_step_begin", 2, monkeypatch, overdue=False)
    assert RunRecord.load(run).step == 3


def test_a_signal_reaches_into_a_step_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real signals: SIGTERM comes in the third step, which would take a minute."""
    run = prepare(tmp_path)
    worker = Worker(run)
    worker.stop = type(worker.stop)(patience=0.2)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    timer = signal.getitimer(signal.ITIMER_REAL)  # pytest-timeout's
    step, asked = SFTTrainer.training_step, []

    def slow(self: SFTTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == 2:
            asked.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(6000):
                time.sleep(0.01)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "training_step", slow)
    try:
        worker.stop.listen()
        assert worker.run() == 130
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)
        worker.log.close()
    assert time.monotonic() - asked[0] < 10
    assert last_complete(run) == run / "checkpoints" / "checkpoint-2"


def change(run: Path, **changes: Any) -> None:
    plan = Plan.load(run)
    plan.model_copy(update=changes).save(run)


def settings(run: Path) -> Iterator[tuple[str, str]]:
    """Changes to a run folder, each undone at the end: the code that names it, and what it names."""
    plan = Plan.load(run)
    change(run, training={**plan.training, "learning_rate": 0.5})
    yield "R025", "training.learning_rate was"
    change(run, training={**plan.training, "logging_steps": 3, "save_total_limit": 7, "project": "other"})
    yield "", ""
    assert plan.peft is not None
    plan.save(run)
    wider = plan.peft.model_copy(update={"arguments": {**plan.peft.arguments, "lora_alpha": 1}})
    change(run, peft=wider)
    yield "R025", "adapter.lora_alpha was"
    change(run, peft=plan.peft, processes=plan.processes.model_copy(update={"count": 2, "sharding": "ddp"}))
    yield "R028", "processes was '1', is '2'"
    plan.save(run)
    rows = run / plan.train.path
    content = rows.read_bytes()
    rows.write_bytes(content + b"\n")
    yield "R003", "train.jsonl"
    change(run, train=plan.train.model_copy(update={"sha256": sha256(rows)}))
    yield "R003", "train.jsonl"
    rows.write_bytes(content)
    plan.save(run)
    recipe = run / "recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("seed: 42", "seed: 43"))
    yield "R029", "seed was 42, is 43"
    recipe.write_text(text + "\n# a remark\n")
    yield "", ""
    recipe.write_text(text.replace("batch_size: 64", "batch_size: 8").replace("gguf: null", "gguf: []"))
    assert recipe.read_text().count(": 8\n") + recipe.read_text().count(": []\n") > text.count(": []\n") + 1
    yield "", ""
    recipe.write_text(text)


def test_other_conditions_are_refused_and_named(begun: Path) -> None:
    checkpoint = last_complete(begun)
    for code, what in settings(begun):
        found = origin.check_conditions(begun, Plan.load(begun), checkpoint)
        assert [one.code for one in found if one.severity == "error"] == ([code] if code else []), what
        assert any(what in one.what for one in found) or not what
    assert origin.check_conditions(begun, Plan.load(begun), checkpoint) == []


def test_another_machine(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, here = last_complete(begun), local_hardware()
    for changes, severity, what in (
        ({"name": "another CPU"}, "warning", "is 'another CPU'"),
        ({"device": "cuda", "name": "H200"}, "error", "device was 'cpu', is 'cuda'"),
    ):
        other = here.model_copy(update=changes)
        monkeypatch.setattr(origin, "local_hardware", lambda other=other: other)
        (found,) = origin.check_conditions(begun, Plan.load(begun), checkpoint)
        assert (found.code, found.severity) == ("R028", severity)
        assert what in found.what


def test_a_file_that_changed_before_the_first_checkpoint_is_told(begun: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("class Counts: ...")
    plan = Plan.load(begun)
    plan = plan.model_copy(update={"recipe": {**plan.recipe, "watch": {"callbacks": [f"{own}:Counts"]}}})
    origin.origin_of(plan).save(begun)
    assert "R040" not in [one.code for one in origin.check_conditions(begun, plan, None)]
    own.write_text("class Counts: pass")
    (found,) = [one for one in origin.check_conditions(begun, plan, None) if one.code == "R040"]
    assert (found.severity, found.where) == ("warning", str(own))


def test_the_run_folder_keeps_what_the_run_began_with(begun: Path, undisturbed: Path) -> None:
    kept = undisturbed / CheckpointOrigin.filename
    assert CheckpointOrigin.load(undisturbed).files == origin.origin_of(Plan.load(undisturbed)).files
    before = (begun / kept.name).stat().st_mtime_ns
    train(begun)
    assert (begun / kept.name).stat().st_mtime_ns == before  # the run goes on; it doesn't begin


def test_a_refused_resume_trains_nothing_and_goes_on_when_told_to(begun: Path) -> None:
    plan = Plan.load(begun)
    change(begun, training={**plan.training, "learning_rate": 0.0005})
    with pytest.raises(FindingsError, match="R025"):
        train(begun)
    assert RunRecord.load(begun).step == 4

    record = train(begun, anyway=True)
    assert record.status == "done"
    assert {one.code: one.severity for one in record.findings if one.code in ("R025", "R030")} == {
        "R025": "warning",
        "R030": "warning",
    }
    assert any("step 4" in one.what and "R025" in one.what for one in record.findings)


def test_what_is_put_back_is_forgiven(begun: Path) -> None:
    rows = begun / Plan.load(begun).train.path
    content = rows.read_bytes()
    rows.write_bytes(content + b"\n")
    worker = Worker(begun)
    assert guarded(worker, worker.run) == 1
    worker.log.close()
    assert "R003" in codes(RunRecord.load(begun))
    rows.write_bytes(content)
    record = train(begun)
    assert record.status == "done"
    assert "R003" not in codes(record)


def test_another_base_is_refused(tmp_path: Path, undisturbed: Path) -> None:
    base = shutil.copytree(Plan.load(undisturbed).model.location, tmp_path / "base")
    run = prepare(tmp_path, steps=2, model=str(base), **KEYS)
    train(run)
    checkpoint = last_complete(run)
    assert origin.check_conditions(run, Plan.load(run), checkpoint) == []
    file = base / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    (found,) = origin.check_conditions(run, Plan.load(run), checkpoint)
    assert found.code == "R026"
    assert "model.safetensors" in found.what


def test_another_chat_template_or_tokenizer_is_refused(tmp_path: Path, undisturbed: Path) -> None:
    plan = Plan.load(undisturbed)
    base = shutil.copytree(plan.model.location, tmp_path / "base")
    moved = plan.model_copy(update={"model": plan.model.model_copy(update={"location": str(base)})})
    before = origin.origin_of(moved)
    for name in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json", "merges.txt"):
        file = base / name
        content = file.read_bytes() if file.exists() else None
        file.write_bytes((content or b"") + b" ")
        (found,) = origin.changes(before, origin.origin_of(moved))
        assert (found.code, found.where) == ("R026", "model")
        assert name in found.what
        file.unlink() if content is None else file.write_bytes(content)


def test_another_reward_model_is_refused(tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given as a run, whose result is an adapter on a base."""
    plan = Plan.load(undisturbed)
    judge = shutil.copytree(undisturbed, tmp_path / "judge")
    base = shutil.copytree(plan.model.location, tmp_path / "base")
    Plan.load(judge).model_copy(
        update={"model": plan.model.model_copy(update={"name": str(base), "location": str(base)})}
    ).save(judge)
    settings = judge / "model" / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": str(base)}))
    judged = plan.model_copy(update={"recipe": {**plan.recipe, "rewards": [{"model": "judge"}]}})
    monkeypatch.chdir(tmp_path)
    before = origin.origin_of(judged)
    for file in (judge / "model" / "adapter_model.safetensors", base / "model.safetensors"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(bytes(content))
        (found,) = origin.changes(before, origin.origin_of(judged))
        assert (found.code, found.where) == ("R026", str(file))
        before = origin.origin_of(judged)


def test_changed_code_is_named_as_such(tmp_path: Path, undisturbed: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("class Counts: ...")
    plan = Plan.load(undisturbed)
    watched = plan.model_copy(update={"recipe": {**plan.recipe, "watch": {"callbacks": [f"{own}:Counts"]}}})
    before = origin.origin_of(watched)
    own.write_text("class Counts: pass")
    (found,) = origin.changes(before, origin.origin_of(watched))
    assert (found.code, found.where) == ("R026", str(own))


def test_what_a_stopped_attempt_would_have_given_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations get worse from the first one on: the result is an earlier step's, but of the whole run."""
    rates = {"learning_rate": 0.3, "max_grad_norm": 0.0, "warmup_steps": 0, "lr_scheduler_type": "constant"}
    calm = {"actions": dict.fromkeys(("R009", "R010", "R013", "R014"), "off")}
    watch = {"best": True, "samples": 0, "system": 0}
    run = prepare(tmp_path, watch=watch, training={"eval_steps": 1, "save_steps": 1, **rates}, guard=calm)
    stopped = stopped_at(run, "on_save", 3, monkeypatch).record
    assert stopped.status == "stopped"
    assert "R033" not in codes(stopped)
    old = finding("R033", "model", best=1, last=3, metric="loss", value=1.0)
    stopped.model_copy(update={"findings": [*stopped.findings, old]}).save(run)
    record = train(run)
    (told,) = [one.what for one in record.findings if one.code == "R033"]
    assert f"of {STEPS}" in told


def test_without_a_checkpoint_that_counts_the_run_begins_again(begun: Path, undisturbed: Path) -> None:
    """Its only checkpoint is damaged; of several the one before it would count."""
    checkpoint = last_complete(begun)
    assert checkpoint is not None
    damaged = checkpoint / "optimizer.pt"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(bytes(content))
    record = train(begun)
    (told,) = [one for one in record.findings if one.code == "R005"]
    assert told.severity == "warning"
    assert "begins again" in told.fix
    assert record.resumed_from == []
    assert weights(begun / "model") == weights(undisturbed / "model")


def test_other_versions_are_refused(begun: Path) -> None:
    checkpoint = last_complete(begun)
    assert checkpoint is not None
    made = CheckpointOrigin.load(checkpoint)
    torch_now = made.versions["torch"]
    parts = torch_now.split(".")
    for was, severity in ((f"{parts[0]}.{int(parts[1]) - 1}.0", "error"), (f"{parts[0]}.{parts[1]}.99", "note")):
        made.model_copy(update={"versions": {**made.versions, "torch": was}}).save(checkpoint)
        (found,) = origin.check_conditions(begun, Plan.load(begun), checkpoint)
        assert (found.code, found.severity) == ("R027", severity)
        assert f"torch was {was}" in found.what


def test_a_checkpoint_without_its_origin_counts(begun: Path) -> None:
    """As earlier versions left them."""
    checkpoint = last_complete(begun)
    assert checkpoint is not None
    (checkpoint / CheckpointOrigin.filename).unlink()
    mark_complete(checkpoint)
    assert train(begun).status == "done"


def test_the_new_checkpoint_is_whole_before_an_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Path
) -> None:
    """The process ends between the library's writing and our marker."""
    run = prepare(tmp_path, training={"gradient_accumulation_steps": 2, "save_total_limit": 1}, **KEYS)
    mark = callbacks.mark_complete

    def dies_at_six(checkpoint: Path) -> None:
        if step_of(checkpoint) == 6:
            raise KeyboardInterrupt
        mark(checkpoint)

    monkeypatch.setattr(callbacks, "mark_complete", dies_at_six)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    monkeypatch.undo()
    assert last_complete(run) == run / "checkpoints" / "checkpoint-4"
    record = train(run)
    assert [one.severity for one in record.findings if one.code == "R005"] == ["note"]
    assert weights(run / "model") == weights(undisturbed / "model")


def test_the_command_tells_why_it_refuses(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan.load(begun)
    change(begun, training={**plan.training, "learning_rate": 0.5})
    assert main(["resume", str(begun)]) == 1
    told = capsys.readouterr().err
    assert "R025" in told
    assert "--anyway" in told
    assert RunRecord.load(begun).status == "failed"
    assert [event.kind for event in read_events(begun)][-1] == "fail"
    assert main(["resume", str(begun), "--anyway", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "done"
