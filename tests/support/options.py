"""Options of a comparison."""

from __future__ import annotations

from typing import Any

from tunesmith.records.cost import MachineOption, Range


def option(**changes: Any) -> MachineOption:
    """An option that fits and has a price, but for the changes."""
    whole = {
        "machine": "m", "provider": "p", "device": "d", "devices": 1, "memory": 1, "adapter": "lora", "fits": True,
        "peak": 1, "rows": 1, "checkpointing": "off", "hours": span(2), "dollars": span(5),
    }  # fmt: skip
    return MachineOption.model_validate(whole | changes)


def span(likely: float) -> Range:
    """From half of the likely value to twice."""
    return Range(low=likely / 2, likely=likely, high=likely * 2)
