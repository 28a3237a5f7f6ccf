"""docs/evaluate.md: its recipes are recipes, and the rules that it names exist."""

import re
from pathlib import Path

import yaml

from tests.support.receipts import compared, make_full_evaluation
from tunesmith.recipe import build_recipe
from tunesmith.records import units
from tunesmith.rules import RULES

PAGE = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text()


def test_its_recipes_are_recipes(tmp_path: Path) -> None:
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    assert len(examples) == 4
    for example in examples:
        build_recipe({"model": "builtin:small", "data": {"train": "x.jsonl"}} | example, folder=tmp_path)


def test_its_rules_exist() -> None:
    named = set(re.findall(r"\bE\d{3}\b", PAGE))
    assert len(named) > 5
    assert named <= RULES.keys()


def test_every_verdict_is_explained() -> None:
    shown = {units.outcome(one) for one in make_full_evaluation().comparisons}
    shown |= {units.outcome(compared("loss", 1, 2, None))}
    column = re.findall(r"^ +\| ([a-z, ]+) \|", PAGE, re.MULTILINE)
    assert shown <= {word for cell in column for word in cell.split(", ")}
