"""The recipe: what the user writes. Sparse, strict and frozen; no torch and no transformers on its import path."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ..records import Wanted
from .adapter import Adapter
from .evaluation import TASKS, Evaluation
from .guard import Guard
from .launch import Hub, Launch
from .rewards import Rewards
from .section import Section
from .speed import Speed
from .watch import Watch

Method = Literal["sft", "dpo", "grpo", "rloo", "kto", "reward", "clm"]


def _as_number(value: Any) -> Any:
    """A number that YAML gives as text (5e-2), as a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


class Mapping(Section):
    """Which column plays which role; only those that the data names otherwise."""

    messages: str | None = None
    prompt: str | None = None
    completion: str | None = None
    system: str | None = None
    text: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    label: str | None = None
    reference: str | None = Field(default=None, description="The right answer that a reward compares with")


class Source(Section):
    """Rows of one place."""

    path: str = Field(description="File, folder, glob, or the id of a dataset on the Hub")
    config: str | None = Field(default=None, description="Configuration of a dataset on the Hub")
    split: str | None = Field(default=None, description="Split of a dataset on the Hub; default: train")
    revision: str | None = Field(default=None, description="Branch, tag or commit of a dataset on the Hub")
    weight: float | None = Field(default=None, gt=0, description="Share of this source in the mixture")
    rows: int | None = Field(default=None, ge=1, description="Read at most so many rows; on the Hub, by streaming")


_DATASET_ID = re.compile(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+", re.ASCII)
_DATA_FILE = re.compile(r"\.(jsonl?|ndjson|jsonlines|csv|tsv|parquet|txt|md|gz|bz2|xz|zstd?|zip)$", re.IGNORECASE)


def is_dataset_id(name: str) -> bool:
    """Whether `name` is spelt like a dataset on the Hub: hf://..., or owner/name that isn't like a data file."""
    return name.startswith("hf://") or (_DATASET_ID.fullmatch(name) is not None and _DATA_FILE.search(name) is None)


def _as_sources(value: Any) -> Any:
    """A path, a source, or several of either, as a list of sources."""
    given = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | dict | Source) for one in given):
        raise PydanticCustomError("sources", "Input should be a path, a source with its keys, or a list of these")
    if "" in given:
        raise PydanticCustomError("sources", "A path should not be empty")
    return [{"path": one} if isinstance(one, str) else one for one in given]


def _as_written(sources: list[Source]) -> Any:
    """The shortest spelling of sources that reads back as the same."""
    short = [source.model_dump(exclude_none=True) for source in sources]
    spelt = [source["path"] if source.keys() == {"path"} else source for source in short]
    return spelt[0] if len(spelt) == 1 else spelt


Sources = Annotated[
    list[Source],
    Field(min_length=1),
    BeforeValidator(_as_sources, json_schema_input_type=str | Source | list[str | Source]),
    PlainSerializer(_as_written),
]


class Data(Section):
    """Where the rows are and how they are split."""

    train: Sources = Field(
        description="Rows to train on: a file, folder or glob (JSON, JSONL, CSV, Parquet, text), a Hub id, or several"
    )
    eval: Annotated[Annotated[float, Field(ge=0, lt=1)] | str, BeforeValidator(_as_number)] = Field(
        default=0.05, description="Rows for the loss during training: a fraction of train, or a file"
    )
    test: Annotated[Annotated[float, Field(gt=0, lt=1)] | str | None, BeforeValidator(_as_number)] = Field(
        default=None,
        description="Rows for the final comparison: a fraction of train, or a file; without it the eval rows serve",
    )
    mapping: Mapping = Mapping()
    filter: dict[str, Wanted] = Field(
        default={}, description="Train only on rows that have these values: column -> value, or a list of values"
    )
    bad_rows: Literal["error", "drop"] = Field(
        default="error", description="What to do with rows that can't be trained on: refuse the file, or drop them"
    )


Gguf = Literal["f16", "q8_0"]


class Export(Section):
    """What is written after training."""

    gguf: list[Gguf] | None = Field(
        default=None,
        description="Types of GGUF files; default: f16 and q8_0, none for prompt, prefix and reward models",
    )

    def types(self, method: str, *, virtual: bool) -> list[Gguf]:
        """Types of the GGUF files of a run; `virtual`: it trains virtual tokens, which no such file can hold."""
        if self.gguf is not None:
            return self.gguf
        return [] if virtual or method == "reward" else ["f16", "q8_0"]


AFTER_TRAINING: Final = ("evaluation", "export")
"""Sections of the recipe that training doesn't depend on: a run folder's recipe.yaml may change them."""


class Recipe(Section):
    """One fine-tuning run, from data to export. Everything left out is decided by the plan and explained there."""

    model: str = Field(description="Local folder, Hub id, or builtin:small")
    method: Method = "sft"
    data: Data
    adapter: Adapter = Adapter()
    rewards: Rewards = Field(
        default=[], description="Rewards of grpo and rloo: functions FILE.py:NAME, which are run where the run trains"
    )
    training: dict[str, Any] = Field(
        default={}, description="Arguments of TRL's config class under TRL's own names (for sft: trl.SFTConfig)"
    )
    speed: Speed = Speed()
    guard: Guard = Guard()
    watch: Watch = Watch()
    evaluation: Evaluation = Evaluation()
    export: Export = Export()
    launch: Launch = Launch()
    hub: Hub = Hub()
    seed: int = Field(default=42, ge=0, lt=2**32)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Dtype in which the weights are loaded"
    )
    chat_template: str | None = Field(default=None, description="Jinja file, for a model that has no chat template")
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hub model")

    @field_validator("evaluation")
    @classmethod
    def _fits_the_method(cls, evaluation: Evaluation, info: ValidationInfo) -> Evaluation:
        possible = TASKS[info.data["method"]].possible if "method" in info.data else ()
        if possible and not set(evaluation.tasks or ()) <= set(possible):
            raise PydanticCustomError(
                "tasks", "A {method} run has these tasks: {possible}",
                {"method": info.data["method"], "possible": ", ".join(possible)},
            )  # fmt: skip
        return evaluation
