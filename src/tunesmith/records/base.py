"""What all records share: immutable pydantic models, saved as JSON in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import UsageError
from ..files import write_atomic

Severity = Literal["error", "warning", "note"]
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
Scalar = bool | int | float | str
Wanted = Scalar | Annotated[list[Scalar], Field(min_length=1)]
"""What a filter keeps in a column: one value, or any of several."""


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
