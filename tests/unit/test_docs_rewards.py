"""docs/rewards.md says what the shipped rewards are, and its examples are recipes."""

import re
from pathlib import Path

import pytest
import yaml

from tunesmith.plan.reward_call import _call
from tunesmith.recipe import build_recipe
from tunesmith.recipe.rewards import Reward
from tunesmith.rewards import SHIPPED, load_reward, shipped_class

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_table_has_every_shipped_reward(name: str) -> None:
    kind = shipped_class(name)
    arguments = ", ".join(f"`{field.alias or own}`" for own, field in kind.model_fields.items()) or "none"
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    assert (
        row.replace("`<think>` and `</think>`", "<think> and </think>")
        == f"| `{name}` | {kind.summary()} | {arguments} |"
    )


def test_its_recipes_are_recipes() -> None:
    examples = [one for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) for one in yaml.safe_load_all(text)]
    assert len(examples) == 3
    recipes = [build_recipe(example) for example in examples]
    assert [recipe.method for recipe in recipes] == ["grpo", "reward", "rloo"]
    for reward in (one for recipe in recipes for one in recipe.rewards if one.name in SHIPPED):
        load_reward(reward)


def test_its_function_is_one() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    Path("mine.py").write_text(code)
    completions = [[{"role": "assistant", "content": text}] for text in ("yes, please", "no")]
    reward = Reward(name="mine.py:polite", arguments={"words": ["please"]})
    assert _call(reward, {"prompts": [[], []], "completions": completions}) == [1.0, 0.0]
