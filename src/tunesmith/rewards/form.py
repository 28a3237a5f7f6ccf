"""Rewards of an answer's form, whatever is right."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from .answer import Answer
from .base import OfText, Pattern, Shipped
from .compare import read_json


class Regex(OfText):
    """1 where a regular expression matches the answer, 0 elsewhere."""

    share = True

    pattern: Pattern = Field(description="Regular expression, in Python's syntax")
    whole: bool = Field(default=False, description="It must match the whole answer, not just a part")

    def score(self, answer: Answer) -> float:
        """1.0 or 0.0."""
        said = self.said(answer)
        find = re.fullmatch if self.whole else re.search
        return float(said is not None and find(self.pattern, said) is not None)


class Json(OfText):
    """1 where the answer is JSON and nothing else, 0 elsewhere."""

    share = True

    def score(self, answer: Answer) -> float:
        """1.0 or 0.0."""
        return float(read_json(self.said(answer) or "") is not ...)


class JsonSchema(OfText):
    """1 where the answer is JSON that fits a JSON Schema, 0 elsewhere; `partial` for JSON that doesn't fit."""

    share = None
    model_config = ConfigDict(ignored_types=(cached_property,))

    schema_: dict[str, Any] = Field(alias="schema", description="The JSON Schema; of no draft named, 2020-12")
    partial: float = Field(default=0.0, ge=0, lt=1, description="Reward of JSON that doesn't fit the schema")

    @field_validator("schema_")
    @classmethod
    def _is_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for

        try:
            validator_for(schema).check_schema(schema)
        except SchemaError as error:
            raise PydanticCustomError("schema", "It is no JSON Schema: {text}", {"text": error.message}) from None
        return schema

    @cached_property
    def _validator(self) -> Any:
        from jsonschema.validators import validator_for
        from referencing import Registry

        # Of its own, jsonschema would fetch a $ref from the network.
        return validator_for(self.schema_)(self.schema_, registry=Registry())

    def score(self, answer: Answer) -> float:
        """1.0, `partial`, or 0.0."""
        value = read_json(self.said(answer) or "")
        if value is ...:
            return 0.0
        return 1.0 if self._validator.is_valid(value) else self.partial


class Length(Shipped):
    """1 for a length from `min` to `max`, falling to 0 at no length and at twice `max`.

    n / min below, 1 - (n - max) / max above. Reasoning counts.
    """

    min: int | None = Field(default=None, ge=1, description="Least length")
    max: int | None = Field(default=None, ge=1, description="Greatest length")
    unit: Literal["tokens", "words", "characters"] = Field(default="tokens", description="What is counted")

    @model_validator(mode="after")
    def _has_bound(self) -> Length:
        if self.min is None and self.max is None:
            raise PydanticCustomError("length", "A length needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise PydanticCustomError("length", "The least length is greater than the greatest")
        return self

    def score(self, answer: Answer) -> float:
        """From 0.0 to 1.0."""
        count = self._count(answer)
        if self.min is not None and count < self.min:
            return count / self.min
        if self.max is not None and count > self.max:
            return max(0.0, 2.0 - count / self.max)
        return 1.0

    def _count(self, answer: Answer) -> int:
        if self.unit == "tokens":
            return len(answer.ids)
        return len(answer.text.split() if self.unit == "words" else answer.text)


class ThinkFormat(Shipped):
    """1 where reasoning stands between <think> and </think> before the answer, 0 elsewhere (TRL's own)."""

    def score(self, answer: Answer) -> float:
        """1.0 or 0.0."""
        from trl.rewards.format_rewards import think_format_reward

        rewards: list[float] = think_format_reward([[{"role": "assistant", "content": answer.text}]])
        return rewards[0]


class Repetition(Shipped):
    """0 without repeated n-grams of tokens, falling towards -1 where all are the same (TRL's own).

    1 - unique n-grams / all n-grams, negative: Yeo et al. 2025, Demystifying Long Chain-of-Thought Reasoning, C.2.
    """

    ngram: int = Field(default=3, ge=1, description="Tokens of an n-gram")

    def score(self, answer: Answer) -> float:
        """From -1.0 to 0.0."""
        from trl.rewards.other_rewards import get_repetition_penalty_reward

        rewards: list[float] = get_repetition_penalty_reward(ngram_size=self.ngram)(completion_ids=[answer.ids])
        return rewards[0]


class Overlong(Shipped):
    """0 up to `max` - `room` tokens, falling to -1 at `max` and beyond (TRL's own).

    Yu et al. 2025, DAPO, equation 13.
    """

    max: int = Field(ge=1, description="Greatest length in tokens; best max_completion_length")
    room: int = Field(ge=1, description="Tokens before it within which the penalty grows")

    def score(self, answer: Answer) -> float:
        """From -1.0 to 0.0."""
        from trl.rewards.other_rewards import get_soft_overlong_punishment

        punish = get_soft_overlong_punishment(max_completion_len=self.max, soft_punish_cache=self.room)
        rewards: list[float] = punish(completion_ids=[answer.ids])
        return rewards[0]
