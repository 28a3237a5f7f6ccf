"""Usual learning rates, from a dated table."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import yaml

_TABLE = Path(__file__).parent / "tables" / "learning_rates.yaml"


@functools.cache
def usual_learning_rates() -> list[dict[str, float]]:
    """The table of usual learning rates, by model size."""
    rates: list[dict[str, float]] = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    return rates


def usual_learning_rate(parameters: int, kind: Literal["none", "lora"]) -> float:
    """The usual peak learning rate for AdamW."""
    row = next(row for row in usual_learning_rates() if parameters <= row["up_to"])
    return row["lora" if kind == "lora" else "full"]
