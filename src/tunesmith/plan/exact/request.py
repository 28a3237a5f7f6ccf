"""What the exact tier is asked: the part of a training step that decides its memory on one device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...errors import UsageError
from ..memory import Step


@dataclasses.dataclass(frozen=True)
class Request:
    """One training step on one device; the fields are those of a plan's Step, which says what they mean."""

    method: str = "sft"
    adapter: str = "none"
    rank: int = 16
    dropout: float = 0.0  # of the adapter
    targets: str | tuple[str, ...] = "all-linear"
    dtype: str = "bfloat16"
    mixed: bool = True
    optimizer: str = "adamw_torch_fused"
    rows: int = 1
    length: int = 1024
    padded: bool = False
    accumulate: bool = False
    checkpointing: str = "off"
    attention: str = "sdpa"
    fused_loss: bool = True
    reference: str = "none"
    double_quant: bool = True
    upcast: bool = False
    code: str = "today"

    @classmethod
    def of(cls, step: Step) -> Request:
        """The request that a plan's step makes.

        Raises:
            UsageError: the step is of a kind that isn't faked.
        """
        for name, faked, reason in _FAKED:
            value = getattr(step, name)
            if value not in faked:
                raise UsageError(
                    f"--exact can't measure {name} {value}.",
                    why=reason,
                    fix="Leave out --exact: the closed form covers it, with its error stated.",
                )
        given = {
            field.name: getattr(step, field.name) for field in dataclasses.fields(cls) if hasattr(step, field.name)
        }
        return cls.read(given)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Request:
        """A request from JSON's kinds: target names come as a list."""
        targets = given.get("targets", "all-linear")
        return cls(**{**given, "targets": targets if isinstance(targets, str) else tuple(targets)})


_FAKED: tuple[tuple[str, tuple[object, ...], str], ...] = (
    ("method", ("sft", "clm", "dpo"), "It runs the steps of TRL's SFTTrainer and DPOTrainer."),
    ("adapter", ("none", "lora", "qlora"), "It fakes LoRA and full training."),
    ("dora", (False,), "It fakes LoRA without the columns' lengths."),
    ("checkpointing", ("off", "full", "selective"), "Offloading needs a GPU's streams."),
    ("devices", (1,), "It fakes one device, and what several exchange doesn't show there."),
    ("sharding", ("none",), "It fakes one device that holds the whole model."),
    ("offload", (False,), "It doesn't tell the host's memory from the device's."),
)


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "it doesn't say why"
