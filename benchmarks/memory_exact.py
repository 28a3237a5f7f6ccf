"""The exact tier on configurations of today's code: what the closed form is held against, and how long faking takes.

python -m benchmarks.memory_exact [NAME...]

The models' config.json are in benchmarks/configs, as their pages on the Hub show them. No GPU and no weights are
needed; answers of earlier runs are taken from the exact tier's cache, with the seconds that they took then.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.plan.exact import ExactPeak, Request, measure_exact
from tunesmith.plan.versions import installed_versions

from .measure import RESULTS
from .measure import _machine as machine

CONFIGS = Path(__file__).parent / "configs"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FULL: dict[str, Any] = {"adapter": "none"}
LORA: dict[str, Any] = {"adapter": "lora"}
QLORA: dict[str, Any] = {"adapter": "qlora"}
SAVED: dict[str, Any] = {"checkpointing": "full"}
SELECTIVE: dict[str, Any] = {"checkpointing": "selective"}
FLOAT32: dict[str, Any] = {"dtype": "float32"}

Asked = tuple[str, Request]
# Model, rows, tokens per row, the rest; the first twelve are as different as can be.
STEPS: list[tuple[str, int, int, dict[str, Any]]] = [
    ("llama-3.1-8b", 1, 2048, FULL | SAVED),
    ("llama-3.1-8b", 8, 1024, LORA | SAVED),
    ("llama-3.1-8b", 1, 4096, LORA),
    ("llama-3.1-8b", 4, 2048, QLORA | SAVED),
    ("llama-3.1-8b", 8, 1024, FULL | SAVED | FLOAT32),
    ("llama-3.1-8b", 8, 1024, LORA | SAVED | FLOAT32),
    ("qwen3-0.6b", 8, 512, FULL),
    ("qwen3-0.6b", 2, 8192, LORA),
    ("gemma-3-1b", 4, 2048, FULL | SAVED),
    ("mistral-7b-v0.3", 4, 4096, LORA | SAVED | {"targets": ATTENTION}),
    ("phi-4-mini", 4, 2048, LORA | SAVED),
    ("qwen3-30b-a3b", 1, 4096, LORA | SAVED | {"targets": ATTENTION}),
    ("llama-3.1-8b", 1, 8192, FULL | SAVED | {"optimizer": "adamw_bnb_8bit"}),
    ("llama-3.2-1b", 4, 1024, FULL),
    ("llama-3.2-1b", 2, 2048, FULL | SAVED | {"optimizer": "adamw_torch"}),
    ("llama-3.2-1b", 2, 1024, LORA | {"attention": "eager"}),
    ("llama-3.2-3b", 4, 768, LORA | {"rank": 32, "targets": ("q_proj", "v_proj"), "mixed": False}),
    ("llama-3.2-3b", 4, 1024, FULL | SAVED | {"mixed": False}),
    ("qwen3-0.6b", 4, 1024, FULL | FLOAT32),
    ("qwen3-8b", 1, 16384, QLORA | SAVED),
    ("qwen3-8b", 4, 2048, LORA | SAVED | {"rank": 64, "targets": ("q_proj", "v_proj")}),
    ("qwen2.5-7b", 4, 4096, LORA | SAVED),
    ("qwen2.5-7b", 1, 4096, FULL | SAVED | {"optimizer": "paged_adamw_8bit"}),
    ("mistral-7b-v0.3", 2, 4096, FULL | SAVED),
    ("gemma-3-1b", 4, 1024, LORA),
    ("gemma-2-2b", 2, 2048, LORA | SAVED | {"attention": "eager"}),
    ("gemma-3-12b", 1, 4096, LORA | SAVED),
    ("phi-4-mini", 2, 2048, QLORA),
    ("smollm2-1.7b", 4, 2048, FULL),
    ("smollm2-1.7b", 2, 1024, FULL | FLOAT32 | {"mixed": False}),
    ("olmo-2-7b", 2, 4096, LORA | SAVED),
    ("granite-3.1-2b", 4, 2048, FULL | SELECTIVE),
    ("r1-distill-qwen-1.5b", 2, 4096, LORA | SAVED),
    ("r1-distill-qwen-1.5b", 4, 2048, QLORA),
    ("llama-3.2-1b", 2, 2048, FULL | {"accumulate": True}),
    ("qwen3-0.6b", 4, 1024, LORA | {"padded": True}),
    ("qwen3-0.6b", 4, 1024, LORA | SAVED | {"method": "dpo", "reference": "model"}),
    ("llama-3.2-1b", 2, 1024, FULL | SAVED | {"method": "dpo", "reference": "model"}),
]


def main() -> None:
    wanted = sys.argv[1:]
    rows = earlier()
    for model, count, length, rest in STEPS:
        if wanted and model not in wanted:
            continue
        request = Request(rows=count, length=length, **rest)
        peak = measure_exact(request, CONFIGS / model)
        rows[model, request] = peak
        measured = f"{peak.allocated / 1e9:7.2f} GB  {peak.seconds:5.1f} s"
        print(f"{model:22} {measured}  {count} x {length} {rest}", file=sys.stderr)
        write(rows)


def earlier() -> dict[Asked, ExactPeak]:
    """What stands in the result file, so that a run that is broken off loses nothing."""
    path = RESULTS / "memory_exact.json"
    known = {field.name for field in dataclasses.fields(Request)}
    asked = {(model, Request(rows=count, length=length, **rest)) for model, count, length, rest in STEPS}
    found = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []:
        key = row["model"], Request.read({name: row[name] for name in known & row.keys()})
        if key in asked:
            found[key] = ExactPeak(**row["peak"])
    return found


def write(rows: dict[Asked, ExactPeak]) -> None:
    """Write benchmarks/results/memory_exact.json: per row the model's folder in configs, the request and the bytes."""
    result = {
        "name": "memory_exact",
        "setting": "Peak bytes of two optimizer steps of the installed trainer under fake tensors; seconds of faking.",
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": installed_versions(),
        "median_seconds": statistics.median(peak.seconds for peak in rows.values()),
        "most_seconds": max(peak.seconds for peak in rows.values()),
        "most_rss": max(peak.rss for peak in rows.values()),
        "rows": [
            {"model": model}
            | dataclasses.asdict(request)
            | {"allocated": peak.allocated, "peak": dataclasses.asdict(peak)}
            for (model, request), peak in rows.items()
        ],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory_exact.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
