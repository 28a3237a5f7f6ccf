"""Steps, rows and machines for tests of time, cost and comparison."""

from __future__ import annotations

from typing import Any

from tunesmith.plan.documents import Documents
from tunesmith.plan.efficiency import anchors
from tunesmith.plan.memory.step import Step
from tunesmith.records import ModelFacts

ROWS = Documents.of([300] * 500 + [700] * 300 + [1500] * 100 + [2048] * 10)


def llama(**changes: Any) -> ModelFacts:
    """The sizes of Llama 3.1 8B."""
    known = next(anchor.step.model for anchor in anchors() if anchor.step.model.name == "Llama-3.1-8B")
    return known.model_copy(update=changes)


def make_step(**changes: Any) -> Step:
    """LoRA on an 8B model, a row of 1,024 tokens."""
    return Step.model_validate(
        {"model": llama(), "adapter": "lora", "dtype": "bfloat16", "rows": 1, "length": 1024} | changes
    )
