"""What the command line imports on the way to an answer: seconds, for those who import torch needlessly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.demo import task

HEAVY = ["torch", "transformers", "trl", "peft", "datasets", "scipy", "pyarrow", "trackio", "gguf", "huggingface_hub"]

_REPORT = """
import sys
from tunesmith.cli import main
code = main(sys.argv[1:])
sys.stderr.write("\\n" + " ".join(sys.modules))
sys.exit(code)
"""


def modules_after(*words: str) -> set[str]:
    """The modules that the real command has imported at its end."""
    ended = subprocess.run([sys.executable, "-c", _REPORT, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(ended.stderr.rpartition("\n")[2].split())


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"]])
def test_help_imports_nothing_but_the_standard_library(words: list[str]) -> None:
    modules = modules_after(*words)
    assert not {"rich", "pydantic", "yaml", "numpy", *HEAVY} & modules
    assert {name for name in modules if name.startswith("tunesmith")} == {
        "tunesmith",
        "tunesmith.cli",
        "tunesmith.errors",
    }


@pytest.mark.parametrize(
    "words",
    [
        ["rule"],
        ["rule", "T003"],
        ["schema"],
        ["schema", "plan"],
        ["runs", "list"],
        ["train", "--help"],
        ["tune", "--help"],
    ],
)
def test_small_answers_import_nothing_heavy(words: list[str]) -> None:
    assert not {*HEAVY, "numpy", "jinja2"} & modules_after(*words)


@pytest.fixture
def rows() -> Path:
    path = Path("rows.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in task.rows("train", 40)), encoding="utf-8")
    return path


def test_inspect_without_a_model_imports_nothing_heavy(rows: Path) -> None:
    never = {"torch", "transformers", "datasets", "trl", "peft", "gguf", "huggingface_hub", "duckdb", "tiktoken"}
    assert not never & modules_after("inspect", str(rows))
    assert not {*HEAVY} & modules_after("inspect", str(rows), "--no-quality")


def test_recipe_and_plan_import_neither_torch_nor_datasets(rows: Path) -> None:
    # Transformers' own template renderer is used, which imports parts of transformers but not torch.
    never = {"torch", "datasets", "trl", "peft", "scipy", "trackio", "gguf", "tunesmith.train.worker"}
    assert not never & modules_after("init", str(rows), "--model", "builtin:small")
    assert not never & modules_after("plan", "recipe.yaml")
    assert not never & modules_after("plan", "recipe.yaml", "--output", "run")
