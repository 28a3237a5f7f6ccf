"""What is done when a run goes wrong."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from .section import Section

Action = Literal["warn", "stop", "rollback", "off"]


_ALL: Final = ("sft", "clm", "dpo", "kto", "reward", "grpo", "rloo")
_GENERATING: Final = ("grpo", "rloo")
_LEARNING: Final = tuple(method for method in _ALL if method not in _GENERATING)


class Response(NamedTuple):
    """What the guard does about a rule unless the recipe says otherwise, what it may do, and in which methods."""

    action: Action
    may: tuple[Action, ...] = ("warn", "stop", "rollback", "off")
    methods: tuple[str, ...] = _ALL


_PLACE: Final[tuple[Action, ...]] = ("warn", "stop", "off")  # a lower rate helps neither time, money nor disk
RESPONSES: Final = {
    "R001": Response("stop", ("stop", "rollback")),  # once NaN, weights stay NaN
    "R009": Response("warn", methods=_LEARNING),
    "R010": Response("stop", methods=_LEARNING),
    "R011": Response("stop", _PLACE),
    "R012": Response("stop", _PLACE),
    "R013": Response("warn", ("warn", "off")),  # known at the end only
    "R014": Response("warn", methods=_LEARNING),
    "R015": Response("stop", _PLACE, _GENERATING),
    "R016": Response("warn", _PLACE, _GENERATING),
    "R017": Response("warn", methods=_GENERATING),
    "R018": Response("stop", methods=_GENERATING),
    "R019": Response("warn", methods=("dpo", "kto")),
    "R020": Response("warn", _PLACE, ("dpo", "reward")),
    "R021": Response("warn", _PLACE),
    "R022": Response("stop", _PLACE),
    "R023": Response("stop", _PLACE),
    "R024": Response("stop", _PLACE),
}
"""The rules that the guard holds a run against. It stops by itself where further steps would be worthless or lost."""


def watched(method: str) -> list[str]:
    """The rules that a method's runs are held against."""
    return [code for code, response in RESPONSES.items() if method in response.methods]


def _spelt(actions: Any) -> Any:
    """Codes in capitals, and YAML's `off`, which is read as false, as the word."""
    if not isinstance(actions, dict):
        return actions
    return {str(code).upper(): "off" if action is False else action for code, action in actions.items()}


def _possible(actions: dict[str, Action]) -> dict[str, Action]:
    for code, action in actions.items():
        if code not in RESPONSES:
            near = difflib.get_close_matches(code, RESPONSES, n=1)
            known = f"did you mean {near[0]}?" if near else f"it has {', '.join(RESPONSES)}"
            raise PydanticCustomError("guard", "The guard has no rule {code}: {known}", {"code": code, "known": known})
        if action not in RESPONSES[code].may:
            may = ", ".join(RESPONSES[code].may)
            raise PydanticCustomError("guard", "About {code} the guard can only do: {may}", {"code": code, "may": may})
    return actions


class Guard(Section):
    """What the guard does when a run goes wrong, by the code of a rule."""

    actions: Annotated[dict[str, Action], BeforeValidator(_spelt), AfterValidator(_possible)] = Field(
        default={},
        description="Rule -> warn, stop (after saving), rollback (to the last good checkpoint, at a lower rate) or off",
        examples=["{R001: rollback}"],
    )
    rollbacks: int = Field(default=2, ge=0, description="Most times that a run goes back")
    rate_factor: float = Field(default=0.5, gt=0, lt=1, description="What the learning rate is multiplied by then")

    def action(self, code: str) -> Action:
        """What to do about a rule's signal."""
        return self.actions.get(code, RESPONSES[code].action)
