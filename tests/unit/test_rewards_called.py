"""Rewards as a trainer calls them: metrics' names, users' functions, and what ends a run."""

import asyncio
import inspect
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import UsageError
from tunesmith.recipe.rewards import Reward
from tunesmith.rewards import (
    Called,
    RewardError,
    checked_numbers,
    columns_of,
    load_rewards,
    metric_names,
    outside_trainer,
)
from tunesmith.rewards.own import load_own
from tunesmith.rules import FindingsError


def no_model(reward: Reward) -> Any:
    raise AssertionError(f"{reward.model} isn't wanted")


def load(code: str, name: str = "mine.py:reward", **arguments: Any) -> Called:
    Path("mine.py").write_text(code)
    (one,) = load_rewards([Reward(name=name, arguments=arguments)], no_model)
    return one


def call(function: Called, completions: list[Any], **columns: Any) -> Any:
    state = SimpleNamespace(global_step=7)
    return function(prompts=["?"] * len(completions), completions=completions, trainer_state=state, **columns)


@given(st.lists(st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9), min_size=1))
def test_numbers_and_none_are_rewards(rewards: list[Any]) -> None:
    given = checked_numbers(rewards, len(rewards))
    assert given == rewards
    assert all(one is None or type(one) is float for one in given)


@pytest.mark.parametrize(
    ("rewards", "problem", "text"),
    [
        (None, "returned", "None"),
        (1.0, "returned", "a float"),
        (["a"], "returned", "a list of str"),
        ([[1.0]], "returned", "a list of list"),
        ([1.0, 2.0], "length", "2 rewards for 1 completions"),
        ([], "length", "0 rewards for 1 completions"),
        ([float("nan")], "number", "a number that isn't finite"),
        ([float("inf")], "number", "a number that isn't finite"),
    ],
)
def test_what_is_no_reward(rewards: Any, problem: str, text: str) -> None:
    with pytest.raises(RewardError) as error:
        checked_numbers(rewards, 1)
    assert (error.value.problem, error.value.text) == (problem, text)


def test_a_function_of_the_user_s_gets_what_the_trainer_passes_and_its_arguments() -> None:
    code = "def reward(prompts, completions, level, factor=1, **_):\n"
    code += "    return [factor * one * len(text) for one, text in zip(level, completions)]"
    function = load(code, factor=10)
    assert call(function, ["a", "bb"], level=[1, 2]) == [10.0, 40.0]
    assert function.__name__ == "reward"


def test_coroutines_stay_coroutines() -> None:
    function = load("async def reward(completions, **_):\n    return [len(one) for one in completions]")
    assert inspect.iscoroutinefunction(function.__call__)
    assert asyncio.run(call(function, ["ab"])) == [2.0]
    bad = load("async def reward(completions, **_):\n    return [float('nan')]", factor=1)
    assert inspect.iscoroutinefunction(bad.__call__)
    with pytest.raises(FindingsError, match="R038"):
        asyncio.run(call(bad, ["ab"]))
    ending = load("async def reward(completions, **_):\n    raise SystemExit(3)")
    with pytest.raises(FindingsError, match=r"R038.*SystemExit: 3"):
        asyncio.run(call(ending, ["ab"]))
    assert not inspect.iscoroutinefunction(load("def reward(completions, **_):\n    return []").__call__)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("1 / 0", "raises ZeroDivisionError: division by zero"),
        ("return None", "gives None"),
        ("return [1.0]", "gives 1 reward for 2 completions"),
        ("return [float('nan'), 1.0]", "gives a number that isn't finite"),
        ("raise KeyError('answer')", "raises KeyError: 'answer'"),
        ("return ['x', 1]", "gives a list of int, str"),
        ("raise SystemExit(3)", "ends the process (SystemExit: 3)"),
    ],
)
def test_r038_ends_the_run_with_the_function_and_the_step(
    body: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    function = load(f"def reward(**_):\n    {body}")
    with pytest.raises(FindingsError) as failure:
        call(function, [[{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}]])
    (one,) = failure.value.findings
    assert (one.code, one.severity, one.where) == ("R038", "error", "rewards")
    assert one.what == f"mine.py:reward, called at step 7, {what}."
    raised = what.startswith("raises")
    assert ("lists with one message each" in one.fix) == raised
    assert ("mine.py" in caplog.text) == (raised or "SystemExit" in what)


def test_p018_a_function_that_can_t_be_loaded_where_the_run_trains() -> None:
    with pytest.raises(FindingsError, match=r"P018.*ModuleNotFoundError"):
        load("import nothing_of_this_name")
    with pytest.raises(FindingsError, match=r"P018.*defines no other"):
        load("", "mine.py:other")


def test_one_file_is_run_once_and_again_when_it_changed() -> None:
    path = Path("mine.py").resolve()
    path.write_text("seen = []\ndef one(**_): return seen\ndef two(**_): return seen")
    assert load_own(f"{path}:one")() is load_own(f"{path}:two")()
    before = load_own(f"{path}:one")
    os.utime(path, ns=(1, 1))
    assert load_own(f"{path}:one") is not before


def test_a_file_may_have_dataclasses_neighbours_and_any_name() -> None:
    import json

    Path("neighbour_of_json.py").write_text("value = 3.0")
    Path("json.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom neighbour_of_json import value\n"
        "@dataclass\nclass Case:\n    text: str\ndef reward(**_):\n    return [value]"
    )
    assert load_own(f"{Path('json.py').resolve()}:reward")() == [3.0]
    import json as again

    assert again is json
    assert again.loads("1") == 1


def test_names_of_metrics_are_told_apart() -> None:
    rewards = [
        Reward(name="regex", arguments={"pattern": "a"}),
        Reward(name="/x/mine.py:regex"),
        Reward(model="/runs/judge"),
        Reward(model="owner/judge"),
        Reward(name="numeric"),
    ]
    assert metric_names(rewards) == ["regex", "regex_2", "judge", "judge_2", "numeric"]


def test_reward_models_are_made_by_whoever_can_load_them() -> None:
    asked = []

    def load_model(reward: Reward) -> Any:
        asked.append(reward.model)
        return lambda completions, **_: [0.5 for _ in completions]

    shipped, model = load_rewards([Reward(name="exact_match"), Reward(model="judge")], load_model)
    assert asked == ["judge"]
    assert call(model, ["a"]) == [0.5]
    assert call(shipped, ["a", "b"], reference=["a", "a"], completion_ids=[[1], [2]]) == [1.0, 0.0]


def test_a_shipped_reward_with_wrong_arguments_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="needs pattern"):
        load_rewards([Reward(name="regex")], no_model)


def test_what_a_trainer_passes_can_be_had_without_one() -> None:
    given = outside_trainer()
    given["log_extra"]("a", [1])
    given["log_metric"]("b", 2.0)
    assert given["trainer_state"].global_step == 0
    rows = [{"prompt": "p", "completion": "c", "level": 1}, {"prompt": "q", "completion": "d", "level": 2}]
    assert columns_of(rows) == {"level": [1, 2]}
    assert columns_of([{"prompt": "p"}, *rows]) == {"level": [None, 1, 2]}
    assert columns_of([]) == {}
