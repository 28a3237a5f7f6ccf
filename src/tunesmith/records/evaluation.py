"""Tuned against base."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .base import Finding, Part, Record


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
