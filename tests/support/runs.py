"""Run folders made by hand, for tests of the stages that come after training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tunesmith.demo
from tunesmith.files import sha256
from tunesmith.records import Hardware, MemoryEstimate, ModelFacts, Plan, Split

SMALL = Path(tunesmith.demo.__file__).parent / "small"


def small_facts(location: Path = SMALL) -> ModelFacts:
    """Facts of the builtin small model (or of one like it elsewhere)."""
    return ModelFacts(
        name="builtin:small",
        location=str(location),
        architecture="Qwen3ForCausalLM",
        model_type="qwen3",
        parameters=430_000,
        linears=[],
        layers=3,
        hidden=96,
        intermediate=288,
        vocabulary=896,
        context=2048,
        dtype="float32",
        tied=True,
        has_template=True,
        bytes=1_740_000,
    )


def write_split(folder: Path, name: str, rows: list[dict[str, Any]]) -> Split:
    """Write prepared rows as data/NAME.jsonl of a run folder."""
    path = folder / "data" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Split(path=f"data/{name}.jsonl", rows=len(rows), sha256=sha256(path))


def make_plan(folder: Path, rows: list[dict[str, Any]], *, base: Path = SMALL, **changes: Any) -> Plan:
    """Write test rows, a training row unlike them, and a plan of the small model for them into a run folder."""
    layout = "text" if "text" in rows[0] else "messages" if "messages" in rows[0] else "prompt-completion"
    loss_on = {"text": "all", "messages": "assistant", "prompt-completion": "completion"}[layout]
    split = write_split(folder, "test", rows)
    turns = [{"role": "user", "content": "What was trained on?"}, {"role": "assistant", "content": "This row."}]
    trained = {"messages": turns} if layout == "messages" else {"text": "What was trained on? This row."}
    if layout == "prompt-completion":
        trained = {"prompt": turns[:1], "completion": turns[1:]}
    values: dict[str, Any] = {
        "recipe": {"model": "builtin:small", "method": "sft", "data": {"train": "rows.jsonl"}},
        "method": "sft",
        "model": small_facts(base),
        "hardware": Hardware(device="cpu", name="cpu", count=1, memory=8 << 30, cores=2, bf16=False),
        "layout": layout,
        "loss_on": loss_on,
        "train": write_split(folder, "train", [trained]),
        "eval": None,
        "test": split,
        "choices": [],
        "training": {"max_length": 512, "assistant_only_loss": layout == "messages"},
        "model_kwargs": {"dtype": "float32"},
        "peft": None,
        "trackers": [],
        "parameters": 430_000,
        "parameters_trained": 430_000,
        "steps": 10,
        "epochs": 1.0,
        "tokens_per_step": 100,
        "memory": MemoryEstimate(weights=1_720_000, gradients=1_720_000, optimizer=3_440_000, state=6_880_000),
        "versions": {},
    }
    plan = Plan(**(values | changes))
    plan.save(folder)
    return plan
