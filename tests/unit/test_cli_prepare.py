"""`tunesmith prepare` through the command line."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tunesmith.cli import main
from tunesmith.cli.schema import schema_of
from tunesmith.data.sources import read
from tunesmith.demo import task

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def rows() -> list[dict[str, Any]]:
    made = list(task.rows("train", 60))
    lines = [json.dumps(row) for row in [*made, made[0]]]
    Path("rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made


def test_tells_every_step_and_what_comes_next(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["prepare", "rows.jsonl", "--output", "out"]) == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 80
    words = [line.split() for line in out.splitlines()]
    assert ["exact", "61", "60", "1", "equals", "an", "earlier", "row"] in words
    assert ["read", "61", "61"] in words
    assert any(line[:1] == ["train.parquet"] for line in words)
    assert "Next: tunesmith inspect out/train.parquet --model MODEL" in err


def test_json_is_the_manifest(capsys: Capture) -> None:
    assert main(["prepare", "rows.jsonl", "--output", "out", "--json", "--eval", "0.2"]) == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.validate(told, schema_of("preparation"))
    assert told == json.loads(Path("out/manifest.json").read_text(encoding="utf-8"))
    assert told["settings"]["eval"] == 0.2


def test_the_result_is_data_for_a_recipe(capsys: Capture) -> None:
    assert main(["prepare", "rows.jsonl", "--output", "out"]) == 0
    assert main(["init", "out/train.parquet", "--model", "builtin:small"]) == 0
    capsys.readouterr()
    assert main(["plan", "recipe.yaml", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["train"]["rows"] + plan["eval"]["rows"] == len(read("out/train.parquet").rows)


def test_rows_that_cannot_be_used_give_exit_code_1(capsys: Capture) -> None:
    with Path("rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"prompt": "x", "completion": ""}\n')
    assert main(["prepare", "rows.jsonl", "--output", "out"]) == 1
    assert "D012" in capsys.readouterr().err
    assert main(["prepare", "rows.jsonl", "--output", "out", "--bad-rows", "drop"]) == 0
    assert "D014" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["--eval", "1.5"], "--eval can't be so", "--help"),
        (["--eval", "0.6", "--test", "0.6"], "--eval and --test can't be so", "--help"),
        (["--near-threshold", "0"], "--near-threshold can't be so", "--help"),
        (["--slurm", "cpu"], "for --executor datatrove", "Add --executor datatrove"),
        (["--push", "a/b"], "nobody to ask", "Add --yes"),
        (["--push", "a/b", "--write-pipeline", "p.py"], "--push needs the dataset here", "Repeat the command"),
        (["--group", "nope"], "--group names the column 'nope'", "Name one of these columns"),
        (["--filter", "promt=1"], "--filter names the column 'promt'", "Did you mean 'prompt'?"),
    ],
)
def test_wrong_options(words: list[str], what: str, fix: str, capsys: Capture) -> None:
    assert main(["prepare", "rows.jsonl", "--output", "out", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert what in err
    assert fix in err
    assert not Path("out").exists()


class Terminal:
    """A terminal at which `answer` is typed."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self._answer


@pytest.mark.parametrize(("answer", "pushed"), [("y\n", True), ("n\n", False), ("", False)])
def test_pushing_asks_first(answer: str, pushed: bool, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr("tunesmith.pipeline.push_data", lambda folder, record, name: sent.append(name) or "address")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["prepare", "rows.jsonl", "--output", "out", "--push", "someone/rows"]) == 0
    out, err = capsys.readouterr()
    assert "Push 60 rows" in err
    assert sent == ["someone/rows"] * pushed
    assert ("Not pushed." in err) != pushed
    assert ("address" in out) == pushed


@pytest.mark.parametrize(
    ("words", "executor"),
    [([], "LocalPipelineExecutor"), (["--slurm", "cpu"], "SlurmPipelineExecutor"), (["--ray"], "RayPipelineExecutor")],
)
def test_a_pipeline_is_only_written(words: list[str], executor: str, capsys: Capture) -> None:
    asked = ["--dedup", "near", "--tasks", "7", "--filter", "prompt=x", "--write-pipeline", "pipeline.py"]
    assert main(["prepare", "rows.jsonl", "--output", "out", *asked, *words]) == 0
    assert "python pipeline.py" in " ".join(capsys.readouterr().out.split())
    text = Path("pipeline.py").read_text(encoding="utf-8")
    ast.parse(text)
    assert max(map(len, text.splitlines())) <= 120 + len(str(Path.cwd()))
    assert f"return {executor}(" in text
    assert "TASKS = 7" in text
    assert ('PARTITION = "cpu"' in text) == ("--slurm" in words)
    assert '("compare", TASKS)' in text
    assert '("union", 1)' in text
    assert not Path("out").exists()
