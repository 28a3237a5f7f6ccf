"""Usual learning rates and epochs, from dated tables."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["none", "lora", "qlora", "prompt", "prefix", "ia3"]
_TABLES = Path(__file__).parent / "tables"


@functools.cache
def _table(name: str) -> Any:
    return yaml.safe_load((_TABLES / f"{name}.yaml").read_text(encoding="utf-8"))


def usual_learning_rates() -> list[dict[str, float]]:
    """The table of usual learning rates for sft, by model size."""
    rates: list[dict[str, float]] = _table("learning_rates")
    return rates


def usual_learning_rate(parameters: int, kind: Kind, method: str = "sft") -> float:
    """The usual peak learning rate for AdamW.

    Args:
        parameters: Of the whole model.
        kind: What is trained.
        method: As TRL names it; those without rates of their own (clm) have sft's.
    """
    if kind in _table("soft_rates"):
        return next(float(row["rate"]) for row in _table("soft_rates")[kind] if parameters <= row["up_to"])
    rows = _table("method_rates").get(method, usual_learning_rates())
    row = next(row for row in rows if parameters <= row["up_to"])
    return float(row["full" if kind == "none" else "lora"])


def usual_epochs(tokens: int) -> int:
    """Usual passes over rows of so many tokens, for sft."""
    return int(next(row["epochs"] for row in _table("epochs") if tokens <= row["up_to"]))
