"""What a run did."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from .base import NOT_FINITE, Finding, Part, Record
from .cost import Range
from .data import LabelAudit

RUN_LOCK = "lock"
"""File of a run folder that the worker locks while it lives."""
LOCKED = 75
"""Exit code of a worker that finds another one at work (EX_TEMPFAIL of sysexits.h)."""


class FirstSteps(Part):
    """What the first steps took, beside what the plan foresaw."""

    step: int
    allocated: int = Field(description="Bytes of tensors at the peak; on a CPU, growth of the process's memory")
    reserved: int | None = Field(description="Bytes that torch's allocator held of the GPU")
    planned: int = Field(description="Bytes that the plan foresaw as allocated")
    difference: float | None = Field(
        description="allocated / planned - 1; None where libraries take as much as the model"
    )
    step_seconds: float
    remaining: Range = Field(description="Seconds of training that are left, at this pace")


class CheckpointOrigin(Record):
    """What a checkpoint was made by: a resume that differs in it isn't the same run."""

    filename: ClassVar[str] = "origin.json"

    settings: dict[str, Any] = Field(description="Settings of the plan that change what is trained, by their names")
    rows: dict[str, str] = Field(description="SHA-256 of each split")
    files: dict[str, str] = Field(description="Fingerprints of the base model's files and of code that the run calls")
    versions: dict[str, str] = Field(description="Packages that compute")
    machine: dict[str, str] = Field(description="Device, number of processes")


class BestCheckpoint(Part):
    """The evaluation that is the best so far, and the step after which it was made."""

    step: int
    metric: str
    value: float


class Rollback(Part):
    """A return of a run to an earlier checkpoint."""

    code: str = Field(description="Rule of the guard that it went back for")
    step: int = Field(description="Step at which it was seen")
    to: int = Field(description="Step from which the run went on; 0: from the beginning")
    factor: float = Field(description="What the learning rate was multiplied by")


class RunRecord(Record):
    """What a run did: its state, and what was measured."""

    filename: ClassVar[str] = "run.json"

    id: str
    status: Literal["prepared", "running", "stopped", "failed", "done"]
    pid: int | None = None
    host: str | None = Field(default=None, description="Machine that the worker is, or was last, at work on")
    created: str = Field(description="ISO 8601 time, UTC")
    started: str | None = None
    finished: str | None = None
    resumed_from: list[int] = Field(default=[], description="Steps from which the run was resumed")
    rollbacks: list[Rollback] = Field(default=[], description="Returns to an earlier checkpoint at a lower rate")
    step: int = 0
    steps: int = 0
    loss: float | None = Field(default=None, description="Last logged training loss, nats per trained token")
    eval_loss: float | None = None
    best: BestCheckpoint | None = Field(default=None, description="Where evaluations choose the result: the best one")
    seconds: float = Field(default=0.0, description="Time inside the training loop, over all resumes")
    tokens: int = 0
    peak_memory: int | None = Field(default=None, description="Bytes: device peak allocated, or process RSS on cpu")
    first_steps: FirstSteps | None = None
    parameters_trained: int | None = None
    audit: LabelAudit | None = Field(default=None, description="Label audit of the rows that were really trained on")
    result: str | None = Field(default=None, description="Folder of the trained model or adapter, in the run folder")
    findings: list[Finding] = []
    versions: dict[str, str] = {}
    error: str | None = None


class Event(Part):
    """One line of events.jsonl."""

    time: float = Field(description="Seconds since the epoch")
    kind: Literal[
        "start",
        "rows",
        "audit",
        "pace",
        "log",
        "eval",
        "save",
        "sample",
        "system",
        "finding",
        "rollback",
        "stop",
        "end",
        "fail",
    ]
    step: int = 0
    data: dict[str, Any] = {}

    @field_validator("data", mode="before")
    @classmethod
    def _numbers(cls, data: dict[str, Any]) -> dict[str, Any]:
        # A loss of NaN is written as text, and must come back as the number that it is.
        return {name: float(value) if value in NOT_FINITE else value for name, value in data.items()}
