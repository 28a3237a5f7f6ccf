"""What grpo and rloo reward answers for."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from .section import Section


def is_function(name: str) -> bool:
    """Whether a reward is spelt as a function of the user's, FILE.py:NAME."""
    return re.fullmatch(r".+\.py:[^\W\d]\w*", name) is not None


def _name(name: str) -> str:
    if not (is_function(name) or re.fullmatch(r"[a-z_][a-z0-9_]*", name)):
        raise PydanticCustomError(
            "reward", "A reward is one of tunesmith's by its name, such as exact_match, or a function FILE.py:NAME"
        )
    return name


class Reward(Section):
    """One reward: a shipped one by name, a function of the user's, or a reward model; and how much it counts."""

    name: Annotated[str, AfterValidator(_name)] | None = Field(
        default=None, description="A shipped reward, such as exact_match, or a function of your own, FILE.py:NAME"
    )
    model: str | None = Field(
        default=None, min_length=1, description="A reward model: a run of method reward, a folder, or a Hub id"
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a reward model on the Hub")
    arguments: dict[str, Any] = Field(default={}, description="What the reward is called with besides the answers")
    weight: float = Field(default=1.0, allow_inf_nan=False, description="What its values are multiplied by in the sum")

    @model_validator(mode="after")
    def _one_kind(self) -> Reward:
        if (self.name is None) == (self.model is None):
            raise PydanticCustomError("reward", "A reward has either a name or a model")
        if self.arguments and self.model is not None:
            raise PydanticCustomError("reward", "A reward model takes no arguments")
        if self.revision is not None and self.model is None:
            raise PydanticCustomError("reward", "Only a reward model has a revision")
        return self

    @property
    def spelt(self) -> str:
        """The reward as findings name it."""
        return str(self.name or self.model)


def _as_rewards(value: Any) -> Any:
    """A name, a reward, or several of either, as a list of rewards."""
    given = value if isinstance(value, list) else [value]
    return [{"name": one} if isinstance(one, str) else one for one in given]


def _as_written(rewards: list[Reward]) -> Any:
    """The shortest spelling of rewards that reads back as the same."""
    short = [reward.model_dump(exclude_defaults=True) for reward in rewards]
    return [reward["name"] if reward.keys() == {"name"} else reward for reward in short]


Rewards = Annotated[
    list[Reward],
    BeforeValidator(_as_rewards, json_schema_input_type=str | Reward | list[str | Reward]),
    PlainSerializer(_as_written),
]


def read_rewards(written: Any) -> list[Reward]:
    """The rewards of a plan's recipe, which keeps them as they are written."""
    return TypeAdapter(Rewards).validate_python(written)
