"""Bad input through the real command: each is told with what, why and fix, and nothing written before is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tunesmith.demo
from tunesmith.cli import main
from tunesmith.demo import task
from tunesmith.records import RunRecord
from tunesmith.train.checkpoints import all_checkpoints, is_complete, last_complete, step_of

Capture = pytest.CaptureFixture[str]
SMALL = Path(tunesmith.demo.__file__).parent / "small"
GOOD = task.rows("train", 40)


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_recipe(**changes: Any) -> Path:
    values = {"model": "builtin:small", "data": {"train": "rows.jsonl"}} | changes
    Path("recipe.yaml").write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return Path("recipe.yaml")


def refused(capsys: Capture, *words: str, code: int) -> str:
    """The words that a command ends with, refusing; no traceback, and no run folder is left behind."""
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert re.search(r"^error: .+\n  why: .+\n  fix: .+$", err, re.MULTILINE), err
    assert not Path("run").is_dir()
    return err


def plan_refused(capsys: Capture, *words: str, code: int) -> str:
    """What `plan` and, with the same words, `train` say: the same, and before anything is written."""
    said = refused(capsys, "plan", "recipe.yaml", *words, code=code)
    assert refused(capsys, "train", "recipe.yaml", "--output", "run", *words, code=code) == said
    return said


PARQUET_HEAD = b"PAR1" + bytes(100)

UNREADABLE = {
    "empty": (b"", "D002", "has no rows"),
    "blank": (b"\n \n", "D002", "has no rows"),
    "binary": (bytes(range(256)), "D003", "binary data"),
    "UTF-16 without mark": (lines(GOOD).decode().encode("utf-16-le"), "D003", "UTF-16LE"),
    "latin-1": (b'{"prompt": "a", "completion": "b"}\n{"prompt": "caf\xe9", "completion": "b"}\n', "D003", "Line 2"),
    "gzip": (b"\x1f\x8b\x08\x00", "D001", "gzip file is damaged or cut off"),
    "truncated Parquet": (PARQUET_HEAD, "D00[13]", "Parquet"),
    "no objects": (b'"text"\n"more"\n', "D001", "a row must be an object"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_files_that_cannot_be_read(kind: str, capsys: Capture) -> None:
    content, code, words = UNREADABLE[kind]
    Path("rows.jsonl").write_bytes(content)
    write_recipe()
    for said in (refused(capsys, "inspect", "rows.jsonl", code=1), plan_refused(capsys, code=1)):
        assert re.search(rf"error: {code} rows\.jsonl: .*{words}", said), said


BROKEN = {
    "truncated": (lines(GOOD)[:-40], 39, "line 40: .*cut off there"),
    "broken line": (lines(GOOD[:6]) + b'{"prompt": \n' + lines(GOOD[6:]), 40, "In line 7:"),
    "several broken lines": (lines(GOOD[:2]) + b"{\n[\n" + lines(GOOD), 42, "2 lines .* line 3:"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_lines_that_cannot_be_read(kind: str, capsys: Capture) -> None:
    content, rows, words = BROKEN[kind]
    Path("rows.jsonl").write_bytes(content)
    write_recipe()
    assert re.search(rf"error: D001 rows\.jsonl: .*{words}", plan_refused(capsys, code=1))
    assert main(["inspect", "rows.jsonl", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"] == rows
    assert re.search(rf"error D001 rows\.jsonl: .*{words}", err)
    assert main(["inspect", "rows.jsonl", "--bad-rows", "drop"]) == 0
    assert main(["plan", "recipe.yaml", "--data.bad_rows", "drop"]) == 0


def test_wide_text_is_read(capsys: Capture) -> None:
    Path("rows.jsonl").write_bytes(lines(GOOD).decode().encode("utf-16"))
    assert main(["inspect", "rows.jsonl"]) == 0


def test_a_file_that_is_not_there(capsys: Capture) -> None:
    write_recipe()
    assert "rows.jsonl isn't there" in refused(capsys, "inspect", "rows.jsonl", code=2)
    assert "rows.jsonl isn't there" in plan_refused(capsys, code=2)


def test_a_folder_in_place_of_a_file(capsys: Capture) -> None:
    Path("rows.jsonl").mkdir()
    write_recipe()
    assert "is a folder" in refused(capsys, "inspect", "rows.jsonl", code=2)
    assert "is a folder" in plan_refused(capsys, code=2)


def test_a_file_name_that_is_not_utf8(capsys: Capture) -> None:
    name = os.fsdecode(b"rows\xff.jsonl")
    Path(name).write_bytes(lines(GOOD))
    assert main(["inspect", name]) == 0
    assert "rows\N{REPLACEMENT CHARACTER}.jsonl" in capsys.readouterr().out


USER, REPLY = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
BAD_ROWS: dict[str, tuple[Any, str, str]] = {
    "null": ({"messages": [USER, {"role": "assistant", "content": None}]}, "D005", "null"),
    "no messages": ({"messages": []}, "D006", "no"),
    "unknown role": ({"messages": [{"role": "narrator", "content": "a"}, REPLY]}, "D007", "narrator"),
    "open end": ({"messages": [USER]}, "D008", "end with an assistant"),
    "empty answer": ({"messages": [USER, {"role": "assistant", "content": " "}]}, "D012", "empty"),
    "number": ({"messages": [USER, {"role": "assistant", "content": 5}]}, "D013", "number"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_rows_that_cannot_be_trained_on(kind: str, capsys: Capture) -> None:
    bad, code, words = BAD_ROWS[kind]
    good = [{"messages": [*row["prompt"], *row["completion"]]} for row in GOOD]
    Path("rows.jsonl").write_bytes(lines([*good[:4], bad, *good[4:]]))
    write_recipe()
    said = plan_refused(capsys, code=1)
    assert re.search(rf"error: {code} rows\.jsonl: .*{words}.*rows? 5", said), said
    assert "bad_rows: drop" in said
    assert main(["plan", "recipe.yaml", "--data.bad_rows", "drop", "--json"]) == 0
    out, err = capsys.readouterr()
    plan = json.loads(out)
    assert plan["train"]["rows"] + plan["eval"]["rows"] == 40
    assert re.search(rf"warning D014 rows\.jsonl: 1 of 41 rows was dropped.*{code}", err), err


def test_wrong_columns(capsys: Capture) -> None:
    Path("rows.jsonl").write_bytes(lines([{"alpha": n, "beta": "x"} for n in range(20)]))
    write_recipe()
    said = plan_refused(capsys, code=1)
    assert "D004" in said
    assert "alpha, beta" in said


def test_a_mapping_to_a_column_that_is_not_there(capsys: Capture) -> None:
    Path("rows.jsonl").write_bytes(lines([{"question": "a", "answer": "b"}] * 20))
    write_recipe(data={"train": "rows.jsonl", "mapping": {"prompt": "qestion", "completion": "answer"}})
    assert "question" in plan_refused(capsys, code=2)


class TestModels:
    """Models that can't be trained."""

    @pytest.fixture(autouse=True)
    def _rows(self) -> None:
        Path("rows.jsonl").write_bytes(lines(GOOD))

    def small(self, *without: str) -> Path:
        """A copy of the built-in model without some of its files."""
        return Path(shutil.copytree(SMALL, "small", ignore=shutil.ignore_patterns(*without)))

    @pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "recipe.yaml"])
    def test_no_such_folder(self, name: str, capsys: Capture) -> None:
        write_recipe(model=name)
        assert "There is no model in" in plan_refused(capsys, code=2)

    def test_no_such_builtin(self, capsys: Capture) -> None:
        write_recipe(model="builtin:smal")
        assert "Did you mean builtin:small?" in plan_refused(capsys, code=2)

    def test_a_folder_without_a_model(self, capsys: Capture) -> None:
        Path("empty").mkdir()
        write_recipe(model="./empty")
        assert "has no config.json" in plan_refused(capsys, code=2)

    def test_without_weights(self, capsys: Capture) -> None:
        self.small("*.safetensors")
        write_recipe(model="./small")
        assert main(["plan", "recipe.yaml"]) == 0
        assert "planned from config.json alone" in capsys.readouterr().err
        assert "has no model.safetensors" in refused(capsys, "train", "recipe.yaml", code=2)

    def test_with_weights_cut_off(self, capsys: Capture) -> None:
        weights = self.small() / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        write_recipe(model="./small")
        assert "model.safetensors isn't a complete safetensors file" in plan_refused(capsys, code=2)

    def test_with_a_broken_config(self, capsys: Capture) -> None:
        (self.small() / "config.json").write_text("{", encoding="utf-8")
        write_recipe(model="./small")
        assert "config.json can't be read" in plan_refused(capsys, code=2)

    def test_without_a_tokenizer(self, capsys: Capture) -> None:
        self.small("tokenizer*")
        write_recipe(model="./small")
        assert "small has no tokenizer." in plan_refused(capsys, code=2)

    def test_without_a_template(self, capsys: Capture) -> None:
        self.small("chat_template.jinja")
        write_recipe(model="./small")
        assert main(["plan", "recipe.yaml"]) == 1
        assert "error T005 model" in capsys.readouterr().err
        assert "T005" in refused(capsys, "train", "recipe.yaml", "--output", "run", code=1)
        shutil.copy(SMALL / "chat_template.jinja", "template.jinja")
        assert main(["plan", "recipe.yaml", "--chat_template", "template.jinja"]) == 0

    def test_with_a_template_that_is_not_there(self, capsys: Capture) -> None:
        write_recipe(chat_template="nowhere.jinja")
        assert "nowhere.jinja can't be read" in plan_refused(capsys, code=2)


class TestRecipes:
    """Recipes that are wrong."""

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"adapter": {"r": "many"}}, "adapter.r can't be 'many'"),
            ({"adapter": {"r": -4}}, "adapter.r can't be -4"),
            ({"data": {"train": "rows.jsonl", "eval": 1.5}}, "data.eval can't be 1.5"),
            ({"seed": -1}, "seed can't be -1"),
            ({"training": {"num_train_epochs": -3}}, "training.num_train_epochs can't be -3"),
            ({"training": {"max_steps": "all"}}, "training.max_steps can't be 'all'"),
            ({"training": {"max_seq_length": 100}}, "Use `max_length`."),
            ({"trainig": {}}, "Did you mean training?"),
            ({"data": {"train": "rows.jsonl", "evl": 0.1}}, "unknown key data.evl"),
            ({"data": {}}, "data.train is missing"),
            ({"method": "stf"}, "method can't be 'stf'"),
            ({"base_model": "x"}, "tunesmith calls it model."),
        ],
    )
    def test_wrong_values(self, changes: dict[str, Any], words: str, capsys: Capture) -> None:
        Path("rows.jsonl").write_bytes(lines(GOOD))
        write_recipe(**changes)
        said = plan_refused(capsys, code=2)
        assert words in said
        assert "recipe.yaml line 1" in said or "missing" in said

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "isn't a recipe"),
            (b"- a\n", "isn't a recipe"),
            (b"model: x\n  data: y\n", "line 2 isn't valid YAML"),
            (b"model: {{ x }}\n", ""),
            (b"\x00\x01", ""),
            (b"\xff\xfe", "can't be read"),
        ],
    )
    def test_files_that_are_none(self, content: bytes, words: str, capsys: Capture) -> None:
        Path("recipe.yaml").write_bytes(content)
        assert words in plan_refused(capsys, code=2)

    def test_no_such_file(self, capsys: Capture) -> None:
        assert "There is no recipe recipe.yaml" in plan_refused(capsys, code=2)

    def test_a_folder(self, capsys: Capture) -> None:
        Path("recipe.yaml").mkdir()
        assert "can't be read" in plan_refused(capsys, code=2)


class TestOutput:
    """Places that can't be written."""

    @pytest.fixture(autouse=True)
    def _recipe(self) -> None:
        Path("rows.jsonl").write_bytes(lines(GOOD))
        write_recipe()

    def test_a_file_stands_there(self, capsys: Capture) -> None:
        Path("run").write_text("mine", encoding="utf-8")
        assert "Cannot write to" in refused(capsys, "train", "recipe.yaml", "--output", "run", code=3)
        assert "Cannot write to" in refused(capsys, "train", "recipe.yaml", "--output", "run/below", code=3)
        assert Path("run").read_text(encoding="utf-8") == "mine"

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place that even root can't write")
    def test_not_writable_by_anyone(self, capsys: Capture) -> None:
        assert "/proc/run" in refused(capsys, "train", "recipe.yaml", "--output", "/proc/run", code=3)
        assert "/proc/recipe" in refused(
            capsys, "init", "rows.jsonl", "--model", "builtin:small", "--recipe", "/proc/recipe.yaml", code=3
        )

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_not_writable_by_this_user(self, capsys: Capture) -> None:
        Path("locked").mkdir(mode=0o500)
        assert "Cannot write to" in refused(capsys, "train", "recipe.yaml", "--output", "locked/run", code=3)

    def test_a_folder_in_use_is_left_alone(self, capsys: Capture) -> None:
        Path("used").mkdir()
        Path("used/notes.txt").write_text("mine", encoding="utf-8")
        assert "isn't empty" in refused(capsys, "train", "recipe.yaml", "--output", "used", code=2)
        assert "isn't empty" in refused(capsys, "plan", "recipe.yaml", "--output", "used", code=2)
        assert [path.name for path in Path("used").iterdir()] == ["notes.txt"]
        assert Path("used/notes.txt").read_text(encoding="utf-8") == "mine"


def command(*words: str, file_limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """The real command, whose files, and those of its worker, may grow to `file_limit` KiB."""
    limit = f"ulimit -f {file_limit}; " if file_limit else ""
    shell = f'{limit}exec "$@"'
    return subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-m", "tunesmith", *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_full_disk_while_saving_loses_nothing() -> None:
    Path("rows.jsonl").write_bytes(lines(task.rows("train", 64)))
    write_recipe(training={"max_steps": 6, "save_steps": 2, "report_to": "none"}, adapter={"kind": "none"})
    stopped = command("train", "recipe.yaml", "--output", "run", "--training.max_steps", "6")
    assert stopped.returncode == 0, stopped.stderr
    run = Path("run")
    # As after a crash: the last checkpoint but one is the newest that counts.
    record = RunRecord.load(run)
    shutil.rmtree(run / "model")
    shutil.rmtree(all_checkpoints(run)[-1])
    record.model_copy(update={"status": "failed"}).save(run)
    kept = last_complete(run)
    assert kept is not None
    assert step_of(kept) == 4

    full = command("resume", "run", file_limit=1024)  # optimizer.pt takes 3.5 MB
    assert full.returncode == 3, full.stderr
    assert "The disk is full while saving." in full.stderr
    assert "tunesmith resume" in full.stderr
    assert "Traceback" not in full.stderr
    assert is_complete(kept)
    assert last_complete(run) == kept
    assert not (run / "model").exists()
    assert RunRecord.load(run).status == "failed"

    resumed = command("resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    done = RunRecord.load(run)
    assert (done.status, done.step, done.resumed_from[-1]) == ("done", 6, 4)
    assert (run / "model" / "model.safetensors").exists()
