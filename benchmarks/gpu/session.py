"""One call's share of the work: what isn't done yet, each job in a process of its own, until the time is up."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from .configurations import SMALL
from .results import DONE, Results, Row

Job = dict[str, Any]
Runner = Callable[[Job, float], dict[str, Any]]
LIMIT, RACE_LIMIT = 180.0, 330.0
"""Seconds that a job may take; an 8B model is built, quantised and run in well under that. A race has ten runs."""
LEAST = 45.0
"""Seconds under which none is started: importing and building alone may take as long on a cold disk."""
# What is reserved depends on them: it is measured as the allocator is by default.
_DROPPED = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
_SET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


def go_on(results: Results, deadline: float, *, tiny: bool, run: Runner, say: Callable[[str], None]) -> bool:
    """Do what isn't done: checks, races, memory. Of each, what never ran comes before what failed.

    Returns whether all was tried in this call.

    Args:
        results: Has a row with its prediction for each configuration.
        deadline: By `time.monotonic`.
        tiny: Whether the shapes are.
        run: Does one job within so many seconds.
        say: Takes a line about each.
    """
    results.write()
    if (results.parity or {}).get("status") != "measured":
        left = deadline - time.monotonic()
        if left < LEAST:
            return False
        results.parity = run({"parity": SMALL, "tiny": tiny}, min(LIMIT, left))
        results.write()
        say(f"attention: {results.parity['status']}")
    for rows, job, limit in (
        (results.checks, lambda row: {"check": row["name"], "tiny": tiny}, LIMIT),
        (results.races, lambda row: {"race": row["configuration"]}, RACE_LIMIT),
        (results.rows, lambda row: {"train": row["configuration"]}, LIMIT),
    ):
        waiting = [row for row in rows if row["status"] not in DONE]
        for row in sorted(waiting, key=lambda row: row["status"] != "waiting"):
            left = deadline - time.monotonic()
            if left < LEAST:
                return False
            _measure(row, run(job(row), min(limit, left)))
            results.write()
            say(f"{row['name']}: {row['status']}")
    return True


def _measure(row: Row, result: dict[str, Any]) -> None:
    row["status"] = result.pop("status")
    row["measured"] = result if row["status"] == "measured" else None
    row["error"] = result.get("error", "")


def in_a_process(job: Job, seconds: float) -> dict[str, Any]:
    """A job's result, or why there is none; a process that takes longer is ended."""
    environment = {name: value for name, value in os.environ.items() if name not in _DROPPED} | _SET
    # One device: the trainer would spread a batch over several.
    environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu.worker"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            env=environment,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"status": "timed out", "error": f"It took more than {seconds:.0f} s."}
    return _read(done.stdout, done.stderr, done.returncode)


def _read(answer: str, words: str, code: int) -> dict[str, Any]:
    """The last line of an answer; where there is none, or it tells of a failure, with what was said last."""
    said = words.strip().splitlines()[-12:]
    with contextlib.suppress(json.JSONDecodeError, IndexError):
        found: dict[str, Any] = json.loads(answer.strip().splitlines()[-1])
        if found["status"] == "failed":
            found["error"] = "\n".join([found["error"], *said])
        return found
    return {"status": "failed", "error": "\n".join([f"The process ended with {code} and no result.", *said])}


def head(*, comparable: bool, device: str, memory: int, table_device: str, versions: dict[str, str]) -> dict[str, Any]:
    """What a result file says of where it was measured."""
    return {
        "name": "gpu",
        "setting": "Steps of TRL's SFTTrainer on random weights and rows, predicted by the plan before they were run.",
        "comparable": comparable,
        "device": device,
        "memory": memory,
        "planned_as": table_device,
        "versions": versions,
    }
