"""config.json with its values checked, and an architecture's defaults where it is silent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError

_LARGEST = 10**9  # far above every size that a real model has


@dataclass(frozen=True)
class Config:
    """Values of a config.json, or of a part of it.

    Attributes:
        values: As read.
        defaults: Values where it is silent; null is said, and means none.
        model: The model's name, for messages.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    model: str

    def number(self, *names: str) -> int:
        """The first of `names` that it has, a count of something; 0 where it has none.

        Raises:
            UsageError: the value isn't a whole number from 0 to a thousand million.
        """
        for name in names:
            value = self._value(name)
            # Some architectures list a size by layer, as Gemma 3n does: that says nothing where one number is wanted.
            if value is not None and not isinstance(value, list):
                return self._whole(name, value)
        return 0

    def size(self, *names: str) -> int:
        """As `number`, of something that every model has: a 0 that it says is refused.

        Raises:
            UsageError: the value isn't a whole number from 1 to a thousand million.
        """
        for name in names:
            if self.says(name) and self.number(name) == 0 and not isinstance(self.values[name], list):
                raise self.absurd(name, "a whole number above 0")
        return self.number(*names)

    def share(self, *names: str) -> float:
        """The first of `names` that it has, a share of something; 0 where it has none.

        Raises:
            UsageError: the value isn't a number from 0 to 1.
        """
        for name in names:
            value = self._value(name)
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                    raise self.absurd(name, "a number from 0 to 1")
                return float(value)
        return 0.0

    def flag(self, name: str) -> bool:
        """Whether it says yes; no where it is silent.

        Raises:
            UsageError: the value is neither true nor false.
        """
        value = self._value(name)
        if value is not None and not isinstance(value, bool):
            raise self.absurd(name, "true or false")
        return bool(value)

    def items(self, name: str) -> list[Any]:
        """A list; empty where it is silent.

        Raises:
            UsageError: the value isn't a list.
        """
        value = self._value(name)
        if value is not None and not isinstance(value, list):
            raise self.absurd(name, "a list")
        return value or []

    def word(self, *names: str) -> str:
        """The first of `names` that it has as text; empty where it has none."""
        return next((value for name in names if isinstance(value := self._value(name), str)), "")

    def part(self, name: str, defaults: Mapping[str, Any]) -> Config:
        """A config within the config, with defaults of its own; empty where there is none.

        Raises:
            UsageError: the value isn't an object.
        """
        value = self._value(name)
        if value is not None and not isinstance(value, dict):
            raise self.absurd(name, "an object")
        return Config(value or {}, defaults, self.model)

    def says(self, name: str) -> bool:
        """Whether config.json itself has a value for `name`."""
        return self.values.get(name) is not None

    def _value(self, name: str) -> Any:
        return self.values[name] if name in self.values else self.defaults.get(name)

    def _whole(self, name: str, value: Any) -> int:
        number = not isinstance(value, bool) and isinstance(value, int | float)
        if not number or not 0 <= value <= _LARGEST or value != int(value):
            raise self.absurd(name, f"a whole number from 0 to {_LARGEST:,}")
        return int(value)

    def absurd(self, name: str, wanted: str) -> UsageError:
        """The error of a value with which no model can be built; `wanted` says what it must be."""
        shown = repr(self._value(name))
        return UsageError(
            f"config.json of {self.model} says {name}: {shown if len(shown) <= 40 else shown[:37] + '...'}.",
            why=f"It must be {wanted}; with this value Transformers can't build or run the model either.",
            fix="Correct the file, or save or download the model again.",
        )
