"""What a training step needs of a device's memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Part


class Phase(Part):
    """A moment of the step, and what is allocated then."""

    name: str
    bytes: int
    parts: dict[str, int] = Field(
        default={}, description="What these are, by the parts of an estimate; empty if unknown"
    )


class MemoryEstimate(Part):
    """Memory of one device in bytes: its parts at the peak, which add up to `allocated`, and the phases of the step."""

    weights: int
    gradients: int
    optimizer: int
    state: int = Field(description="Sum of the three")
    activations: int = Field(
        default=0, description="What the forward pass keeps for the backward pass, and the block at work"
    )
    loss: int = Field(default=0, description="Output head and loss, the gradient of the head among them")
    reference: int = Field(default=0, description="Weights of the reference model")
    cache: int = Field(default=0, description="Keys and values of a generation")
    buffers: int = Field(
        default=0,
        description="Casts of weights, what several devices exchange, the update's temporaries; faked: all other",
    )
    phases: list[Phase] = Field(default=[], description="Bytes allocated at the most in each phase, in order")
    allocated: int = Field(default=0, description="Peak of what tensors hold: the largest phase; 0 where not estimated")
    reserved: int = Field(default=0, description="Peak of what the allocator takes from the device")
    context: int = Field(default=0, description="CUDA's context and libraries, outside the allocator")
    allocated_error: float = Field(default=0.0, description="Relative error of `allocated` seen in validation")
    reserved_error: float = Field(default=0.0, description="Relative error of `reserved` seen in validation")
    tier: Literal["closed form", "fake step", "measured"] = "closed form"


class Remedy(Part):
    """One change that makes a step smaller; remedies build on one another, in order."""

    change: str
    saves: int = Field(description="Bytes that the device needs less, after the changes before it")
    needs: int = Field(description="Bytes that the device needs then")
    fits: bool = Field(description="Whether the step fits then")
    costs: str = Field(description="What it costs in speed or quality")
    settings: dict[str, str | int | bool] = Field(description="What changes in the step, by its fields' names")
