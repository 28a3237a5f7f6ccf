"""What is looked at while a run trains."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from .section import Section


def _callback(name: str) -> str:
    if re.fullmatch(r".+\.py:[^\W\d]\w*", name) is None:
        raise PydanticCustomError("callback", "A callback is named by its file and its class, FILE.py:NAME")
    return name


def _as_list(value: Any) -> Any:
    """One callback as a list of one."""
    return [value] if isinstance(value, str) else value


class Watch(Section):
    """What is looked at while a run trains, and what follows from it."""

    early_stopping: int | None = Field(
        default=None, ge=1, description="Stop after so many evaluations without a better one; the best one is kept"
    )
    best: bool = Field(
        default=False, description="The result is the checkpoint with the best evaluation, not the last step"
    )
    metric: str | None = Field(
        default=None,
        min_length=1,
        description="Metric that says which evaluation is best; default: loss, and reward for grpo and rloo",
        examples=["rewards/accuracies"],
    )
    least_gain: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="What an evaluation must be better by to count as better"
    )
    samples: int = Field(default=2, ge=0, le=32, description="Held-out prompts that are answered at each evaluation")
    sample_tokens: int = Field(default=64, ge=1, le=4096, description="Most tokens of such an answer")
    system: float = Field(
        default=10.0, ge=0, allow_inf_nan=False, description="Seconds between two looks at memory and load; 0: none"
    )
    callbacks: Annotated[
        list[Annotated[str, AfterValidator(_callback)]],
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    ] = Field(default=[], description="TrainerCallbacks of your own, FILE.py:NAME, which run where the run trains")

    @property
    def chooses(self) -> bool:
        """Whether evaluations choose the checkpoint that is the result."""
        return self.best or self.early_stopping is not None
