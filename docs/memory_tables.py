"""Writes the tables of memory.md from the closed form and benchmarks/memory.py; a test holds them up to date.

python docs/memory_tables.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.models.facts import model_facts
from tunesmith.models.families import find_known, write_config
from tunesmith.models.source import Source
from tunesmith.plan.fit import need
from tunesmith.plan.memory import Step, estimate
from tunesmith.records import ModelFacts

PAGE = Path(__file__).parent / "memory.md"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "memory.json"
_MADE = re.compile(r"(<!-- made: (\w+) -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
LENGTHS = (2048, 8192, 16384)
# Size as the guide says it, model, and the guide's need for full fine-tuning, LoRA and QLoRA.
SIZES = (
    ("7-8B", "meta-llama/Llama-3.1-8B", ("60 GB+", "16 GB", "8 GB")),
    ("13B", "allenai/OLMo-2-1124-13B-Instruct", ("100 GB+", "24 GB", "12 GB")),
    ("34B", "Qwen/Qwen2.5-32B", ("200 GB+", "48 GB", "24 GB")),
    ("70B", "meta-llama/Llama-3.1-70B", ("400 GB+", "80 GB", "48 GB")),
)
WAYS: dict[str, dict[str, Any]] = {
    "full, weights in fp32 (TRL's default)": {"dtype": "float32"},
    "full, weights in bf16": {"dtype": "bfloat16"},
    "full, bf16, 8-bit AdamW": {"dtype": "bfloat16", "optimizer": "adamw_bnb_8bit"},
    "LoRA, base in fp32 (TRL's default)": {"adapter": "lora", "dtype": "float32"},
    "LoRA, base in bf16": {"adapter": "lora", "dtype": "bfloat16"},
    "QLoRA": {"adapter": "qlora", "dtype": "bfloat16"},
}
VOCABULARIES = (
    ("Gemma 3 12B", "google/gemma-3-12b-it", ("2.1 GB", "8.6 GB", "17.2 GB")),
    ("Qwen3 8B", "Qwen/Qwen3-8B", ("1.2 GB", "5.0 GB", "10.0 GB")),
    ("Llama 3.1 8B", "meta-llama/Llama-3.1-8B", ("1.0 GB", "4.2 GB", "8.4 GB")),
)


def facts(name: str) -> ModelFacts:
    """The facts of a model in the shipped table."""
    known = find_known(name)
    if known is None:
        raise LookupError(name)
    return model_facts(Source(name, name, write_config(known), as_of=known.as_of), planning=True)


def device_need(name: str, length: int, **how: Any) -> float:
    """GB of a GPU for a step of one row with checkpointing."""
    step = Step(model=facts(name), rows=1, length=length, checkpointing="full", **how)
    return need(estimate(step)) / 1e9


def sizes() -> str:
    """Need by size, way and length, beside a common guide's."""
    lines = [_head("size (model)", "way", *map(_kilo, LENGTHS), "a common guide")]
    for size, name, said in SIZES:
        for way, how in WAYS.items():
            guide = said[0 if way.startswith("full") else 1 if way.startswith("LoRA") else 2]
            needs = [f"{device_need(name, length, **how):,.0f} GB" for length in LENGTHS]
            lines.append(f"| {size} ({name.rpartition('/')[2]}) | {way} | {' | '.join(needs)} | {guide} |")
    return "\n".join(lines)


def vocabularies() -> str:
    """What head and loss need by vocabulary and length, fused and not, beside a common guide's."""
    lines = [_head("model", "vocabulary", "what", *map(_kilo, LENGTHS))]
    for title, name, said in VOCABULARIES:
        model = facts(name)
        start = f"| {title} | {model.vocabulary:,} |"
        lines.append(f"{start} a common guide: logits in fp32 | {' | '.join(said)} |")
        for what, fused in (
            ("loss as TRL 1.16 computes it", True),
            ("loss from full logits (evaluation, old code)", False),
        ):
            told = [_loss(model, length, fused=fused) for length in LENGTHS]
            lines.append(f"{start} {what} | {' | '.join(told)} |")
        for what, how in (("whole step, LoRA in bf16", "LoRA, base in bf16"), ("whole step, QLoRA", "QLoRA")):
            told = [f"{device_need(name, length, **WAYS[how]):,.1f} GB" for length in LENGTHS]
            lines.append(f"{start} {what} | {' | '.join(told)} |")
    return "\n".join(lines)


def _loss(model: ModelFacts, length: int, *, fused: bool) -> str:
    step = Step(model=model, adapter="lora", dtype="bfloat16", length=length, checkpointing="full", fused_loss=fused)
    most = max(phase.parts.get("loss", 0) for phase in estimate(step).phases)
    return f"{most / 1e9:,.1f} GB"


def experts() -> str:
    """What a mixture of experts needs: nothing shrinks the experts but a dtype."""
    name = "Qwen/Qwen3-30B-A3B"
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    ways: dict[str, dict[str, Any]] = {
        "LoRA on attention": WAYS["LoRA, base in bf16"] | {"targets": attention},
        "LoRA on all-linear, which PEFT reads as the experts too": WAYS["LoRA, base in bf16"],
        "QLoRA on attention": WAYS["QLoRA"] | {"targets": attention},
    }
    lines = [_head("way", *map(_kilo, LENGTHS))]
    for way, how in ways.items():
        needs = [f"{device_need(name, length, **how):,.0f} GB" for length in LENGTHS]
        lines.append(f"| {way} | {' | '.join(needs)} |")
    return "\n".join(lines)


def accuracy() -> str:
    """Errors by source of the measured peaks."""
    parts = json.loads(RESULTS.read_text(encoding="utf-8"))["parts"]
    lines = [_head("against", "rows", "left out", "median", "worst", "least")]
    for name, part in parts.items():
        said = part["summary"]
        lines.append(
            f"| {name} | {said['rows']} | {said['left_out']} | {said['median']:.1%} | {said['worst']:+.1%} "
            f"| {said['least']:+.1%} |"
        )
    return "\n".join(lines)


def rows() -> str:
    """Each published row that applies."""
    parts = json.loads(RESULTS.read_text(encoding="utf-8"))["parts"]
    lines = [_head("model", "step", "measured", "estimate", "error", "largest phase")]
    for name, part in parts.items():
        for row in part["rows"] if name != "exact tier" else []:
            if "error" in row:
                lines.append(
                    f"| {row['model'].rpartition('/')[2]} | {_said(row['step'])} | {row['measured'] / 1e9:.2f} GB "
                    f"{row['kind']} | {row['estimated'] / 1e9:.2f} GB | {row['error']:+.1%} | {row['phase']} |"
                )
    return "\n".join(lines)


def left_out() -> str:
    """Why published rows don't apply, and how many."""
    parts = json.loads(RESULTS.read_text(encoding="utf-8"))["parts"]
    counts: dict[tuple[str, str], int] = {}
    for name, part in parts.items():
        for row in part["rows"]:
            if "left_out" in row:
                key = (name, row["left_out"])
                counts[key] = counts.get(key, 0) + 1
    return "\n".join(
        f"- {name}, {count} row{'s' if count > 1 else ''}: {why.rstrip('.')}." for (name, why), count in counts.items()
    )


def _said(step: dict[str, Any]) -> str:
    adapter = {"none": "full", "lora": "LoRA", "qlora": "QLoRA"}[step.get("adapter", "none")]
    parts = [adapter, f"{step.get('rows', 1)} x {step.get('length', 1024):,}"]
    if step.get("devices", 1) > 1:
        parts.append(f"{step['devices']} GPUs, FSDP")
    if step.get("dtype") == "float16":
        parts.append("GPTQ base")
    if step.get("upcast"):
        parts.append("k-bit preparation")
    return ", ".join(parts)


def _head(*names: str) -> str:
    return f"| {' | '.join(names)} |\n|{' --- |' * len(names)}"


def _kilo(length: int) -> str:
    return f"{length // 1024}k"


TABLES: dict[str, Callable[[], str]] = {
    "sizes": sizes,
    "vocabularies": vocabularies,
    "experts": experts,
    "accuracy": accuracy,
    "rows": rows,
    "left_out": left_out,
}


def fill(page: str) -> str:
    """The page with its tables made anew."""
    return _MADE.sub(lambda match: match[1] + TABLES[match[2]]() + "\n" + match[3], page)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
