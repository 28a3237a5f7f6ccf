"""The recipe: what the user writes. Sparse, strict and frozen; no torch and no transformers on its import path."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from ..records import Wanted
from .launch import Hub, Launch
from .section import Section

Method = Literal["sft", "dpo", "grpo", "rloo", "kto", "reward", "clm"]


def _as_number(value: Any) -> Any:
    """A number that YAML gives as text (5e-2), as a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _as_list(value: Any) -> Any:
    """One target as a list of one."""
    return [value] if isinstance(value, str) and value != "all-linear" else value


def _reward(reference: str) -> str:
    if re.fullmatch(r".+\.py:[^\W\d]\w*", reference) is None:
        raise PydanticCustomError("reward", "A reward function is named by its file and its name, FILE.py:NAME")
    return reference


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
    test: str | None = Field(
        default=None, description="File with rows for the final comparison; without it the eval rows serve"
    )
    mapping: Mapping = Mapping()
    filter: dict[str, Wanted] = Field(
        default={}, description="Train only on rows that have these values: column -> value, or a list of values"
    )
    bad_rows: Literal["error", "drop"] = Field(
        default="error", description="What to do with rows that can't be trained on: refuse the file, or drop them"
    )


class Adapter(Section):
    """What is trained: all weights (`none`), or adapters of low rank on the base (`lora`), also in 4 bits (`qlora`)."""

    kind: Literal["none", "lora", "qlora"] = "lora"
    r: int = Field(default=16, ge=1, le=1024)
    alpha: int | None = Field(default=None, ge=1, description="Default: 2 r")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Annotated[Literal["all-linear"] | Annotated[list[str], Field(min_length=1)], BeforeValidator(_as_list)] = (
        Field(default="all-linear", description="Names of linear layers, such as [q_proj, v_proj], or all-linear")
    )


class Evaluation(Section):
    """How tuned is compared with base."""

    tasks: list[Literal["loss", "exact_match"]] = Field(default=["loss", "exact_match"])
    rows: int | None = Field(default=None, ge=1, description="At most so many rows; default: all up to 500")
    max_new_tokens: int | None = Field(default=None, ge=1, description="Default: from the expected answers' lengths")
    batch_size: int = Field(default=32, ge=1)


class Export(Section):
    """What is written after training."""

    gguf: list[Literal["f16", "q8_0"]] = Field(default=["f16", "q8_0"])


class Recipe(Section):
    """One fine-tuning run, from data to export. Everything left out is decided by the plan and explained there."""

    model: str = Field(description="Local folder, Hub id, or builtin:small")
    method: Method = "sft"
    data: Data
    adapter: Adapter = Adapter()
    rewards: Annotated[
        list[Annotated[str, AfterValidator(_reward)]],
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    ] = Field(default=[], description="Reward functions of grpo and rloo, FILE.py:NAME; they are run on this machine")
    training: dict[str, Any] = Field(
        default={}, description="Arguments of TRL's config class under TRL's own names (for sft: trl.SFTConfig)"
    )
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
