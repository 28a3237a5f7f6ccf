"""What an evaluation will need is told in the plan: E054."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import write_tasks
from tests.support.plans import codes, make_plan, make_recipe
from tunesmith.plan.evaluation_checks import check_evaluation
from tunesmith.recipe import Recipe
from tunesmith.recipe.evaluation import Evaluation


def recipe(method: str = "sft", **evaluation: Any) -> Recipe:
    return Recipe.model_validate(
        {"model": "builtin:small", "method": method, "data": {"train": "rows.jsonl"}, "evaluation": evaluation}
    )


def said(of: Recipe) -> list[str]:
    found = list(check_evaluation(of))
    assert {(one.code, one.severity) for one in found} <= {("E054", "error")}
    return [one.what for one in found]


@pytest.mark.parametrize("name", ["endpoint", "base_endpoint"])
def test_a_key_that_is_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = {"url": "http://127.0.0.1:1/v1", "model": "m", "key": "SOME_KEY"}
    monkeypatch.delenv("SOME_KEY", raising=False)
    assert said(recipe(**{name: server})) == ["the environment variable SOME_KEY isn't set."]
    monkeypatch.setenv("SOME_KEY", "")
    assert said(recipe(**{name: server}))
    monkeypatch.setenv("SOME_KEY", "secret")
    assert said(recipe(**{name: server})) == []
    assert said(recipe(**{name: {**server, "key": None}})) == []


def test_tasks_of_lm_eval_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = str(write_tasks(tmp_path / "own"))
    assert said(recipe(harness={"tasks": ["colours", "both"], "path": own})) == []
    assert said(recipe(harness={"tasks": ["colours"], "path": f"{own}/gone"})) == [f"there is no folder {own}/gone."]
    assert "writes no answers" in said(recipe("reward", harness={"tasks": ["colours"], "path": own}))[0]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert said(recipe(harness={"tasks": ["colours"], "path": own})) == ["lm-eval isn't installed."]


@pytest.mark.slow
def test_a_misspelt_task_is_named_with_the_nearest(tmp_path: Path) -> None:
    own = str(write_tasks(tmp_path / "own"))
    (found,) = check_evaluation(recipe(harness={"tasks": ["colour"], "path": own}))
    assert found.what == "There is no task colour."
    assert found.fix == "Did you mean colours?"
    assert said(recipe(harness={"tasks": ["hellaswag", "colours"], "path": own})) == []


def test_a_plan_is_held_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    server = {"url": "http://127.0.0.1:1/v1", "model": "m", "key": "SOME_KEY"}
    assert "E054" in codes(make_plan(make_recipe(evaluation={"endpoint": server})))
    assert "E054" not in codes(make_plan(make_recipe()))


def test_paths_of_an_evaluation_count_from_the_recipes_folder() -> None:
    Path("judge").mkdir()
    talks = {"personas": "people.jsonl", "simulator": "builtin:small", "judge": "judge"}
    made: Evaluation = make_recipe(
        evaluation={"harness": {"tasks": ["a"], "path": "own"}, "conversations": talks, "scores": ["score.py:right"]}
    ).evaluation
    here = Path.cwd().resolve()
    assert made.harness is not None
    assert made.conversations is not None
    assert made.harness.path == str(here / "own")
    assert (made.conversations.personas, made.conversations.simulator, made.conversations.judge) == (
        str(here / "people.jsonl"),
        "builtin:small",
        str(here / "judge"),
    )
    assert made.scores[0].name == str(here / "score.py:right")
