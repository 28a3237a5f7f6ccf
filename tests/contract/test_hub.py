"""The unmodified Hub client against an emulated Hub: plan and train with a model that lies there."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunesmith.demo
from tests.support.hub import COMMIT, serve
from tunesmith.demo import task
from tunesmith.records import Plan, RunRecord

SMALL = Path(tunesmith.demo.__file__).parent / "small"
MODELS: dict[str, Path | str] = {"someone/small": SMALL, "someone/gated": "GatedRepo"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serve(MODELS) as address:
        yield address


def command(endpoint: str, *words: str, model: str = "someone/small") -> subprocess.CompletedProcess[str]:
    """The real command in a fresh cache, with a recipe for 64 rows and `model`."""
    rows = "".join(json.dumps(row) + "\n" for row in task.rows("train", 64))
    Path("rows.jsonl").write_text(rows, encoding="utf-8")
    recipe = {"model": model, "data": {"train": "rows.jsonl"}, "training": {"max_steps": 2, "report_to": "none"}}
    Path("recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(Path("hf").resolve()),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_ETAG_TIMEOUT": "5",
    }
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", "tunesmith", *words], env=environment, capture_output=True, text=True, check=False
    )


def test_a_plan_pins_the_commit(endpoint: str) -> None:
    ended = command(endpoint, "plan", "recipe.yaml", "--json")
    assert ended.returncode == 0, ended.stderr
    plan = Plan.model_validate_json(ended.stdout)
    assert (plan.model.location, plan.model.revision) == ("someone/small", COMMIT)
    assert plan.model.parameters == 446_208
    weights = list(Path("hf").rglob("*.safetensors"))
    assert weights == [], "a plan needs no weights"


@pytest.mark.slow
def test_training_loads_the_commit_that_was_planned(endpoint: str) -> None:
    ended = command(endpoint, "train", "recipe.yaml", "--output", "run")
    assert ended.returncode == 0, ended.stderr + Path("run/worker.log").read_text(encoding="utf-8")
    assert Plan.load(Path("run")).model.revision == COMMIT
    assert RunRecord.load(Path("run")).step == 2
    snapshots = {path.parent.name for path in Path("hf").rglob("snapshots/*/model.safetensors")}
    assert snapshots == {COMMIT}


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_a_gated_model(verb: str, endpoint: str) -> None:
    said = refused(endpoint, verb, model="someone/gated", code=2)
    assert "error: someone/gated is gated." in said
    assert "hf auth login" in said


@pytest.mark.parametrize("name", ["someone/nothing", "nothing"])
def test_no_such_model(name: str, endpoint: str) -> None:
    assert f"error: There is no model {name}." in refused(endpoint, "plan", model=name, code=2)


def test_no_such_revision(endpoint: str) -> None:
    said = refused(endpoint, "plan", "--revision", "v9", code=2)
    assert "error: someone/small has no revision v9." in said


def test_a_revision_that_is_there(endpoint: str) -> None:
    ended = command(endpoint, "plan", "recipe.yaml", "--json", "--revision", COMMIT)
    assert ended.returncode == 0, ended.stderr
    assert Plan.model_validate_json(ended.stdout).model.revision == COMMIT


def test_a_hub_that_cannot_be_reached() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    said = refused(nowhere, "plan", code=3)
    assert "error: someone/small can't be fetched." in said
    assert "Check the network" in said


def test_inspect_and_init_take_a_model_on_the_hub(endpoint: str) -> None:
    ended = command(endpoint, "inspect", "rows.jsonl", "--model", "someone/small", "--no-audit", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["lengths"]["total"]["rows"] == 64
    ended = command(endpoint, "init", "rows.jsonl", "--model", "someone/small", "--recipe", "new.yaml")
    assert ended.returncode == 0, ended.stderr
    assert "model: someone/small\n" in Path("new.yaml").read_text(encoding="utf-8")


def refused(endpoint: str, verb: str, *words: str, model: str = "someone/small", code: int) -> str:
    """What the command says when it refuses: three lines and nothing else, no run folder left behind."""
    ended = command(endpoint, verb, "recipe.yaml", *words, model=model)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    assert re.fullmatch(r"error: .+\n  why: .+\n  fix: .+\n", ended.stderr), ended.stderr
    assert not Path("runs").exists()
    return ended.stderr
