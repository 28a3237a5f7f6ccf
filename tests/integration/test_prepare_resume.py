"""A preparation that is killed at any moment continues, and ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
# Every file comes into being by os.replace: a process that is killed at its nth one has done n - 1 of them.
_KILLED = """
import os, signal, sys
from tunesmith.cli import main
replace, left = os.replace, int(sys.argv[1])
def killing(*words):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*words)
os.replace = killing
import tunesmith.files
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command, up to its output folder, on rows for three chunks, some of them broken or repeated."""
    path = tmp_path_factory.mktemp("raw") / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for n in range(21_000):
            text = (
                f"{n % 20_000} is a number, the one before is {n % 20_000 - 1}, and its square is {(n % 20_000) ** 2}"
            )
            row = {"prompt": f"Tell of {n % 19_000}", "completion": text if n % 100 else None}
            file.write("{broken\n" if n % 77 == 0 else json.dumps(row) + "\n")
    return ["prepare", str(path), "--dedup", "near", "--bad-rows", "drop", "--output"]


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    output = tmp_path_factory.mktemp("whole") / "out"
    ended = subprocess.run([sys.executable, "-m", "tunesmith", *words, str(output)], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return files(output)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("each", [37, 71])
def test_killed_over_and_over(each: int, words: list[str], whole: dict[str, bytes]) -> None:
    for attempt in range(100):  # noqa: B007 - told below
        ended = subprocess.run(
            [sys.executable, "-c", _KILLED, str(each), *words, "out"], capture_output=True, check=False
        )
        if ended.returncode != -signal.SIGKILL:
            break
    assert ended.returncode == 0, ended.stderr
    assert attempt >= 1
    assert files(Path("out")) == whole


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("step", ["rows", "links", "parts"])
def test_killed_in_each_step(step: str, sign: signal.Signals, words: list[str], whole: dict[str, bytes]) -> None:
    command = [sys.executable, "-m", "tunesmith", *words, "out"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        while not Path("out/.work/done", step).exists() and running.poll() is None:
            time.sleep(0.002)
        running.send_signal(sign)
        _, err = running.communicate(timeout=60)
    assert "Traceback" not in err
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert files(Path("out")) == whole


def test_a_full_disk_is_told_and_the_work_goes_on(words: list[str], whole: dict[str, bytes]) -> None:
    # Files may grow to 1 MiB; those of the first chunk are larger.
    command = [sys.executable, "-m", "tunesmith", *words, "out"]
    limited = ["bash", "-c", 'ulimit -f 1024; exec "$@"', "bash", *command]
    ended = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    assert "The disk is full" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (Path("out") / "manifest.json").exists()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert files(Path("out")) == whole


@pytest.mark.skipif(not Path("/proc/self").exists() or os.name != "posix", reason="needs /proc")
def test_a_folder_that_cannot_be_written(words: list[str]) -> None:
    command = [sys.executable, "-m", "tunesmith", *words, "/proc/out"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "Cannot write to /proc/out" in ended.stderr
