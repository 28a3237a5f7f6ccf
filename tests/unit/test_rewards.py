"""A reward function is called once before the run, as the trainer will call it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import UsageError
from tunesmith.plan.rewards import check_rewards, reward_dry_call
from tunesmith.recipe import build_recipe
from tunesmith.records import Finding

ROWS = [{"prompt": f"{n} + 1 =", "reference": str(n + 1), "level": n} for n in range(9)]
CHATS = [{"prompt": [{"role": "user", "content": row["prompt"]}], "reference": row["reference"]} for row in ROWS]
GOOD = """
def reward(prompts, completions, reference, **kwargs):
    return [1.0 if text == right else 0.0 for text, right in zip(completions, reference)]
"""


def called(code: str, rows: list[dict[str, Any]] = ROWS, *, seconds: float = 60) -> list[Finding]:
    Path("mine.py").write_text(code)
    return reward_dry_call("mine.py:reward", rows, seconds=seconds)


def failure(code: str, rows: list[dict[str, Any]] = ROWS, *, seconds: float = 60) -> Finding:
    (one,) = called(code, rows, seconds=seconds)
    assert (one.code, one.severity, one.where) == ("P018", "error", "reward")
    assert one.what.startswith("mine.py:reward, called as the trainer will call it, ")
    return one


@pytest.mark.parametrize(
    "code",
    [
        GOOD,
        GOOD.replace("def", "async def"),
        "def reward(completions, completion_ids, **kwargs):\n    return [float(len(ids)) for ids in completion_ids]",
        "def reward(completions, **kwargs):\n    return [None if not text else True for text in completions]",
        "import numpy\ndef reward(completions, **kwargs):\n    return numpy.array([len(text) for text in completions])",
        "print('hello')\ndef reward(completions, level, log_extra, log_metric, **kwargs):\n"
        "    log_extra('level', level); log_metric('x', 1.0); print('noise')\n"
        "    return [len(text) for text in completions]",
    ],
)
def test_functions_that_work_give_nothing(code: str) -> None:
    assert called(code) == []


def test_conversations_are_passed_as_the_trainer_passes_them() -> None:
    code = "def reward(prompts, completions, reference, **kwargs):\n    assert prompts[0][0]['role'] == 'user'\n"
    code += "    return [float(text[0]['content'] == right) for text, right in zip(completions, reference)]"
    assert called(code, CHATS) == []
    (one,) = called("def reward(completions, **_):\n    return [float(text.strip()) for text in completions]", CHATS)
    assert "raises AttributeError: 'list' object has no attribute 'strip'" in one.what
    assert one.fix.startswith("Completions are lists with one message each")


def test_the_trainer_s_state_is_the_real_one() -> None:
    code = "def reward(completions, trainer_state, **kwargs):\n"
    code += "    return [len(text) + trainer_state.global_step for text in completions]"
    assert called(code) == []


KW = "def reward(**kwargs):\n    "
EACH = "def reward(completions, **kwargs):\n    return "


@pytest.mark.parametrize(
    ("code", "what", "fix"),
    [
        ("def reward(completions, prompts):\n    pass", "takes other arguments: TypeError", "`def reward(prompts"),
        ("def reward(answer, **kwargs):\n    pass", "missing a required argument: 'answer'", "every other column"),
        (KW + "return kwargs['solution']", "raises KeyError: 'solution'", "Completions are texts"),
        (KW + "pass", "gives None.", "Return a list with one number"),
        (KW + "return 1.0", "gives a float.", "Return a list with one number"),
        (EACH + "['x' for _ in completions]", "gives a list of str.", "Return a list with one number"),
        (EACH + "[1.0]", "gives 1 reward for 8 completions.", "Return a list with one number"),
        (EACH + "[float('nan') for _ in completions]", "gives a number that isn't finite.", "Return a finite number"),
        (EACH + "[float('-inf') for _ in completions]", "gives a number that isn't finite.", "Return a finite number"),
        (EACH + "[None for _ in completions]", "gives None for every completion.", "no opinion"),
        ("def other(**kwargs):\n    pass", "isn't there: the file defines no reward.", "FILE.py:NAME"),
        ("reward = 3", "isn't there: the file defines no reward.", "FILE.py:NAME"),
        ("import nothing_of_this_name", "can't be loaded: ModuleNotFoundError", "Run `python mine.py`"),
        ("def reward(:\n", "can't be loaded: SyntaxError", "Run `python mine.py`"),
        ("import sys; sys.exit(3)", "can't be loaded: SystemExit: 3", "Run `python mine.py`"),
        ("import os\n" + KW + "os._exit(7)", "ends the process (exit code 7)", "os._exit"),
    ],
)
def test_p018_functions_that_fail(code: str, what: str, fix: str) -> None:
    one = failure(code)
    assert what in one.what
    assert fix in one.fix


def test_p018_a_function_that_never_ends() -> None:
    assert "doesn't end within 2 s" in failure("def reward(**kwargs):\n    while True: pass", seconds=2).what


def test_p018_a_file_that_is_not_there() -> None:
    (one,) = reward_dry_call("nowhere.py:reward", ROWS)
    assert "can't be loaded: FileNotFoundError: there is no Python file nowhere.py" in one.what
    (one,) = reward_dry_call("reward", ROWS)
    assert one.code == "P018"


def test_p019_rewards_that_tell_nothing() -> None:
    (one,) = called("def reward(completions, **kwargs):\n    return [0.5 for _ in completions]")
    assert (one.code, one.severity) == ("P019", "warning")
    assert "gives 0.5 to every answer" in one.what


def test_the_file_may_import_its_neighbours() -> None:
    Path("helper.py").write_text("def length(text):\n    return len(text)")
    assert (
        called("from helper import length\ndef reward(completions, **_):\n    return list(map(length, completions))")
        == []
    )


def checked(method: str = "grpo", **keys: Any) -> list[Finding]:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    data = {"train": "rows.jsonl", "mapping": {"prompt": "prompt", "reference": "reference"}}
    recipe = build_recipe({"model": "m", "data": data, "method": method, **keys}, folder=Path.cwd())
    return check_rewards(recipe, conversational=True)


def test_the_functions_that_a_recipe_names_are_called_on_its_rows() -> None:
    code = "def {}(completions, reference, **_):\n    "
    code += "return [float(text[0]['content'] == right) for text, right in zip(completions, reference)]"
    Path("mine.py").write_text(f"{code.format('good')}\ndef bad(completions):\n    pass\n")
    assert checked(rewards="mine.py:good") == []
    (one,) = checked("rloo", rewards=["mine.py:good", "mine.py:bad"])
    assert (one.code, "takes other arguments" in one.what) == ("P018", True)
    assert checked() == []


def test_no_code_runs_that_the_recipe_s_method_does_not_call() -> None:
    Path("mine.py").write_text("raise SystemError('ran')")
    (one,) = checked("sft", rewards="mine.py:reward")
    assert (one.code, one.what) == ("P027", "rewards changes nothing: sft takes no reward function.")
    assert checked("sft") == []


@pytest.mark.parametrize(
    "written", ["reward", "mine.py", "mine.py:", "mine.py:3x", ":reward", ["a.py:f", 3], "a.txt:f"]
)
def test_what_is_no_reward_function(written: object) -> None:
    with pytest.raises(UsageError, match="rewards can't be"):
        checked(rewards=written)


def test_a_reward_file_is_found_from_the_recipe_s_folder() -> None:
    recipe = build_recipe({"model": "m", "data": {"train": "a"}, "rewards": "deep/mine.py:f"}, folder=Path.cwd())
    assert recipe.rewards == [f"{Path.cwd().resolve()}/deep/mine.py:f"]
