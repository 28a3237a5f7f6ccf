"""What the project says of itself is so."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import tunesmith

ROOT = Path(__file__).parents[2]


def test_no_file_is_longer_than_one_sitting() -> None:
    files = [path for folder in ("src", "tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")]
    long = {str(path): lines for path in files if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500}
    assert not long
    assert len(files) > 50


def test_generated_pages_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = [path.name for path, page in generate.pages().items() if path.read_text(encoding="utf-8") != page]
    assert not stale, "run `make docs`"


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == tunesmith.__version__


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    explained = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    needed = [
        *project["dependencies"],
        *project["optional-dependencies"]["gguf"],
        *project["optional-dependencies"]["dev"],
    ]
    names = [re.split(r"[<>=~!\[; ]", requirement)[0] for requirement in needed]
    assert [name for name in names if name not in explained] == []


def test_the_public_api_is_what_it_was() -> None:
    assert sorted(tunesmith.__all__) == [
        "Plan",
        "Receipt",
        "Recipe",
        "TunesmithError",
        "__version__",
        "evaluate_run",
        "export_run",
        "inspect",
        "load_recipe",
        "make_plan",
        "prepare_run",
        "train_run",
        "tune",
        "write_receipt",
    ]
    assert all(getattr(tunesmith, name) is not None for name in tunesmith.__all__)
    assert not any((ROOT / "src" / "tunesmith" / name).is_dir() for name in tunesmith.__all__)


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, tunesmith; print([name for name in ('torch', 'transformers', 'pydantic') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
