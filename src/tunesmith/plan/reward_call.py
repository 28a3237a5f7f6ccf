"""Calls a reward function once: `python -m tunesmith.plan.reward_call ANSWER`, the reward and its arguments on stdin.

It is a process of its own, since it runs the user's code, which may print, hang or end the process. It imports nothing
heavy, and writes what happened as JSON into the file ANSWER.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from ..recipe.rewards import Reward
from ..rewards import RewardError, checked_numbers, load_reward, outside_trainer, settled


def main() -> None:
    """Call the function and write what happened."""
    # The function may read stdin itself: it gets none.
    question = json.loads(sys.stdin.buffer.read())
    try:
        answer: dict[str, Any] = {"rewards": _call(Reward.model_validate(question["reward"]), question["given"])}
    except RewardError as error:
        answer = {"problem": error.problem, "text": error.text}
    Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")


def _call(reward: Reward, given: dict[str, Any]) -> list[float | None]:
    function = load_reward(reward)
    given = {**given, **outside_trainer()}
    if both := sorted(reward.arguments.keys() & given.keys()):
        raise RewardError("arguments", f"the recipe gives {both[0]}, and so does the trainer")
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise RewardError("arguments", _said(error)) from error
    except ValueError:
        pass  # a built-in without a signature: the call will tell
    try:
        rewards = settled(function(**given))
    except BaseException as error:  # whatever the user's code raises
        raise RewardError("raised", _said(error)) from error
    return checked_numbers(rewards, len(given["completions"]))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


if __name__ == "__main__":
    main()
