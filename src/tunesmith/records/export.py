"""What was exported, and its proof."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .base import Finding, Part, Record


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
