"""What the project says of itself is so."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import tunesmith

ROOT = Path(__file__).parents[2]


def test_no_file_is_longer_than_one_sitting() -> None:
    files = [path for folder in ("src", "tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")]
    long = {str(path): lines for path in files if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500}
    assert not long
    assert len(files) > 50


def load_generate() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return generate


def test_generated_pages_are_up_to_date() -> None:
    pages = load_generate().pages()
    stale = [path.name for path, page in pages.items() if path.read_text(encoding="utf-8") != page]
    assert not stale, "run `make docs`"


MEASURED = {
    "name": "race",
    "setting": "Ten laps.",
    "measured": "2026-11-20T15:52:43+00:00",
    "machine": "x86_64, 2 cores",
    "versions": {"python": "3.11"},
    "peers": {"hare": "2.0"},
    "median_seconds": {"ours": 0.5, "hare": 2.0, "start": 0.1},
    "ratio_to_ours": {"ours": 1.0, "hare": 4.0, "start": 0.2},
    "fastest": "ours",
    "seconds": {"ours": [0.4, 0.5, 0.6], "hare": [2.0, 2.0, 2.5], "start": [0.1, 0.1, 0.1]},
    "peak_mb": {"ours": 1234, "hare": 9.87654, "ours, uphill": 200},
    "right": {"ours": {"recall": 1.0}, "hare": {"recall": 0.25}, "of": 7},
    "laps": 10_000,
}


def test_a_benchmark_that_is_won_is_told_with_all_that_was_measured() -> None:
    assert load_generate().benchmark_result(MEASURED).splitlines() == [
        "Ten laps.",
        "",
        "| contestant | median | range | of ours | peak (MB) | recall |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| start (beside the contest) | 0.100 s | 0.100 to 0.100 | 0.20 |  |  |",
        "| ours | 0.500 s | 0.400 to 0.600 | 1.00 | 1,234 | 1 |",
        "| hare | 2.000 s | 2.000 to 2.500 | 4.00 | 9.877 | 0.25 |",
        "",
        "Fastest: ours.",
        "",
        "- peak (MB): ours, uphill 200",
        "- right: of 7",
        "- laps: 10,000",
        "",
        "Measured 2026-11-20 on x86_64, 2 cores; 3 rounds. Versions: python 3.11, hare 2.0.",
    ]


def test_a_benchmark_that_is_lost_is_said_to_be_lost() -> None:
    ratios = {"ours": 1.0, "hare": 0.8, "start": 0.2}
    page = load_generate().benchmark_result({**MEASURED, "ratio_to_ours": ratios, "fastest": "start"})
    assert "**Lost**, 5.00 times as long as the fastest. Faster than ours: hare; start." in page.splitlines()
    assert "beside the contest" not in page
    assert "Fastest" not in page


def test_make_bench_runs_every_benchmark() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nbench:")[2].partition("\n\n")[0]
    runnable = [path for path in (ROOT / "benchmarks").glob("*.py") if "def main()" in path.read_text(encoding="utf-8")]
    assert sorted(re.findall(r"-m benchmarks\.(\w+)", recipe)) == sorted(path.stem for path in runnable)


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == tunesmith.__version__


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    explained = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| ([\w-]+)(?: \(extra `(\w+)`\))? \|", explained, re.MULTILINE))
    extras = dict(project["optional-dependencies"])
    development = explained.partition("For development (extra `dev`):")[2]
    words = set(re.findall(r"[\w-]+", development))
    assert [name for name in names_of(project["dependencies"]) if table.get(name) != ""] == []
    assert [name for name in names_of(extras.pop("dev")) if name not in words and name not in table] == []
    for extra, needed in extras.items():
        assert [name for name in names_of(needed) if table.get(name) != extra] == []


def names_of(requirements: list[str]) -> list[str]:
    """The packages that requirements name."""
    return [re.split(r"[<>=~!\[; ]", requirement)[0] for requirement in requirements]


def test_every_dependency_of_users_has_a_tested_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    extras = {name: needed for name, needed in project["optional-dependencies"].items() if name != "dev"}
    needed = [*project["dependencies"], *(requirement for some in extras.values() for requirement in some)]
    assert [name for name in names_of(needed) if f"\n{name}==" not in constraints] == []


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
