"""The closed form against the exact tier, and against peaks that others measured and published.

python -m benchmarks.memory [held-out | FMS.csv [PUBLISHED.csv]]

Without files: against benchmarks/results/memory_exact.json. FMS.csv has the columns of foundation-model-stack/
fms-acceleration's scripts/benchmarks/refs; PUBLISHED.csv those of a list of other published peaks (source, model,
method, quant, seq_len, micro_batch, ..., peak_gb_per_gpu). For each row that doesn't apply, the result says why.
held-out: steps that nobody had faked when the closed form was written, faked now (a few minutes).
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.errors import TunesmithError
from tunesmith.models.facts import model_facts
from tunesmith.models.source import Source
from tunesmith.plan.memory import Step, estimate
from tunesmith.records import ModelFacts

from . import memory_exact
from .measure import RESULTS

FMS_SOURCE = "github.com/foundation-model-stack/fms-acceleration, scripts/benchmarks/refs"
_LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096}
_MISTRAL = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
}


def _llama(vocabulary: int, hidden: int, inner: int, layers: int, heads: int, keys: int) -> dict[str, Any]:
    return _LLAMA | {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
    }


# Older models, from config.json on their pages; Qwen's first series has Llama's blocks under other names.
CONFIGS: dict[str, dict[str, Any]] = {
    "Mistral-7B": {"model_type": "mistral", "architectures": ["MistralForCausalLM"]} | _MISTRAL,
    "Mixtral-8x7B": {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }
    | _MISTRAL,
    "Llama-2-70": _llama(32000, 8192, 28672, 80, 64, 8),
    "Llama-2-7": _llama(32000, 4096, 11008, 32, 32, 32),
    "Qwen(1)-1.8B": _llama(151936, 2048, 5504, 24, 16, 16),
    "Qwen(1)-7B": _llama(151936, 4096, 11008, 32, 32, 32),
    "Qwen(1)-14B": _llama(152064, 5120, 13696, 40, 40, 40),
    "Qwen(1)-72B": _llama(152064, 8192, 24576, 80, 64, 64),
}


def facts_of(name: str) -> ModelFacts | None:
    """The facts of one of the older models."""
    config = next((config for part, config in CONFIGS.items() if part in name), None)
    if config is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        whole = config | {"dtype": "bfloat16", "tie_word_embeddings": False}
        (Path(folder) / "config.json").write_text(json.dumps(whole), encoding="utf-8")
        return model_facts(Source(name, folder, Path(folder)), planning=True)


def against_exact() -> Iterator[dict[str, Any]]:
    """The configurations of benchmarks/memory_exact.py."""
    found = json.loads((RESULTS / "memory_exact.json").read_text(encoding="utf-8"))
    fields = set(Step.model_fields) - {"model"}
    for row in found["rows"]:
        folder = memory_exact.CONFIGS / row["model"]
        facts = model_facts(Source(row["model"], str(folder), folder), planning=True)
        given = {name: value for name, value in row.items() if name in fields}
        step = Step(model=facts, **given)
        yield _row(row["model"], step, row["allocated"], "allocated", "exact tier")


# Chosen before any of them was run, so that no term could have been found by looking at them.
HELD_OUT: list[tuple[str, dict[str, Any]]] = [
    ("qwen3-8b", {"dtype": "float32", "rows": 2, "length": 1024, "checkpointing": "full"}),
    ("gemma-3-12b", {"adapter": "qlora", "rows": 2, "length": 2048, "padded": True}),
    ("smollm2-135m", {"adapter": "lora", "rows": 8, "length": 512, "attention": "eager"}),
    ("granite-3.1-2b", {"adapter": "lora", "rows": 4, "length": 1024, "checkpointing": "selective", "padded": True}),
    ("llama-3.2-3b", {"adapter": "qlora", "rows": 8, "length": 1024, "padded": True}),
    ("mistral-7b-v0.3", {"rows": 1, "length": 2048}),
    ("olmo-2-7b", {"adapter": "qlora", "rows": 2, "length": 3072, "checkpointing": "full", "rank": 64}),
    ("qwen3-30b-a3b", {"adapter": "lora", "rows": 2, "length": 1024, "checkpointing": "full"}),
    ("gemma-2-2b", {"rows": 1, "length": 1024, "attention": "eager", "optimizer": "adamw_torch"}),
    ("phi-4-mini", {"rows": 2, "length": 1024, "dtype": "float32", "mixed": False}),
    ("qwen2.5-7b", {"adapter": "lora", "rows": 1, "length": 8192, "dtype": "float32", "targets": ["q_proj", "v_proj"]}),
    ("r1-distill-qwen-1.5b", {"rows": 4, "length": 1024, "fused_loss": False}),
]


def held_out() -> Iterator[dict[str, Any]]:
    """The steps of HELD_OUT, faked by the exact tier."""
    from tunesmith.plan.exact import Request, measure_exact

    for name, how in HELD_OUT:
        folder = memory_exact.CONFIGS / name
        facts = model_facts(Source(name, str(folder), folder), planning=True)
        step = Step(model=facts, **{"dtype": "bfloat16"} | how)
        try:
            peak = measure_exact(Request.of(step), folder).allocated
        except TunesmithError as error:
            yield {"model": name, "method": str(how), "source": "exact tier", "left_out": f"not faked: {error}"}
            continue
        yield _row(name, step, peak, "allocated", "exact tier")


def against_fms(path: Path) -> Iterator[dict[str, Any]]:
    """fms-acceleration's peaks on A100-80GB: 4,096 tokens a row, checkpointing, FlashAttention 2, an unfused loss."""
    for row in csv.DictReader(path.open(encoding="utf-8")):
        name = row["model_name_or_path"]
        facts = facts_of(name)
        why = _fms_reason(row, facts)
        if why or facts is None:
            yield {"model": name, "method": row["framework_config"], "source": FMS_SOURCE, "left_out": why}
            continue
        step = _fms_step(row, facts)
        peak = int(float(row["mem_peak_torch_mem_alloc_in_bytes"]))
        result = _row(name, step, peak, "allocated", FMS_SOURCE)
        device = float(row["mem_nvidia_mem_reserved"]) * 2**20
        memory = estimate(step)
        yield result | {"reserved_error": round((memory.reserved + memory.context) / device - 1, 4)}


def _fms_reason(row: dict[str, str], facts: ModelFacts | None) -> str:
    if "foak" in row["framework_config"]:
        return "its own Triton kernels for loss and LoRA, which TRL doesn't have"
    if not row["mem_peak_torch_mem_alloc_in_bytes"]:
        return "it ran out of memory"
    return "" if facts else "GPT-BigCode, an architecture that isn't in the table"


def _fms_step(row: dict[str, str], facts: ModelFacts) -> Step:
    framework, devices = row["framework_config"], int(row["num_gpus"])
    return Step(
        model=facts.model_copy(update={"quantised": "gptq"}) if "gptq" in framework else facts,
        adapter="qlora" if "bnb" in framework else "lora" if row["peft_method"] else "none",
        rank=int(row["r"] or 16),
        targets=row["target_modules"].split(),
        dtype="float16" if row["torch_dtype"] == "float16" else "bfloat16",
        mixed=bool(row["bf16"] or row["fp16"]),
        optimizer="adamw_torch",
        rows=int(row["per_device_train_batch_size"]),
        length=4096,
        checkpointing="full",
        attention="flash",
        fused_loss=False,
        devices=devices,
        sharding="fsdp" if devices > 1 else "none",
        upcast=framework == "baseline-peft-bnb" and devices == 1,
        code="4.4x",
    )


def against_published(path: Path) -> Iterator[dict[str, Any]]:
    """Other published peaks, of whole devices: with the allocator's reserve and CUDA's context, and a unit G or GB."""
    for row in csv.DictReader(path.open(encoding="utf-8")):
        facts = facts_of(row["model"])
        why = _published_reason(row)
        if why or facts is None:
            yield {"model": row["model"], "method": row["method"], "source": row["source"], "left_out": why}
            continue
        qwen, gptq = row["model"].startswith("Qwen"), "GPTQ" in row["quant"]
        step = Step(
            model=facts.model_copy(update={"quantised": "gptq"}) if gptq else facts,
            adapter="qlora" if row["quant"] == "bnb4" else "lora",
            rank=64 if qwen else 8,
            dtype="float16" if gptq else "bfloat16",
            optimizer="adamw_torch",
            rows=int(row["micro_batch"]),
            length=int(row["seq_len"]),
            checkpointing="full",
            attention="flash" if qwen or "FA2" in row["method"] else "sdpa",
            fused_loss=False,
            code="4.4x",
        )
        peak = round(float(row["peak_gb_per_gpu"]) * 10**9)
        yield _row(row["model"], step, peak, "device", row["source"])


def _published_reason(row: dict[str, str]) -> str:
    if "method_comparison" in row["source"]:
        return "rows of up to 768 tokens, padded to the longest of four: the tokens at the peak aren't stated"
    if "Unsloth" in row["method"]:
        return "Unsloth's kernels"
    if "emb+head" in row["method"]:
        return "trains embedding and head besides LoRA"
    return "DeepSpeed with buckets that aren't stated" if row["method"] == "Full" else ""


def _row(name: str, step: Step, measured: int, kind: str, source: str) -> dict[str, Any]:
    memory = estimate(step)
    ours = memory.allocated if kind == "allocated" else memory.reserved + memory.context
    said = step.model_dump(exclude={"model"}, exclude_defaults=True)
    return {
        "model": name,
        "step": said,
        "kind": kind,
        "measured": measured,
        "estimated": ours,
        "error": round(ours / measured - 1, 4),
        "phase": max(memory.phases, key=lambda phase: phase.bytes).name,
        "source": source,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors of the rows that apply."""
    errors = [row["error"] for row in rows if "error" in row]
    return {
        "rows": len(errors),
        "left_out": len(rows) - len(errors),
        "median": round(statistics.median(abs(error) for error in errors), 4),
        "worst": max(errors, key=abs),
        "least": min(errors),
    }


def main() -> None:
    """Compare, write the result, and print one line per row."""
    files = [Path(argument) for argument in sys.argv[1:] if argument != "held-out"]
    parts = {"exact tier": list(against_exact())}
    if "held-out" in sys.argv[1:]:
        parts["held out"] = list(held_out())
    for name, compare, file in zip(
        ("fms-acceleration", "published"), (against_fms, against_published), files, strict=False
    ):
        parts[name] = list(compare(file))
    target = RESULTS / "memory.json"
    old = json.loads(target.read_text(encoding="utf-8"))["parts"] if target.exists() else {}
    result = {
        "name": "memory",
        "setting": "The closed form's peak against each row's; errors relative to the row.",
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "parts": old | {name: {"summary": summary(rows), "rows": rows} for name, rows in parts.items()},
    }
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, rows in parts.items():
        for row in rows:
            told = f"{row['error']:+7.1%} of {row['measured'] / 1e9:6.2f} GB" if "error" in row else row["left_out"]
            print(f"{name}: {row['model']}: {told}")
        print(name, summary(rows))


if __name__ == "__main__":
    main()
