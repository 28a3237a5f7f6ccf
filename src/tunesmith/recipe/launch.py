"""Where a run is trained, what it may take, and where its result goes."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from .section import Section

_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_DURATION = re.compile(" ?".join(f"(?:(?P<{unit}>{_NUMBER}) ?{unit})?" for unit in _SECONDS), re.ASCII)
_AMOUNT = re.compile(
    r"(?:US)?\$ ?(?P<before>\d{1,12}(?:\.\d+)?)|(?P<after>\d{1,12}(?:\.\d+)?)(?: ?(?:USD|\$))?",
    re.ASCII | re.IGNORECASE,
)


def _as_seconds(value: Any) -> Any:
    """A duration such as 90m, 1.5h or 1h30m, in seconds."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    match = _DURATION.fullmatch(f"{text}s" if re.fullmatch(_NUMBER, text, re.ASCII) else text)
    if match is None or not text:
        raise PydanticCustomError("duration", "A time has the units d, h, m and s, such as 90m, 1h30m or 2d")
    return round(sum(float(number) * _SECONDS[unit] for unit, number in match.groupdict(default="0").items()))


def _as_dollars(value: Any) -> Any:
    """An amount such as 20 USD, as a number; there is no rate for other currencies."""
    if not isinstance(value, str):
        return value
    match = _AMOUNT.fullmatch(value.strip())
    if match is None:
        raise PydanticCustomError(
            "budget", "Prices are in US dollars and no exchange rate is known here: write, for example, 20 USD"
        )
    return float(match["before"] or match["after"])


def _as_names(value: Any) -> Any:
    """One secret's name as a list of one."""
    return [value] if isinstance(value, str) else value


def _secret_name(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) is None:
        raise PydanticCustomError("secret", "A secret is given by its name, such as HF_TOKEN, never by its value")
    return name


def _repository(name: str) -> str:
    if re.fullmatch(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", name, re.ASCII) is None:
        raise PydanticCustomError("repository", "A repository is named OWNER/NAME, of letters, digits, - _ and dots")
    return name


SecretName = Annotated[str, AfterValidator(_secret_name)]
Repository = Annotated[str, AfterValidator(_repository)]
Amount = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False, description="US dollars"),
    BeforeValidator(_as_dollars, json_schema_input_type=float | str),
]


class Launch(Section):
    """Where the run is trained, and what it may take."""

    on: Literal["local", "hf-jobs", "sky"] = Field(default="local", examples=["hf-jobs"])
    flavor: str | None = Field(
        default=None,
        min_length=1,
        description="Machine: a flavor of Hugging Face Jobs (a10g-large), or of the cloud",
        examples=["a10g-large"],
    )
    timeout: Annotated[
        Annotated[int, Field(ge=1)] | None, BeforeValidator(_as_seconds, json_schema_input_type=int | str | None)
    ] = Field(
        default=None,
        description="Time after which a job is ended: 90m, 1h30m, 2d, or seconds; a run saves and stops just before",
        examples=["90m"],
    )
    budget: Amount | None = Field(
        default=None, description="Most that the run may cost, in US dollars: 20 USD", examples=["20 USD"]
    )
    processes: int = Field(
        default=1, ge=1, description="Processes that train together on a machine, one per device", examples=[2]
    )
    nodes: int = Field(
        default=1, ge=1, description="Machines that train together; the run folder then has a script for Slurm"
    )
    sharding: Literal["auto", "ddp", "fsdp", "zero2", "zero3"] = Field(
        default="auto",
        description="What each process holds; ddp: all of it; fsdp (FSDP2) and zero3 (DeepSpeed): a share; "
        "zero2: all weights, and a share of gradients and optimizer",
    )
    namespace: str | None = Field(
        default=None,
        min_length=1,
        description="User or organisation that a job runs under and that pays for it",
        examples=["my-organisation"],
    )
    secrets: Annotated[list[SecretName], BeforeValidator(_as_names, json_schema_input_type=str | list[str])] = Field(
        default=[],
        description="Names of secrets that the job gets, such as HF_TOKEN; their values stay here",
        examples=["HF_TOKEN"],
    )


class Hub(Section):
    """Where the result is pushed to."""

    repo: Repository | None = Field(
        default=None,
        description="Repository of the model, OWNER/NAME; without it nothing is pushed",
        examples=["me/my-model"],
    )
    private: bool = Field(default=True, description="Whether the repository is private")
