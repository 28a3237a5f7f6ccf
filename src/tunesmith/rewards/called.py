"""A reward as a trainer calls it: whatever it gives that is no reward ends the run, with its reason."""

from __future__ import annotations

import inspect
import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..rules import FindingsError, finding

RewardFunction = Callable[..., Any]
"""Takes prompts, completions, completion_ids and columns by name; gives a number or None for each completion."""

_PROBLEMS: Final = {
    "import": ("can't be loaded: {text}", "Run `python {file}` and repair what it says"),
    "missing": ("isn't there: the file defines no {text}", "Give the name of a function of that file, FILE.py:NAME"),
    "arguments": (
        "takes other arguments: {text}",
        "Write `def {name}(prompts, completions, **kwargs)`: the trainer also passes completion_ids, every other "
        "column of the rows, trainer_state, log_extra and log_metric{lacking}",
    ),
    "raised": ("raises {text}", "Completions are {shape}; try the function on some of them"),
    "returned": ("gives {text}", "Return a list with one number for each completion"),
    "length": ("gives {text}", "Return a list with one number for each completion"),
    "number": ("gives {text}", "Return a finite number for each completion, or None for those it has no opinion on"),
    "time": ("doesn't end within {text} s", "Give it a timeout of its own: it is called at every step"),
    "died": ("ends the process ({text})", "Don't call sys.exit or os._exit in it"),
}


class RewardError(Exception):
    """A reward that can't be used.

    Attributes:
        problem: What is wrong: import, missing, arguments, raised, returned, length, number, time or died.
        text: What was seen of it.
    """

    def __init__(self, problem: str, text: str) -> None:
        super().__init__(text)
        self.problem = problem
        self.text = text


def in_words(reference: str, error: RewardError, *, chat: bool) -> tuple[str, str]:
    """What is wrong with the reward `reference` and what to do, for a finding; `chat`: completions are messages."""
    what, remedy = _PROBLEMS[error.problem]
    file, _, name = reference.rpartition(":")
    shape = "lists with one message each" if chat else "texts"
    missing = re.search(r"missing a required (?:keyword-only )?argument: '(\w+)'", error.text)
    written = f"{{name: {reference}, arguments: {{{missing[1]}: ...}}}}" if missing else ""
    lacking = f". An argument of your own is given in the recipe: `rewards: [{written}]`" if written else ""
    words = {"text": error.text, "name": name, "file": file, "shape": shape, "lacking": lacking}
    return what.format(**words), f"{remedy.format(**words)}."


def checked_numbers(rewards: Any, count: int) -> list[float | None]:
    """What a reward gave, as finite numbers; None where it has no opinion.

    Raises:
        RewardError: it isn't one number or None for each of `count` completions.
    """
    try:
        values = [None if reward is None else float(reward) for reward in rewards]
    except (TypeError, ValueError):
        raise RewardError("returned", _kind(rewards)) from None
    if len(values) != count:
        noun = "reward" if len(values) == 1 else "rewards"
        raise RewardError("length", f"{len(values)} {noun} for {count} completions")
    if not all(value is None or math.isfinite(value) for value in values):
        raise RewardError("number", "a number that isn't finite")
    return values


def _kind(rewards: Any) -> str:
    """What was returned instead of numbers, in words."""
    if not isinstance(rewards, list):
        return "None" if rewards is None else f"a {type(rewards).__name__}"
    return f"a list of {', '.join(sorted({type(reward).__name__ for reward in rewards}))}"


class Called:
    """A reward that is called within a run. The trainer logs it as rewards/NAME/mean and .../std.

    TRL takes NaN for "no opinion" and an infinite reward for a number; here both end the run.
    """

    def __init__(self, reference: str, function: RewardFunction, name: str) -> None:
        """`reference` is the reward as the recipe spells it, `name` the one of its metrics."""
        self.reference = reference
        self.__name__ = name
        self._function = function

    def __call__(self, *, prompts: Any, completions: Sequence[Any], **given: Any) -> list[float | None]:
        """The rewards of `completions`.

        Raises:
            FindingsError: R038, the function failed.
        """
        try:
            return checked_numbers(self._function(prompts=prompts, completions=completions, **given), len(completions))
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise self._failed(error, completions, given) from error

    def _failed(self, error: BaseException, completions: Sequence[Any], given: dict[str, Any]) -> FindingsError:
        if not isinstance(error, RewardError):
            logging.getLogger(__name__).error("%s failed", self.reference, exc_info=error)
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            error = RewardError("died" if isinstance(error, SystemExit) else "raised", said)
        chat = bool(completions) and not isinstance(completions[0], str)
        problem, remedy = in_words(self.reference, error, chat=chat)
        step = getattr(given.get("trainer_state"), "global_step", 0)
        return FindingsError(
            [finding("R038", "rewards", function=self.reference, step=step, problem=problem, remedy=remedy)]
        )


class CalledLater(Called):
    """A reward that is a coroutine: TRL awaits all of these together."""

    async def __call__(self, *, prompts: Any, completions: Sequence[Any], **given: Any) -> list[float | None]:  # type: ignore[override]
        """As Called."""
        try:
            rewards = await self._function(prompts=prompts, completions=completions, **given)
            return checked_numbers(rewards, len(completions))
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise self._failed(error, completions, given) from error


def called(reference: str, function: RewardFunction, name: str) -> Called:
    """`function` as a trainer calls it."""
    waits = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
    return (CalledLater if waits else Called)(reference, function, name)
