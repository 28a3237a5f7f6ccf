"""From process start to the end of the first optimizer step: `tunesmith train` against `trl sft`.

python -m benchmarks.first_step [ROUNDS]

Same model (builtin:small), rows, batch, length, optimizer and precision; full fine-tuning, no evaluation, no
checkpoint, no tracker. A third contestant is `tunesmith train` with what it does besides by default: held-out loss,
checkpoints and Trackio. Our time is that of the run's first log event, theirs the arrival of their first log line on an
unbuffered pipe.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.demo import task
from tunesmith.models.source import locate
from tunesmith.track.events import read_events

from .measure import BIN, interleave, report

SAME: dict[str, Any] = {
    "max_steps": 1,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "max_length": 128,
    "learning_rate": 3e-3,
    "optim": "adamw_torch_fused",
    "logging_steps": 1,
    "bf16": False,
}
"""Trainer arguments of both, under TRL's names; what `trl sft` needs besides to be at its best stands in `_trl`."""
PLAIN = {"report_to": "none", "save_strategy": "no", "eval_strategy": "no"}
ROWS = 512
DEFAULTS = "tunesmith train, its defaults"
TIMEOUT = 600


def environment(home: Path) -> dict[str, str]:
    """The environment of all contestants: nothing online, one thread, idle threads that don't spin."""
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "TRACKIO_DIR": str(home / "trackio"),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def tunesmith(home: Path, *, plain: bool) -> float:
    """Seconds of `tunesmith train`."""
    with tempfile.TemporaryDirectory(dir=home) as folder:
        recipe = {
            "model": "builtin:small",
            "data": {"train": str(home / "data" / "train.jsonl"), "eval": 0 if plain else 0.05},
            "adapter": {"kind": "none"},
            "training": SAME | (PLAIN if plain else {}),
        }
        path = Path(folder) / "recipe.yaml"
        path.write_text(json.dumps(recipe), encoding="utf-8")
        began = time.time()
        command = [str(BIN / "tunesmith"), "train", str(path), "--output", f"{folder}/run"]
        ended = subprocess.run(
            command, env=environment(home), capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
        if ended.returncode:
            raise RuntimeError(ended.stderr)
        first = next(event for event in read_events(Path(folder) / "run") if event.kind == "log")
        return first.time - began


def trl(home: Path) -> float:
    """Seconds of `trl sft`."""
    with tempfile.TemporaryDirectory(dir=home) as folder:
        began = time.time()
        with subprocess.Popen(
            _trl(home, folder), env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            said = []
            first = None
            for line in process.stdout:
                said.append(line)
                if first is None and "'loss':" in line:
                    first = time.time()
        if process.returncode or first is None:
            raise RuntimeError("".join(said))
        return first - began


def _trl(home: Path, folder: str) -> Sequence[str]:
    own = {
        "model_name_or_path": locate("builtin:small").location,
        "dataset_name": str(home / "data"),
        "output_dir": f"{folder}/out",
        "dtype": "float32",
        "use_cpu": True,
        "completion_only_loss": True,
        "disable_tqdm": True,
    }
    values = (SAME | PLAIN | own).items()
    return [str(BIN / "trl"), "sft", *(word for name, value in values for word in (f"--{name}", str(value)))]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = home / "data"
        data.mkdir()
        lines = "".join(json.dumps(row) + "\n" for row in task.rows("train", ROWS))
        (data / "train.jsonl").write_text(lines, encoding="utf-8")
        contestants = {
            "tunesmith train": functools.partial(tunesmith, home, plain=True),
            "trl sft": functools.partial(trl, home),
            DEFAULTS: functools.partial(tunesmith, home, plain=False),
        }
        seconds = interleave(contestants, rounds)
    report(
        "first_step",
        "tunesmith train",
        seconds,
        f"Process start to the end of the first optimizer step: builtin:small, all weights, {ROWS} rows, batch 16.",
        aside=DEFAULTS,
    )


if __name__ == "__main__":
    main()
