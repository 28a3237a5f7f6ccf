"""The records that stages exchange and a run folder keeps: frozen pydantic models, saved as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import UsageError
from .files import write_atomic

RUN_LOCK = "lock"
"""File of a run folder that the worker locks while it lives."""
LOCKED = 75
"""Exit code of a worker that finds another one at work (EX_TEMPFAIL of sysexits.h)."""

Severity = Literal["error", "warning", "note"]
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
Layout = Literal["messages", "prompt-completion", "text", "alpaca", "unknown"]


class Record(BaseModel):
    """Base of all records: immutable, complete, refuses unknown fields."""

    # JSON has no infinity and no NaN, and pydantic's null for them can't be read back as a number.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    filename: ClassVar[str]

    def save(self, folder: Path) -> Path:
        """Write the record atomically as `folder/<filename>`."""
        return write_atomic(folder / self.filename, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the record back.

        Raises:
            UsageError: the file is absent or not such a record.
        """
        path = folder / cls.filename
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(
                f"{path} isn't there.",
                why=f"A {cls.__name__} is written by an earlier stage, and that stage has not run here.",
                fix="Check the folder's name, or run the earlier stage first (`tunesmith runs list` shows runs).",
            ) from None
        except (ValidationError, UnicodeDecodeError, OSError) as error:
            raise UsageError(
                f"{path} can't be read as a {cls.__name__}.",
                why=str(error).splitlines()[0],
                fix="It was changed by hand or written by another version: run its stage again.",
            ) from None


class Finding(BaseModel):
    """One thing a rule found: the rule's code, how bad it is, where, what, and the fix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(pattern=r"^[DTPHREX]\d{3}$")
    severity: Severity
    where: str
    what: str
    fix: str


class Part(BaseModel):
    """A piece of a record, with the same rules as records but without a file of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Column(Part):
    """A column of the raw data, over all rows."""

    name: str
    type: str = Field(description="Type in plain words: text, number, boolean, list, object, mixed")
    nulls: int = Field(description="Rows in which the value is null or absent")
    example: str = Field(description="First non-null value, shortened")


class Verdict(Part):
    """Whether a method can train on this data."""

    method: str
    status: Literal["READY", "NEEDS MAPPING", "INCOMPATIBLE"]
    reason: str
    mapping: dict[str, str] | None = Field(
        default=None, description="Recipe fragment `data.mapping`: role -> column, when the status is NEEDS MAPPING"
    )


class Lengths(Part):
    """Distribution of lengths over rows, in tokens."""

    rows: int
    min: int
    mean: float
    median: int
    p90: int
    p95: int
    p99: int
    max: int
    total: int


class TokenLengths(Part):
    """Token lengths under the model's own template: of whole rows, and of prompt and completion where split."""

    total: Lengths
    prompt: Lengths | None = None
    completion: Lengths | None = None


class Span(Part):
    """A stretch of neighbouring tokens that are all trained, or all masked."""

    text: str
    tokens: int
    trained: bool


class PreviewRow(Part):
    """One row as the trainer sees it."""

    row: int = Field(description="Row number in the dataset, counted from 1")
    spans: list[Span]


class LabelAudit(Part):
    """What is really trained on, after the trainer's own preparation of the rows."""

    prepared_by: str = Field(description="The library code that prepared the rows, with its version")
    layout: Literal["messages", "prompt-completion", "text"]
    loss_on: Literal["completion", "assistant", "all"]
    max_length: int | None
    rows: int = Field(description="Rows given to the trainer")
    rows_kept: int = Field(description="Rows the trainer kept")
    rows_untrained: int = Field(default=0, description="Kept rows in which no token is trained (packing keeps such)")
    tokens: int
    trained_tokens: int
    trained_percent: float
    stop_tokens: list[str] = Field(description="Tokens that end a turn for this model")
    rows_without_stop: int = Field(description="Kept rows in which no stop token is trained")
    rows_stop_only: int = Field(default=0, description="Kept rows in which nothing but a stop token is trained")
    rows_cut: int = Field(description="Rows longer than max_length, cut by the trainer")
    longest: int | None = Field(default=None, description="Tokens of the longest row before cutting")
    bos_per_row: dict[int, int] = Field(description="Number of BOS tokens at the start of a row -> rows")
    preview: list[PreviewRow]


class DataReport(Record):
    """What the data is and whether it can be trained on."""

    filename: ClassVar[str] = "data.json"

    source: str
    sha256: str = Field(description="Fingerprint of the file's bytes")
    bytes: int
    rows: int = Field(description="Usable rows")
    rows_invalid: int = Field(default=0, description="Rows with errors; dropped only when the recipe says so")
    duplicates: int = Field(default=0, description="Rows that repeat an earlier row exactly")
    columns: list[Column]
    layout: Layout
    verdicts: list[Verdict]
    model: str | None = None
    lengths: TokenLengths | None = None
    audit: LabelAudit | None = None
    findings: list[Finding] = []


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
    layout: Literal["messages", "prompt-completion", "text"]
    loss_on: Literal["completion", "assistant", "all"]
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


class RunRecord(Record):
    """What a run did: its state, and what was measured."""

    filename: ClassVar[str] = "run.json"

    id: str
    status: Literal["prepared", "running", "stopped", "failed", "done"]
    pid: int | None = None
    created: str = Field(description="ISO 8601 time, UTC")
    started: str | None = None
    finished: str | None = None
    resumed_from: list[int] = Field(default=[], description="Steps from which the run was resumed")
    step: int = 0
    steps: int = 0
    loss: float | None = Field(default=None, description="Last logged training loss, nats per trained token")
    eval_loss: float | None = None
    seconds: float = Field(default=0.0, description="Time inside the training loop, over all resumes")
    tokens: int = 0
    peak_memory: int | None = Field(default=None, description="Bytes: device peak allocated, or process RSS on cpu")
    parameters_trained: int | None = None
    audit: LabelAudit | None = Field(default=None, description="Label audit of the rows that were really trained on")
    result: str | None = Field(default=None, description="Folder of the trained model or adapter, in the run folder")
    findings: list[Finding] = []
    versions: dict[str, str] = {}
    error: str | None = None


class Interval(Part):
    """A confidence interval."""

    low: float
    high: float
    level: float = 0.95
    method: str


class Comparison(Part):
    """One metric of tuned against base on the same rows."""

    metric: str
    better: Literal["higher", "lower"]
    rows: int
    base: float
    tuned: float
    difference: float = Field(description="tuned - base")
    interval: Interval | None
    p_value: float | None
    test: str | None
    significant: bool = Field(description="p < 0.05")


class ChangedRow(Part):
    """A row on which base and tuned differ in being right."""

    row: int
    prompt: str
    expected: str
    base: str
    tuned: str
    change: Literal["fixed", "broken"]


class EvalReport(Record):
    """Tuned against base on held-out rows."""

    filename: ClassVar[str] = "eval.json"

    rows: int
    split: str
    comparisons: list[Comparison]
    primary: str | None = Field(default=None, description="Metric of the comparison that the verdict rests on")
    fixed: int = 0
    broken: int = 0
    changed: list[ChangedRow] = Field(default=[], description="Up to 20 of the fixed and 20 of the broken rows")
    stop_rate_base: float | None = None
    stop_rate_tuned: float | None = None
    max_new_tokens: int | None = None
    seconds: float
    findings: list[Finding] = []


class Check(Part):
    """One verification of an exported file."""

    name: str
    target: str = Field(description="File that was checked, relative to the export folder")
    passed: bool
    value: float | None
    threshold: float | None
    what: str
    code: str | None = Field(default=None, description="Rule that a failure breaks")


class Artifact(Part):
    """An exported file or folder."""

    path: str
    kind: Literal["merged", "gguf"]
    dtype: str
    bytes: int
    sha256: str | None = None
    verified: bool


class Manifest(Record):
    """What was exported, and the proof that it is the same model."""

    filename: ClassVar[str] = "manifest.json"

    artifacts: list[Artifact]
    checks: list[Check]
    verifier: str | None = Field(description="The engine that checked, with its version; None when it is absent")
    passed: bool
    seconds: float
    findings: list[Finding] = []


class Event(Part):
    """One line of events.jsonl."""

    time: float = Field(description="Seconds since the epoch")
    kind: Literal["start", "audit", "log", "eval", "save", "finding", "stop", "end", "fail"]
    step: int = 0
    data: dict[str, Any] = {}

    @field_validator("data", mode="before")
    @classmethod
    def _numbers(cls, data: dict[str, Any]) -> dict[str, Any]:
        # A loss of NaN is written as text, and must come back as the number that it is.
        return {name: float(value) if value in _NOT_FINITE else value for name, value in data.items()}


class Receipt(Record):
    """The records of one run, put together."""

    filename: ClassVar[str] = "receipt.json"

    run: RunRecord
    recipe: dict[str, Any]
    data: DataReport
    plan: Plan
    curve: list[Event] = Field(description="Logged steps and evaluations")
    evaluation: EvalReport | None
    export: Manifest | None
    findings: list[Finding] = Field(description="Findings of all stages")
    versions: dict[str, str]
    created: str
