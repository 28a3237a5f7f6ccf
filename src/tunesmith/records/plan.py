"""The recipe resolved."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import Finding, Part, Record
from .data import LossOn, TrainedLayout


class LinearShape(Part):
    """Linear layers of one name and shape, over all blocks (embedding and output head left out)."""

    name: str = Field(description="Last part of the layer's name, as LoRA targets name it")
    out_features: int
    in_features: int
    count: int


class ModelFacts(Part):
    """What is known of a model from its small files, without its weights."""

    name: str = Field(description="As the recipe names it")
    location: str = Field(description="Local folder or Hub id from which weights are loaded")
    revision: str | None = Field(default=None, description="Commit of the Hub repository")
    architecture: str
    model_type: str
    parameters: int
    linears: list[LinearShape]
    experts: bool = Field(default=False, description="Mixture of experts: libraries fuse expert layers as they load")
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    context: int = Field(description="Longest sequence the model was built for, in tokens")
    dtype: str = Field(description="Dtype of the stored weights")
    tied: bool
    has_template: bool
    stop_ids: list[int] = Field(default=[], description="Tokens at which generation stops, by generation_config.json")
    bytes: int = Field(description="Size of the weight files")


class Hardware(Part):
    """The machine on which training will run."""

    device: Literal["cpu", "cuda", "mps"]
    name: str
    count: int
    memory: int = Field(description="Bytes of device memory of one device (on cpu and mps: of main memory)")
    cores: int
    bf16: bool


class Choice(Part):
    """One value of the plan, and why it is so."""

    name: str
    value: Any
    reason: str
    source: Literal["recipe", "plan"]


class MemoryEstimate(Part):
    """Memory a step needs at least, in bytes: the state that is always there; activations come on top."""

    weights: int
    gradients: int
    optimizer: int
    state: int = Field(description="Sum of the three")


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
    findings: list[Finding] = []
    versions: dict[str, str]
