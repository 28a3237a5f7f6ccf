"""Rows of the demo's task for every method but sft, and runs of them on the built-in model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith import pipeline
from tunesmith.demo import task
from tunesmith.recipe import build_recipe

Row = dict[str, Any]


def pairs(count: int) -> list[Row]:
    """The right ticket to each message, and one with another city and quantity."""
    return [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": _spoilt(row["completion"])}
        for row in task.rows("train", count)
    ]


def marked(count: int) -> list[Row]:
    """The same, as answers marked good or bad, the two to a message side by side."""
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs(count)
        for side in ("chosen", "rejected")
    ]


def texts(count: int) -> list[Row]:
    """The tickets, as running text."""
    return [{"text": row["completion"][0]["content"]} for row in task.rows("train", count)]


def rows_for(method: str, count: int) -> list[Row]:
    """Rows that a method learns from."""
    made = {"dpo": pairs, "reward": pairs, "kto": marked, "clm": texts}
    return made[method](count) if method in made else task.rows("train", count)


def prepare(folder: Path, method: str, kind: str = "none", rows: list[Row] | None = None, **training: Any) -> Path:
    """A prepared run in `folder`/run; a tenth of the rows, 64 unless given, is held out."""
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows or rows_for(method, 64)))
    quiet = {"report_to": "none", "save_strategy": "no", "logging_steps": 1, "warmup_steps": 0, "eval_strategy": "no"}
    values = {
        "model": "builtin:small",
        "method": method,
        "data": {"train": str(data), "eval": 0.1},
        "adapter": {"kind": kind},
        "training": {**quiet, **training},
    }
    return pipeline.prepare_run(build_recipe(values), folder / "run")


def _spoilt(answer: list[Row]) -> list[Row]:
    ticket = json.loads(answer[0]["content"])
    ticket |= {"quantity": ticket["quantity"] % 8 + 2, "city": "Nowhere"}
    return [{"role": "assistant", "content": json.dumps(ticket)}]
