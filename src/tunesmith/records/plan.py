"""The recipe resolved."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import Finding, Part, Record
from .cost import CostEstimate, MachineOption, TimeEstimate
from .data import LossOn, TrainedLayout
from .memory import MemoryEstimate, Remedy
from .model import ModelFacts


class Hardware(Part):
    """The machine on which training will run."""

    device: Literal["cpu", "cuda", "mps"]
    name: str
    count: int
    memory: int = Field(description="Bytes of device memory of one device (on cpu and mps: of main memory)")
    cores: int
    bf16: bool
    machine: str = Field(default="", description="Name and provider of a rented machine; empty: this one")


class Choice(Part):
    """One value of the plan, and why it is so."""

    name: str
    value: Any
    reason: str
    source: Literal["recipe", "plan"]


class Split(Part):
    """The rows of one split after preparation, as a file of the run folder."""

    path: str
    rows: int
    sha256: str
    tokens: int | None = Field(default=None, description="Tokens of all rows, cut at max_length")
    longest: int | None = Field(default=None, description="Tokens of the longest row")
    cut: int = Field(default=0, description="Rows longer than max_length")


class Plan(Record):
    """The recipe resolved: every value that will be used, with its reason."""

    filename: ClassVar[str] = "plan.json"

    recipe: dict[str, Any]
    method: str
    model: ModelFacts
    hardware: Hardware
    layout: TrainedLayout
    loss_on: LossOn
    train: Split
    eval: Split | None
    test: Split | None = Field(description="Rows for the final comparison; the eval rows when the recipe names no test")
    choices: list[Choice]
    training: dict[str, Any] = Field(description="Complete arguments for TRL's config class")
    model_kwargs: dict[str, Any] = Field(description="Arguments for from_pretrained")
    lora: dict[str, Any] | None = Field(description="Arguments for peft.LoraConfig")
    trackers: list[str] = Field(description="Trackers that tunesmith itself feeds: trackio")
    parameters: int
    parameters_trained: int
    steps: int
    epochs: float
    tokens_per_step: int
    memory: MemoryEstimate
    remedies: list[Remedy] = Field(default=[], description="Changes until the step fits, the cheapest in speed first")
    time: TimeEstimate | None = None
    cost: CostEstimate | None = Field(default=None, description="None where the machine has no price")
    advice: list[Choice] = Field(default=[], description="What the recipe trains and would better train otherwise")
    options: list[MachineOption] = Field(default=[], description="Other machines and ways to train, where asked for")
    recommended: str = Field(default="", description="Of the options, the one to take and why")
    findings: list[Finding] = []
    versions: dict[str, str]
