"""What is trained of the model."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from .section import Section

Kind = Literal["none", "lora", "qlora", "prompt", "prefix", "ia3"]
LOW_RANK: Final = ("lora", "qlora")
VIRTUAL: Final = ("prompt", "prefix")
"""Kinds that put virtual tokens before the text: they change no weight, so that there is nothing to merge."""
_INITS: Final = ("default", "gaussian", "orthogonal", "olora", "pissa")


def as_list(value: Any) -> Any:
    """One name as a list of one."""
    return [value] if isinstance(value, str) and value != "all-linear" else value


def _init(name: str) -> str:
    if name not in _INITS and re.fullmatch(r"pissa_niter_[1-9]\d?", name) is None:
        raise PydanticCustomError("init", f"It is one of {', '.join(_INITS)} or pissa_niter_N, such as pissa_niter_16")
    return name


def _tokens(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("tokens", "A token should be named once")
    if any(not name.strip() for name in names):
        raise PydanticCustomError("tokens", "A token should not be empty")
    return names


class Adapter(Section):
    """What is trained: all weights (`none`), or an adapter on the frozen base."""

    kind: Kind = Field(
        default="lora",
        description="none: all weights; lora: matrices of low rank; qlora: the same on a base in 4 bits; "
        "prompt, prefix: virtual tokens before the text; ia3: scales of activations",
    )
    r: int = Field(default=16, ge=1, le=1024)
    alpha: int | None = Field(default=None, ge=1, description="Default: 2 r")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Annotated[Literal["all-linear"] | Annotated[list[str], Field(min_length=1)], BeforeValidator(as_list)] = (
        Field(default="all-linear", description="Names of linear layers, such as [q_proj, v_proj], or all-linear")
    )
    dora: bool = Field(default=False, description="DoRA: LoRA that trains each column's length apart (lora, qlora)")
    rslora: bool = Field(default=False, description="rsLoRA: scaled by alpha / sqrt(r) rather than alpha / r")
    init: Annotated[str, AfterValidator(_init)] = Field(
        default="default",
        description="How LoRA begins: default, gaussian, orthogonal, olora, pissa, or pissa_niter_16 (faster)",
    )
    virtual_tokens: int = Field(default=20, ge=1, le=4096, description="Virtual tokens of prompt and prefix tuning")
    tokens: Annotated[list[str], BeforeValidator(as_list), AfterValidator(_tokens)] = Field(
        default=[],
        description="Tokens whose embeddings are trained too; those that the tokenizer lacks are added to it",
        examples=["[<|order|>]"],
    )
    earlier: Literal["merge", "continue"] = Field(
        default="merge",
        description="Where `model:` is a run that trained an adapter: merge it into its base first, or go on with it",
    )

    @property
    def mutates_base(self) -> bool:
        """Whether the initialisation takes its start out of the base's weights, as PiSSA and OLoRA do."""
        return self.kind in LOW_RANK and self.init.startswith(("pissa", "olora"))
