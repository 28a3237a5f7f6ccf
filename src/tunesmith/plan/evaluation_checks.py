"""What the evaluation after the training will need: told before it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import TunesmithError
from ..recipe import Recipe
from ..recipe.evaluation import Harness
from ..records import Finding
from ..rules import finding
from .harness import find_tasks
from .remote import is_remote


def check_evaluation(recipe: Recipe) -> Iterator[Finding]:
    """E054: servers' keys, lm-eval, its tasks and their folder."""
    if recipe.evaluation.harness:
        yield from _check_harness(recipe.evaluation.harness, recipe)
    if is_remote(recipe):
        return
    for name in ("endpoint", "base_endpoint"):
        endpoint = getattr(recipe.evaluation, name)
        if endpoint and endpoint.key and not os.environ.get(endpoint.key):
            problem = f"the environment variable {endpoint.key} isn't set"
            remedy = f"Set it to the server's key, or leave `key` out of `{name}`."
            yield finding("E054", f"evaluation.{name}.key", problem=problem, remedy=remedy)


def _check_harness(harness: Harness, recipe: Recipe) -> Iterator[Finding]:
    if recipe.method == "reward":
        problem = "a reward model writes no answers and has no likelihoods, which lm-eval's tasks ask for"
        yield finding("E054", "evaluation.harness", problem=problem, remedy="Leave `harness` out.")
    elif harness.path and not Path(harness.path).is_dir():
        remedy = "Name the folder that holds the YAML files of your tasks."
        yield finding("E054", "evaluation.harness.path", problem=f"there is no folder {harness.path}", remedy=remedy)
    elif not is_remote(recipe):
        try:
            find_tasks(harness)
        except TunesmithError as error:
            yield finding("E054", "evaluation.harness", problem=error.what.rstrip("."), remedy=error.fix)
