"""The recipe resolved."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import Finding, Part, Record
from .cost import CostEstimate, MachineOption, TimeEstimate
from .data import LossOn, TrainedLayout
from .memory import MemoryEstimate, Remedy
from .model import ModelFacts

Head = Literal["text", "images", "score"]
"""What a model gives: text, text about images as well, or one score for its whole input."""

Sharding = Literal["none", "ddp", "fsdp", "zero2", "zero3"]
"""What each process holds: all of it, or a share of gradients, optimizer and weights (FSDP2, DeepSpeed's ZeRO)."""


VARLEN = "tunesmith_varlen"
"""Name under which train/attention.py registers its attention with Transformers."""


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


class PeftArguments(Part):
    """The adapter, as PEFT is told of it."""

    config: str = Field(description="Name of peft's config class, such as LoraConfig")
    arguments: dict[str, Any] = {}
    start: str = Field(default="", description="Folder of the adapter that is trained on; empty: a new one")

    @property
    def virtual(self) -> bool:
        """Whether it is virtual tokens, which change no weight and can't be merged."""
        return "num_virtual_tokens" in self.arguments

    def described(self, *, quantised: bool) -> str:
        """What the adapter is, in words."""
        tokens = self.arguments.get("num_virtual_tokens")
        if self.config == "IA3Config":
            return "IA3 scales"
        if tokens:
            return f"{tokens} virtual tokens ({'prompt' if self.config == 'PromptTuningConfig' else 'prefix'} tuning)"
        kind = ("Q" if quantised else "") + ("DoRA" if self.arguments.get("use_dora") else "LoRA")
        return f"{kind} of rank {self.arguments['r']}"


class Processes(Part):
    """The processes that train together, one per device, and how they share the work."""

    count: int = Field(default=1, description="On each node")
    nodes: int = 1
    sharding: Sharding = "none"

    @property
    def total(self) -> int:
        """Processes over all nodes."""
        return self.count * self.nodes


class Speed(Part):
    """What the trainer's model is set to before it trains, for speed; the loss stays the same."""

    attention: str = Field(default="", description="Of Transformers' AttentionInterface; empty: as the model loads")
    compile: Literal["auto", "on", "off"] = Field(
        default="off", description="Compile the model's blocks; auto: once the first steps show that it pays"
    )
    kernels: bool = Field(default=False, description="Liger's kernels, where they give the same loss")


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
    images: bool = Field(default=False, description="Rows have images, which the model is shown")
    train: Split
    eval: Split | None
    test: Split | None = Field(description="Rows for the final comparison; the eval rows when the recipe names no test")
    choices: list[Choice]
    training: dict[str, Any] = Field(description="Complete arguments for TRL's config class")
    model_kwargs: dict[str, Any] = Field(description="Arguments for from_pretrained")
    peft: PeftArguments | None = Field(description="The adapter; None where all weights are trained")
    quantization: dict[str, Any] | None = Field(
        default=None, description="Arguments for transformers.BitsAndBytesConfig, where the base is loaded in 4 bits"
    )
    speed: Speed = Speed()
    processes: Processes = Processes()
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

    @property
    def head(self) -> Head:
        """What the trained model gives."""
        return "score" if self.method == "reward" else "images" if self.images else "text"

    @property
    def trained(self) -> str:
        """What is trained, in words."""
        if self.peft is None:
            return "all weights"
        return f"{'earlier ' if self.peft.start else ''}{self.peft.described(quantised=bool(self.quantization))}"
