"""Calls a reward function once: `python -m tunesmith.plan.reward_call FILE.py:NAME ANSWER`, the arguments on stdin.

It is a process of its own, since it runs the user's code, which may print, hang or end the process. It imports nothing
heavy, and writes what happened as JSON into the file ANSWER.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Call the function and write what happened."""
    reference, answer = sys.argv[1:]
    # The function may read stdin itself: it gets none.
    arguments = json.loads(sys.stdin.buffer.read())
    Path(answer).write_text(json.dumps(_call(reference, arguments)), encoding="utf-8")


def _call(reference: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What became of the call: `rewards`, or `problem` (import, missing, arguments, raised, returned) with its text."""
    path, _, name = reference.rpartition(":")
    try:
        function = getattr(_module(Path(path)), name, None)
    except BaseException as error:  # SystemExit of a script without a main guard, too
        return _problem("import", error)
    if not callable(function):
        return {"problem": "missing", "text": name}
    given = {**arguments, "trainer_state": _State(), "log_extra": _ignore, "log_metric": _ignore}
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        return _problem("arguments", error)
    except ValueError:
        pass  # a built-in without a signature: the call will tell
    try:
        rewards = _wait(function, given)
    except BaseException as error:  # whatever the user's code raises
        return _problem("raised", error)
    return _numbers(rewards)


def _module(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"there is no Python file {path}")
    sys.path.insert(0, str(path.resolve().parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _wait(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    rewards = function(**given)
    return asyncio.run(_awaited(rewards)) if inspect.isawaitable(rewards) else rewards


async def _awaited(rewards: Any) -> Any:
    return await rewards


def _numbers(rewards: Any) -> dict[str, Any]:
    """The rewards as numbers, None and NaN as None; or that they are none."""
    try:
        values = [None if reward is None else float(reward) for reward in rewards]
    except (TypeError, ValueError):
        return {"problem": "returned", "text": _kind(rewards)}
    finite = [value if value is None or value - value == 0 else "nan" for value in values]
    return {"rewards": finite}


def _kind(rewards: Any) -> str:
    """What was returned instead of numbers, in words."""
    if not isinstance(rewards, list):
        return "None" if rewards is None else f"a {type(rewards).__name__}"
    return f"a list of {', '.join(sorted({type(reward).__name__ for reward in rewards}))}"


class _State:
    """The trainer's state as it is before the first step; made when asked for, since it imports torch."""

    def __getattr__(self, name: str) -> Any:
        from transformers import TrainerState

        return getattr(TrainerState(), name)


def _ignore(*_arguments: object, **_named: object) -> None:
    """Takes what a function logs."""


def _problem(kind: str, error: BaseException) -> dict[str, Any]:
    return {"problem": kind, "text": f"{type(error).__name__}: {error}".splitlines()[0]}


if __name__ == "__main__":
    main()
