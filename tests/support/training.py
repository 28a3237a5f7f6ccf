"""Small runs of the built-in model, trained in the test's own process: another one takes six seconds to start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tunesmith import pipeline
from tunesmith.demo import task
from tunesmith.recipe import build_recipe
from tunesmith.records import RunRecord
from tunesmith.train.worker import Worker

STEPS = 6


def prepare(folder: Path, name: str = "run", *, steps: int = STEPS, rows: int = 24, **keys: Any) -> Path:
    """A prepared run; `keys` are the recipe's, of `training` those beside the usual ones."""
    data = folder / f"rows-{rows}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in task.rows("train", rows)))
    few = {
        "max_steps": steps,
        "save_steps": 2,
        "eval_steps": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "report_to": "none",
    }
    values: dict[str, Any] = {
        "model": "builtin:small",
        "data": {"train": str(data), "eval": 0.2},
        "adapter": {"kind": "none"},
        "watch": {"samples": 0, "system": 0},
        **keys,
        "training": {**few, **keys.get("training", {})},
    }
    return pipeline.prepare_run(build_recipe(values), folder / name)


def train(run: Path, *, anyway: bool = False) -> RunRecord:
    """Train a run folder here, as the worker's process does but for its signals; a failure raises."""
    worker = Worker(run, anyway=anyway)
    try:
        worker.run()
    finally:
        worker.log.close()
    return worker.record


def weights(folder: Path) -> dict[str, bytes]:
    """All weights in the safetensors files of a folder, exactly."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            tensors |= {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - not a dict
    return tensors


def codes(record: RunRecord) -> set[str]:
    """Codes of a run's findings."""
    return {found.code for found in record.findings}
