"""Collecting choices: the recipe's value where it has one, else the plan's, each with its reason."""

from __future__ import annotations

from typing import Any

from ..records import Choice


class Choices:
    """The values of a plan, in the order in which they were chosen."""

    def __init__(self, training: dict[str, Any]) -> None:
        """`training` holds the trainer arguments that the recipe sets."""
        self._given = dict(training)
        self.made: list[Choice] = []

    def given(self, name: str) -> bool:
        """Whether the recipe sets this trainer argument."""
        return self._given.get(name) is not None

    def choose(self, name: str, value: Any, reason: str) -> Any:
        """Settle a trainer argument and return what it is."""
        if name in self._given:
            value, reason, source = self._given.pop(name), "set in the recipe", "recipe"
        else:
            source = "plan"
        self.made.append(Choice.model_validate({"name": name, "value": value, "reason": reason, "source": source}))
        return value

    def note(self, name: str, value: Any, reason: str, *, from_recipe: bool = False) -> Any:
        """Record a value that isn't an argument of the trainer."""
        source = "recipe" if from_recipe else "plan"
        self.made.append(Choice.model_validate({"name": name, "value": value, "reason": reason, "source": source}))
        return value

    def take_rest(self) -> None:
        """Take over what else the recipe sets."""
        for name in list(self._given):
            self.choose(name, None, "")

    def training(self) -> dict[str, Any]:
        """The trainer's arguments."""
        return {choice.name: choice.value for choice in self.made if not choice.name.startswith("model.")}

    def noted(self) -> dict[str, Any]:
        """The values that aren't arguments of the trainer, by their names without `model.`."""
        return {
            choice.name.removeprefix("model."): choice.value for choice in self.made if choice.name.startswith("model.")
        }
