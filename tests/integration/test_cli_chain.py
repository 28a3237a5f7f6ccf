"""The verbs from training on, through the command line, on one small run that all tests share."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tunesmith.cli import main
from tunesmith.cli.schema import SCHEMAS
from tunesmith.demo import task
from tunesmith.records import Manifest, Plan, RunRecord
from tunesmith.track.events import read_events

pytestmark = pytest.mark.slow
Capture = pytest.CaptureFixture[str]


def command(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The real command."""
    return subprocess.run(
        [sys.executable, "-m", "tunesmith", *words], capture_output=True, text=True, check=False, cwd=cwd
    )


def write_recipe(folder: Path, **training: Any) -> Path:
    for split, count in (("train", 64), ("test", 20)):
        text = "".join(json.dumps(row) + "\n" for row in task.rows(split, count))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    values = {
        "model": "builtin:small",
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "training": {"report_to": "none"} | training,
        "export": {"gguf": ["f16"]},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run of eight steps with what `train --json` said."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = write_recipe(folder, max_steps=8)
    ended = command("train", str(recipe), "--output", str(folder / "run"), "--json", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder / "run", ended


@pytest.fixture
def run(trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> Path:
    """A copy of the trained run, for the test alone."""
    return Path(shutil.copytree(trained[0], tmp_path / "runs" / "mine"))


def held(text: str, name: str) -> Any:
    """The one JSON value that `text` is, held against a record's schema."""
    value = json.loads(text)
    jsonschema.validate(value, SCHEMAS[name].model_json_schema(mode="serialization"))
    return value


class TestTrain:
    def test_json_alone_is_on_stdout(self, trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
        folder, ended = trained
        record = held(ended.stdout, "run")
        assert (record["status"], record["step"], record["steps"]) == ("done", 8, 8)
        assert RunRecord.load(folder).model_dump(mode="json") == record

    def test_progress_and_next_step_are_on_stderr(self, trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
        folder, ended = trained
        assert "train 8/8  loss" in ended.stderr
        assert "held-out loss" in ended.stderr
        assert ended.stderr.splitlines()[-1] == f"Next: tunesmith evaluate {folder.resolve()}"
        assert "\x1b" not in ended.stderr
        assert "Traceback" not in ended.stderr

    def test_it_learns(self, trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
        losses = [event.data["loss"] for event in read_events(trained[0]) if event.kind == "log"]
        assert losses[-1] < losses[0] / 2

    def test_a_done_run_is_not_resumed(self, run: Path, capsys: Capture) -> None:
        before = sorted(run.rglob("*"))
        assert main(["resume", "mine"]) == 2
        assert "there is nothing to resume" in capsys.readouterr().err
        assert sorted(run.rglob("*")) == before

    def test_a_folder_of_a_run_is_not_trained_over(self, run: Path, capsys: Capture) -> None:
        recipe = write_recipe(Path())
        weights = (run / "model/adapter_model.safetensors").read_bytes()
        assert main(["train", str(recipe), "--output", str(run)]) == 2
        assert "isn't empty" in capsys.readouterr().err
        assert (run / "model/adapter_model.safetensors").read_bytes() == weights


class TestRuns:
    def test_list(self, run: Path, capsys: Capture) -> None:
        assert main(["runs", "list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"run +done +8/8 +\d\.\d{4} +\d\.\d{4} *", lines[-2] or lines[-1]), lines
        assert main(["runs", "list", "--json"]) == 0
        (record,) = json.loads(capsys.readouterr().out)
        held(json.dumps(record), "run")

    def test_a_killed_run_is_listed_as_such(self, run: Path, capsys: Capture) -> None:
        RunRecord.load(run).model_copy(update={"status": "running", "pid": 2**22 - 1}).save(run)
        assert main(["runs", "list"]) == 0
        assert "failed" in capsys.readouterr().out

    @pytest.mark.parametrize("name", ["mine", "last", "runs/mine"])
    def test_show(self, name: str, run: Path, capsys: Capture) -> None:
        assert main(["runs", "show", name]) == 0
        assert "8 of 8" in capsys.readouterr().out
        assert main(["runs", "show", name, "--json"]) == 0
        assert held(capsys.readouterr().out, "run")["status"] == "done"

    def test_logs_are_the_events(self, run: Path, capsys: Capture) -> None:
        assert main(["runs", "logs", "last"]) == 0
        events = [held(line, "event") for line in capsys.readouterr().out.splitlines()]
        assert [event["kind"] for event in events][-1] == "end"
        assert sum(event["kind"] == "log" for event in events) == 8


def test_evaluate(run: Path, capsys: Capture) -> None:
    assert main(["evaluate", "last", "--json"]) == 0
    out, err = capsys.readouterr()
    report = held(out, "eval-report")
    assert report["rows"] == 20
    assert next(item for item in report["comparisons"] if item["metric"] == "loss")["difference"] < 0
    assert f"Next: tunesmith export {run}" in err
    assert json.loads((run / "eval.json").read_text(encoding="utf-8")) == report
    assert main(["receipt", "last", "--json"]) == 0
    assert held(capsys.readouterr().out, "receipt")["evaluation"] == report


def test_export(run: Path, capsys: Capture) -> None:
    code = main(["export", "last", "--gguf", "--json"])
    manifest = Manifest.model_validate(held(capsys.readouterr().out, "manifest"))
    assert code == int(not manifest.passed)
    assert [artifact.kind for artifact in manifest.artifacts] == ["merged"]
    assert (run / "export/merged/model.safetensors").exists()
    assert main(["receipt", "last"]) == code
    out = capsys.readouterr().out
    assert "Receipt of run" in out
    assert "merged" in out
    assert (run / "report.html").exists()


def test_receipt(run: Path, capsys: Capture) -> None:
    assert main(["receipt", "last", "--json"]) == 0
    receipt = held(capsys.readouterr().out, "receipt")
    assert receipt["evaluation"] is None
    assert [event["step"] for event in receipt["curve"] if event["kind"] == "log"] == list(range(1, 9))
    assert json.loads((run / "receipt.json").read_text(encoding="utf-8")) == receipt


def test_chat(run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["chat", "last", "--prompt", "Hello", "--max-new-tokens", "8"]) == 0
    out, err = capsys.readouterr()
    assert out.strip()
    assert err == ""
    assert main(["chat", "last", "--prompt", "Hello", "--max-new-tokens", "8", "--base"]) == 0
    assert capsys.readouterr().out.strip()


def test_stop_and_resume(tmp_path: Path) -> None:
    """`runs stop` from another process saves and stops; `resume` goes on from there to the end."""
    recipe = write_recipe(tmp_path, max_steps=40, eval_strategy="no")
    run = tmp_path / "run"
    words = [sys.executable, "-m", "tunesmith", "train", str(recipe), "--output", str(run)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        _wait_for_step(run, 2)
        stopping = command("runs", "stop", str(run), "--json")
        assert stopping.returncode == 0, stopping.stderr
        held(stopping.stdout, "run")
        out, err = training.communicate(timeout=120)
    assert training.returncode == 130
    assert out == ""
    assert "was stopped at step" in err
    stopped = RunRecord.load(run)
    assert stopped.status == "stopped"
    assert 2 <= stopped.step < 40

    resumed = command("resume", str(run), "--json")
    assert resumed.returncode == 0, resumed.stderr
    record = held(resumed.stdout, "run")
    assert (record["status"], record["step"]) == ("done", 40)
    assert record["resumed_from"] == [stopped.step]


def test_ctrl_c_saves_and_stops(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, max_steps=40, eval_strategy="no")
    run = tmp_path / "run"
    words = [sys.executable, "-m", "tunesmith", "train", str(recipe), "--output", str(run), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        _wait_for_step(run, 2)
        training.send_signal(signal.SIGINT)
        out, err = training.communicate(timeout=120)
    assert training.returncode == 130, err
    assert json.loads(out)["error"]["what"].startswith("Run run was stopped at step")
    assert "tunesmith resume" in err
    assert "Traceback" not in err
    assert RunRecord.load(run).status == "stopped"
    checkpoints = [path.name for path in (run / "checkpoints").glob("checkpoint-*")]
    assert f"checkpoint-{RunRecord.load(run).step}" in checkpoints


def test_prepared_runs_are_trained_by_resume(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, max_steps=2, eval_strategy="no")
    prepared = command("plan", str(recipe), "--output", str(tmp_path / "run"))
    assert prepared.returncode == 0, prepared.stderr
    next_words = prepared.stderr.splitlines()[-1].removeprefix("Next: tunesmith ").split()
    ended = command(*next_words)
    assert ended.returncode == 0, ended.stderr
    assert "2 of 2" in ended.stdout
    assert Plan.load(tmp_path / "run").steps == 2


def test_the_whole_chain(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    keys = ["--training.max_steps", "8", "--training.report_to", "none", "--evaluation.tasks", "[loss]"]
    ended = command(
        "tune", "train.jsonl", "--model", "builtin:small", "--test", "test.jsonl", "--output", "run", "--json", *keys,
        "--export.gguf", "[]", cwd=tmp_path,
    )  # fmt: skip
    receipt = held(ended.stdout, "receipt")
    errors = [found for found in receipt["findings"] if found["severity"] == "error"]
    assert ended.returncode == int(bool(errors)), ended.stderr
    assert receipt["evaluation"]["rows"] == 20
    assert receipt["export"]["artifacts"][0]["kind"] == "merged"
    assert f"Next: tunesmith chat {tmp_path.resolve() / 'run'}" in ended.stderr


def _wait_for_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(event.kind == "log" and event.step >= step for event in read_events(run)):
            return
        time.sleep(0.05)
    log = run / "worker.log"
    raise AssertionError(log.read_text(encoding="utf-8") if log.exists() else "the worker never started")
