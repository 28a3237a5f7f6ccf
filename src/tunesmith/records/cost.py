"""What a run takes: time and money, always as intervals."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from .base import Part


class Range(Part):
    """An interval with its likely value."""

    low: float
    likely: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.likely <= self.high:
            raise ValueError(f"low {self.low} <= likely {self.likely} <= high {self.high} doesn't hold")
        return self

    def __add__(self, other: Range) -> Range:
        return Range(low=self.low + other.low, likely=self.likely + other.likely, high=self.high + other.high)

    def times(self, factor: float) -> Range:
        """All three times a factor that isn't negative."""
        return Range(low=self.low * factor, likely=self.likely * factor, high=self.high * factor)


class TimeEstimate(Part):
    """How long a run takes, by stage, in seconds."""

    start: Range = Field(description="Starting the machine, installing, downloading and loading the model")
    train: Range
    evaluate: Range = Field(description="Held-out loss on the way, and the comparison of tuned with base at the end")
    export: Range = Field(description="Merging, converting and writing")
    total: Range
    tokens_per_second: Range = Field(description="Tokens of the data, padding left out, over all devices")
    step_seconds: Range = Field(description="One optimizer step")
    efficiency: Range = Field(description="Share of the device's peak rate while it computes")
    basis: str = Field(description="What the estimate rests on")


class CostEstimate(Part):
    """What a run costs."""

    currency: str = "USD"
    per_hour: float
    total: Range
    price_date: str = Field(description="Day on which the price was read")
    price_source: str


class MachineOption(Part):
    """A machine and a way to train on it."""

    machine: str
    provider: str
    device: str = Field(description="Name of the accelerator")
    devices: int
    memory: int = Field(description="Bytes of one device")
    adapter: str = Field(description="none (full), lora or qlora")
    fits: bool = Field(description="Whether the step fits in the devices' memory")
    peak: int = Field(description="Bytes at the peak of the step with these rows, context included")
    rows: int = Field(description="Largest micro-batch that fits; 1 when none does")
    dtype: str = Field(default="bfloat16", description="Dtype of the weights as loaded")
    checkpointing: str
    sharding: str = Field(default="none", description="How devices share the work: none, ddp or fsdp")
    tokens_per_second: Range | None = None
    hours: Range | None = None
    dollars: Range | None = Field(default=None, description="None for machines without a price")
    note: str = ""
    lacks: str = Field(default="", description="What of the machine doesn't take the export: main memory or disk")
