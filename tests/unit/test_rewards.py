"""A reward function is called once before the run, as the trainer will call it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import SMALL
from tunesmith.errors import UsageError
from tunesmith.models.reward import no_single_score
from tunesmith.models.source import locate
from tunesmith.plan.rewards import call_rewards, check_rewards, reward_dry_call
from tunesmith.recipe import build_recipe
from tunesmith.recipe.rewards import Reward, read_rewards
from tunesmith.records import Finding

ROWS = [{"prompt": f"{n} + 1 =", "reference": str(n + 1), "level": n} for n in range(9)]
CHATS = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]
GOOD = """
def reward(prompts, completions, reference, **kwargs):
    return [1.0 if text == right else 0.0 for text, right in zip(completions, reference)]
"""


def called(code: str, rows: list[dict[str, Any]] = ROWS, *, seconds: float = 60, **arguments: Any) -> list[Finding]:
    Path("mine.py").write_text(code)
    return reward_dry_call(Reward(name="mine.py:reward", arguments=arguments), rows, seconds=seconds)


def failure(code: str, rows: list[dict[str, Any]] = ROWS, *, seconds: float = 60) -> Finding:
    (one,) = called(code, rows, seconds=seconds)
    assert (one.code, one.severity, one.where) == ("P018", "error", "rewards")
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
    (one,) = reward_dry_call(Reward(name="nowhere.py:reward"), ROWS)
    assert "can't be loaded: FileNotFoundError: there is no Python file nowhere.py" in one.what


def test_arguments_of_the_recipe_reach_the_function() -> None:
    code = "def reward(completions, factor, **kwargs):\n    return [factor * len(text) for text in completions]"
    assert called(code, factor=2) == []
    (one,) = called(code)
    assert "missing a required argument: 'factor'" in one.what
    (one,) = called(code, factor=0)
    assert one.code == "P019"


def test_p018_offers_to_give_an_argument_that_is_missing() -> None:
    for signature in ("completions, words, **kwargs", "completions, *, words, **kwargs"):
        (one,) = called(f"def reward({signature}):\n    return [len(text) for text in completions]")
        assert "`rewards: [{name: mine.py:reward, arguments: {words: ...}}]`" in one.fix
    (one,) = called("def reward(completions):\n    pass")
    assert "arguments:" not in one.fix


def test_objects_and_columns_that_only_some_rows_have_reach_a_function() -> None:
    rows = [{**row, "tests": [{"a": n}, {"b": None}], **({"level": 1} if n else {})} for n, row in enumerate(CHATS)]
    for row in rows[:1]:
        del row["level"]
    code = "def reward(completions, tests, level, **_):\n"
    code += "    assert tests[2] == [{'a': 1}, {'b': None}] and level[:4] == [None, None, 1, 1], level\n"
    code += "    return [len(one[0]['content']) for one in completions]"
    assert called(code, rows) == []


def test_any_of_several_right_answers_is_a_signal() -> None:
    rows = [{"prompt": row["prompt"], "reference": [row["reference"], "other"]} for row in ROWS]
    assert called(GOOD.replace("text == right", "text == right[0]"), rows) == []
    assert called(GOOD.replace("text == right", "text == right[1]"), rows) == []


def test_p018_an_argument_that_is_a_column_too() -> None:
    (one,) = called(GOOD, reference="4")
    assert "the recipe gives reference, and so does the trainer" in one.what


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


def checked(method: str = "grpo", rows: list[dict[str, Any]] = CHATS, **keys: Any) -> list[Finding]:
    recipe = build_recipe({"model": "m", "data": {"train": "a"}, "method": method, **keys}, folder=Path.cwd())
    return check_rewards(recipe) or call_rewards(recipe, rows)


def test_the_functions_that_a_recipe_names_are_called_on_its_rows() -> None:
    code = "def {}(completions, reference, level, **_):\n    "
    code += "return [float(text[0]['content'] == right) for text, right in zip(completions, reference)]"
    Path("mine.py").write_text(f"{code.format('good')}\ndef bad(completions):\n    pass\n")
    assert checked(rewards="mine.py:good") == []
    (one,) = checked("rloo", rewards=["mine.py:good", "mine.py:bad"])
    assert (one.code, "takes other arguments" in one.what) == ("P018", True)


def test_no_code_runs_that_the_recipe_s_method_does_not_call() -> None:
    Path("mine.py").write_text("raise SystemError('ran')")
    (one,) = checked("sft", rewards="mine.py:reward")
    assert (one.code, one.what) == ("P027", "rewards changes nothing: sft takes no reward function.")
    assert checked("sft") == []


def test_p050_a_method_that_learns_from_rewards_needs_one_that_counts() -> None:
    (one,) = checked()
    assert (one.code, one.severity) == ("P050", "error")
    assert one.what == "grpo learns from rewards, and the recipe names none."
    assert "`rewards: [exact_match]`" in one.fix
    assert "`--rewards '[exact_match]'`" in one.fix
    silent = {"name": "exact_match", "weight": 0}
    (one,) = checked("rloo", rewards=silent)
    assert "every one of them has the weight 0" in one.what
    assert checked(rewards=[silent, "numeric"]) == []


def test_shipped_rewards_that_suit_the_rows_give_nothing() -> None:
    form = [
        {"name": "regex", "arguments": {"pattern": "[0-9]+"}},
        {"name": "length", "arguments": {"max": 9}, "weight": 0.1},
        {"name": "exact_match", "arguments": {"answer": "#### (.*)"}},
        "think_format",
        "repetition",
    ]
    assert checked(rewards=["exact_match", "numeric", "math", *form]) == []


@pytest.mark.parametrize(
    ("reward", "what", "fix"),
    [
        ("exact_mach", "There is no reward exact_mach.", "Did you mean exact_match?"),
        ({"name": "regex"}, "Reward regex needs pattern.", "{pattern: ...}"),
        ({"name": "numeric", "arguments": {"relativ": 1}}, "takes no relativ", "Did you mean relative?"),
    ],
)
def test_p051_rewards_that_can_t_be_made(reward: object, what: str, fix: str) -> None:
    (one,) = checked(rewards=[reward])
    assert (one.code, one.severity) == ("P051", "error")
    assert what in one.what
    assert fix in one.fix


def test_p052_a_reward_whose_column_is_not_there() -> None:
    rows = [{"prompt": row["prompt"]} for row in CHATS]
    none = [{**row, "reference": None} for row in rows]
    assert [found.code for found in checked(rewards="exact_match", rows=none)] == ["P052"]
    (one,) = checked(rewards=["exact_match", "think_format"], rows=rows)
    assert (one.code, one.severity) == ("P052", "error")
    assert "the column reference" in one.what
    assert "mapping: {reference: ...}" in one.fix


def test_p018_and_p019_of_shipped_rewards() -> None:
    (one,) = checked(rewards="json_fields")
    assert (one.code, "gives None for every completion" in one.what) == ("P018", True)
    apples = [{**row, "reference": f"{n} apples each"} for n, row in enumerate(CHATS)]
    assert checked(rewards="numeric", rows=apples) == []
    elsewhere = {"name": "json_schema", "arguments": {"schema": {"$ref": "http://localhost:1/x"}}}
    rows = [{**row, "reference": "{}"} for row in CHATS]
    (one,) = checked(rewards=elsewhere, rows=rows)
    assert (one.code, "raises" in one.what) == ("P018", True)
    blank = [{**row, "reference": " "} for row in CHATS]
    (one,) = checked(rewards="exact_match", rows=blank)
    assert one.code == "P019"


def test_p053_a_model_that_writes_is_no_reward_model() -> None:
    (one,) = checked(rewards={"model": str(SMALL)})
    assert (one.code, one.severity) == ("P053", "error")
    assert "it is a Qwen3ForCausalLM, whose score would be random" in one.what


def classifier(folder: Path, labels: int = 1, *, template: bool = True) -> str:
    """A folder that looks like a classifier's, but for its weights."""
    folder.mkdir()
    for file in SMALL.iterdir():
        if file.suffix in (".json", ".jinja", ".safetensors"):
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["Qwen3ForSequenceClassification"], "id2label": {n: str(n) for n in range(labels)}}
    (folder / "config.json").write_text(json.dumps(config))
    if not template:
        (folder / "chat_template.jinja").unlink()
    return str(folder)


def test_p053_a_classifier_of_several_classes_or_without_a_template(tmp_path: Path) -> None:
    assert checked(rewards={"model": classifier(tmp_path / "one")}) == []
    (one,) = checked(rewards={"model": classifier(tmp_path / "three", 3)})
    assert "it tells 3 classes apart" in one.what
    (one,) = checked(rewards={"model": classifier(tmp_path / "bare", template=False)})
    assert (one.code, "no chat template" in one.what) == ("P053", True)
    assert checked(rewards={"model": str(tmp_path / "bare")}, rows=ROWS) == []


def test_a_classifier_that_names_no_classes_has_two(tmp_path: Path) -> None:
    folder = Path(classifier(tmp_path / "two"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "id2label"}))
    assert no_single_score(locate(str(folder))) == "it tells 2 classes apart"


@pytest.mark.parametrize(
    "written",
    [
        "mine.py",
        "mine.py:",
        "mine.py:3x",
        ":reward",
        ["a.py:f", 3],
        "a.txt:f",
        {},
        {"name": "numeric", "model": "m"},
        {"model": "m", "arguments": {"a": 1}},
        {"name": "numeric", "revision": "main"},
        {"name": "numeric", "weight": float("nan")},
        {"name": "numeric", "wait": 1},
    ],
)
def test_what_is_no_reward(written: object) -> None:
    with pytest.raises(UsageError, match="rewards"):
        checked(rewards=written)


def test_a_reward_s_file_and_model_are_found_from_the_recipe_s_folder() -> None:
    Path("near").mkdir()
    here = Path.cwd().resolve()
    written = ["deep/mine.py:f", {"model": "near"}, {"model": "owner/name"}, "numeric", {"name": "math", "weight": 2.0}]
    recipe = build_recipe({"model": "m", "data": {"train": "a"}, "rewards": written}, folder=here)
    spelt = [f"{here}/deep/mine.py:f", f"{here}/near", "owner/name", "numeric", "math"]
    assert [reward.spelt for reward in recipe.rewards] == spelt
    assert [reward.weight for reward in recipe.rewards] == [1.0] * 4 + [2.0]
    assert read_rewards(recipe.model_dump()["rewards"]) == recipe.rewards
