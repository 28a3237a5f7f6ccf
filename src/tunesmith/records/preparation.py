"""What preparing a dataset did to its rows."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .base import Finding, Part, Record, Wanted
from .data import Layout, SourceFile

Dedup = Literal["exact", "near", "none"]


class PreparationSettings(Part):
    """What was asked for."""

    data: list[str | dict[str, Any]] = Field(min_length=1, description="Files, folders, globs, Hub ids, as in a recipe")
    method: str = "sft"
    mapping: dict[str, str] = Field(default={}, description="Role -> column")
    filter: dict[str, Wanted] = Field(default={}, description="Column -> the value that rows have, or several")
    bad_rows: Literal["error", "drop"] = "error"
    dedup: Dedup = "exact"
    near_threshold: float = Field(default=0.8, gt=0, le=1, description="Least Jaccard similarity of near duplicates")
    eval: float = Field(default=0.05, ge=0, lt=1, description="Expected fraction of the rows")
    test: float = Field(default=0.05, ge=0, lt=1, description="Expected fraction of the rows")
    group: str | None = Field(default=None, description="Column whose equal values stay on one side of the split")
    seed: int = Field(default=42, ge=0, lt=2**32)
    format: Literal["parquet", "jsonl"] = "parquet"

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> Self:
        if self.eval + self.test >= 1:
            raise ValueError("eval and test together leave no rows to train on")
        return self


class Cluster(Part):
    """Where tasks run that share the steps, under datatrove's executors."""

    where: Literal["local", "slurm", "ray"] = Field(
        default="local", description="On this machine, or on a cluster all of whose machines see the output folder"
    )
    tasks: int = Field(default=4, ge=1, description="Tasks that share each step; on this machine all at once")
    partition: str | None = Field(default=None, description="Slurm's partition")


class PreparationStep(Part):
    """Rows before and after a step; what went is counted by its reason."""

    name: Literal["read", "filter", "map", "exact", "near", "split", "write"]
    rows_in: int
    rows_out: int
    reasons: dict[str, int] = Field(default={}, description="Why rows went -> how many")

    @model_validator(mode="after")
    def _loses_nothing(self) -> Self:
        if self.rows_in != self.rows_out + sum(self.reasons.values()):
            raise ValueError(f"step {self.name}: {self.rows_in} rows in, {self.rows_out} out, {self.reasons} went")
        return self


class DatasetFile(Part):
    """A file of the dataset's folder."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Preparation(Record):
    """How a dataset was made: every step with its rows, the files, and the settings that make the same again."""

    filename: ClassVar[str] = "manifest.json"

    settings: PreparationSettings
    sources: list[SourceFile]
    layout: Layout = Field(description="Layout of the raw rows")
    columns: list[str] = Field(description="Columns of the files, in TRL's layout for the method")
    steps: list[PreparationStep]
    files: dict[str, DatasetFile] = Field(description="Split (train, eval, test) -> file")
    rejected: DatasetFile = Field(description="Every row that went, with step, reason and place")
    versions: dict[str, str]
    findings: list[Finding] = []

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if before.rows_out != after.rows_in:
                raise ValueError(f"{before.rows_out} rows leave {before.name}, {after.rows_in} enter {after.name}")
        written, went = self.steps[-1].rows_out, sum(sum(step.reasons.values()) for step in self.steps)
        if sum(file.rows for file in self.files.values()) != written or self.rejected.rows != went:
            raise ValueError(f"the files don't hold the {written} rows that were kept and the {went} that went")
        return self
