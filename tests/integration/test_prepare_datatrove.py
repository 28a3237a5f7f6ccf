"""The same steps under datatrove's own executor: the same rows in each split, the same rows rejected, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("datatrove")
pytestmark = pytest.mark.slow


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunesmith", "prepare", *words],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What is prepared and how: rows for three chunks, of which every step takes some away."""
    path = tmp_path_factory.mktemp("raw") / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(21_000):
            n = number % 20_500
            answer = " ".join(f"w{(n % 17_000) * 31 % (97 + k)}" for k in range(30)) if n % 90 else ""
            lang = "de" if n % 50 == 0 else "en"
            row = {"prompt": f"Tell of {n}", "completion": answer, "topic": n % 900, "lang": lang}
            file.write("{broken\n" if n % 777 == 5 else json.dumps(row) + "\n")
    return [str(path), "--dedup", "near", "--group", "topic", "--filter", "lang=en"]


@pytest.fixture(scope="module")
def local(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the local run."""
    output = str(tmp_path_factory.mktemp("local") / "out")
    ended = command(*words, "--bad-rows", "drop", "--output", output)
    assert ended.returncode == 0, ended.stderr
    return files(output)


@pytest.mark.parametrize("tasks", [1, 3])
def test_any_number_of_tasks_gives_the_same(tasks: int, words: list[str], local: dict[str, bytes]) -> None:
    asked = ["--bad-rows", "drop", "--output", "out", "--executor", "datatrove", "--tasks", str(tasks)]
    ended = command(*words, *asked)
    assert ended.returncode == 0, ended.stderr
    assert files("out") == local
    assert not Path("out.pipeline").exists()
    steps = {step["name"]: step["reasons"] for step in json.loads(local["manifest.json"])["steps"]}
    assert all(steps[name] for name in ("read", "filter", "map", "exact", "near"))


def test_the_written_pipeline_runs_as_it_is(words: list[str], local: dict[str, bytes]) -> None:
    asked = ["--bad-rows", "drop", "--output", "out", "--tasks", "2", "--write-pipeline", "pipeline.py"]
    assert command(*words, *asked).returncode == 0
    (Path("elsewhere")).mkdir()
    ended = subprocess.run(
        [sys.executable, "../pipeline.py"], cwd="elsewhere", capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert files("out") == local
    assert {path.name for path in Path("out.pipeline/logs").iterdir()} == {
        "check", "common", "compare", "convert", "finish", "meet", "sign", "union", "write", "exact",
    }  # fmt: skip


def test_bad_rows_are_refused_as_in_the_local_run(words: list[str], local: dict[str, bytes]) -> None:
    refused = [command(*words, "--output", "a"), command(*words, "--output", "b", "--executor", "datatrove")]
    assert [ended.returncode for ended in refused] == [1, 1]
    said = [ended.stderr[ended.stderr.index("error D001") :] for ended in refused]
    assert said[0] == said[1]
    ended = command(*words, "--output", "b", "--bad-rows", "drop")
    assert ended.returncode == 0, ended.stderr
    assert files("b") == local


SBATCH = """#!/bin/sh
# Runs a job's tasks at once, one after the other, as Slurm would on a node.
script=$(for last in "$@"; do :; done; echo "$last")
array=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for task in $(seq 0 "${array:-0}"); do
    SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here SLURM_JOB_ID=1 RUN_OFFSET=0 sh "$script" || exit 1
done >> slurm.log 2>&1
echo "Submitted batch job 1"
"""


def test_as_jobs_of_slurm(words: list[str], local: dict[str, bytes], tmp_path: Path) -> None:
    """No Slurm runs here; its commands are played by scripts that run what datatrove's executor submits."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {
        "sbatch": SBATCH,
        "srun": '#!/bin/sh\nwhile [ "${1#-}" != "$1" ] || [ "$1" = 1 ]; do shift; done\nexec "$@"\n',
        "scontrol": "#!/bin/sh\necho here\n",
    }.items():
        (tools / name).write_text(text, encoding="utf-8")
        (tools / name).chmod(0o755)
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    asked = ["--bad-rows", "drop", "--output", "out", "--executor", "datatrove", "--tasks", "2", "--slurm", "cpu"]
    ended = command(*words, *asked, PATH=path)
    assert ended.returncode == 0, ended.stderr
    assert "Submitted" in ended.stdout
    log = Path("slurm.log").read_text(encoding="utf-8") if Path("slurm.log").exists() else ""
    assert files("out") == local, log[-3000:]
