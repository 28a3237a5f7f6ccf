"""All records of one run."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from .base import Finding, Record
from .data import DataReport
from .evaluation import EvalReport
from .export import Manifest
from .plan import Plan
from .run import Event, RunRecord


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
