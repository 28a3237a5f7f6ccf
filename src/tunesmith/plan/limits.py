"""What a run takes, against what it may take: time, money, disk and main memory."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ..recipe import Recipe
from ..recipe.schema import Export
from ..records import Finding, Plan, Severity
from ..records.cost import CostEstimate, TimeEstimate
from ..rules import finding

BUFFER = 1.3
"""What a timeout has beyond the longest estimate: unused time costs nothing, a job that is killed costs everything."""
JOBS_TIMEOUT = 1800
"""Seconds after which a Hugging Face job ends where no timeout is set; its documentation, November 2026."""
_WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
_GGUF = {"f16": 2.0, "q8_0": 34 / 32}
"""Bytes per weight; q8_0 keeps 32 weights as bytes with one 16-bit scale (ggml)."""
_PROCESS = 1_000_000_000
"""Bytes of main memory beside the weights: 0.5 GB measured with a model of 0.43 B parameters (November 2026), and as
much for the logits that are compared."""


def advised_timeout(seconds: float) -> str:
    """The longest estimate and 30%, as a recipe writes it, rounded up to 5 minutes, or beyond 5 hours to half an hour.

    Args:
        seconds: The longest estimate.
    """
    minutes = seconds * BUFFER / 60
    return f"{math.ceil(minutes / 5) * 5}m" if minutes <= 300 else f"{math.ceil(minutes / 30) / 2:g}h"


def check_time(recipe: Recipe, time: TimeEstimate) -> Iterator[Finding]:
    """H014: an error where a job is likely killed at its timeout; a warning where it may be, or the run goes on."""
    given = recipe.launch.timeout
    limit = given or (JOBS_TIMEOUT if recipe.launch.on == "hf-jobs" else None)
    if limit is None or time.total.high <= limit:
        return
    said = f"its timeout is {_span(limit)}" if given else f"without a timeout a job ends after {_span(limit)}"
    yield finding(
        "H014",
        "launch.timeout",
        severity="error" if time.total.likely > limit and recipe.launch.on != "local" else "warning",
        likely=_span(time.total.likely),
        high=_span(time.total.high),
        limit=said,
        advice=advised_timeout(time.total.high),
    )


def check_cost(recipe: Recipe, cost: CostEstimate) -> Iterator[Finding]:
    """P013 where the budget may not suffice, H016 where the timeout lets the job cost more than it."""
    budget, total = recipe.launch.budget, cost.total
    if budget is None:
        return
    if total.high > budget:
        yield finding(
            "P013",
            "launch.budget",
            severity="error" if total.likely > budget else "warning",
            likely=total.likely,
            high=total.high,
            budget=budget,
        )
    timeout = recipe.launch.timeout
    if timeout and total.likely <= budget < timeout / 3600 * cost.per_hour:
        most, worst = int(budget / cost.per_hour * 60), timeout / 3600 * cost.per_hour
        yield finding("H016", "launch.timeout", timeout=_span(timeout), cost=worst, budget=budget, most=f"{most}m")


def disk_needs(plan: Plan) -> dict[str, int]:
    """Bytes of what a run writes into its folder, by what it is.

    A checkpoint holds what is trained, in its dtype, and the optimizer's state. One more than `save_total_limit` is
    there for a moment, since the new one is written before the oldest goes (Trainer, Transformers 5.23).
    """
    width = 4 if plan.peft else _WIDTH[plan.model_kwargs["dtype"]]
    result = plan.parameters_trained * width
    limit = plan.training.get("save_total_limit")
    steps = plan.training.get("save_steps") or plan.steps
    saves = max(1, math.floor(plan.steps / steps)) if steps >= 1 else math.ceil(1 / steps)
    if plan.training.get("save_strategy") == "epoch":
        saves = math.ceil(plan.epochs)
    kept = 0 if plan.training.get("save_strategy") == "no" else min(saves, limit + 1 if limit else saves)
    virtual = plan.peft is not None and plan.peft.virtual
    gguf = Export.model_validate(plan.recipe.get("export", {})).types(plan.method, virtual=virtual)
    stored = _WIDTH.get(plan.model.dtype, 4)
    return {
        "checkpoints": kept * (result + plan.memory.optimizer),
        "result": result,
        "merged model": plan.parameters * stored if plan.peft and not virtual else 0,
        "GGUF": round(sum(plan.parameters * _GGUF[kind] for kind in gguf)),
    }


def check_disk(plan: Plan, free: int, where: str) -> Iterator[Finding]:
    """P014 where what the run writes doesn't fit.

    Args:
        plan: The plan.
        free: Bytes that are free.
        where: The folder, or the machine's name.
    """
    needs = disk_needs(plan)
    if sum(needs.values()) > free:
        parts = ", ".join(f"{what} {_size(size)}" for what, size in needs.items() if size)
        yield finding("P014", "disk", need=_size(sum(needs.values())), parts=parts, free=_size(free), place=where)


def free_disk(folder: Path) -> int:
    """Bytes that are free where `folder` is or will be made; no limit where there is no disk."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    usage = shutil.disk_usage(there)
    return usage.free if usage.total else sys.maxsize  # such as /proc, which is no disk


def merge_memory(plan: Plan) -> int:
    """Bytes of main memory that the export needs at its peak.

    The tuned model is loaded and merged in float32 (export/merge.py): 4 bytes for each parameter of base and adapter.
    Virtual tokens aren't merged.
    """
    if plan.peft and plan.peft.virtual:
        return 0
    adapter = plan.parameters_trained if plan.peft else 0
    return 4 * (plan.parameters + adapter) + _PROCESS


def check_merge(plan: Plan, ram: int, machine: str) -> Iterator[Finding]:
    """P015 where the main memory doesn't take the export: an error where the machine goes with the job, else a warning.

    Args:
        plan: The plan.
        ram: Bytes of main memory; 0 where unknown.
        machine: The machine's name.
    """
    need = merge_memory(plan)
    if 0 < ram < need:
        ephemeral = plan.recipe.get("launch", {}).get("on") == "hf-jobs"
        severity: Severity = "error" if ephemeral else "warning"
        yield finding("P015", "export", severity=severity, need=_size(need), ram=_size(ram), machine=machine)


def _size(amount: float) -> str:
    return f"{amount / 1e9:,.1f} GB" if amount >= 1e8 else f"{amount / 1e6:,.1f} MB"


def _span(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
