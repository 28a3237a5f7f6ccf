"""Rows of the demo's task for every method, and recipes over them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.plans import write_rows
from tunesmith.demo import task
from tunesmith.recipe import Recipe, build_recipe

METHODS = ("sft", "clm", "dpo", "kto", "reward", "grpo", "rloo")


def method_rows(method: str, count: int) -> list[dict[str, Any]]:
    """Rows of the task in the layout of a method; a wrong answer is the next row's right one."""
    rows = list(task.rows("train", count))
    wrong = [*rows[1:], rows[0]]
    return [
        _row(method, index, row, other["completion"])
        for index, (row, other) in enumerate(zip(rows, wrong, strict=True))
    ]


def _row(method: str, index: int, row: dict[str, Any], wrong: list[dict[str, Any]]) -> dict[str, Any]:
    prompt, right = row["prompt"], row["completion"]
    if method in ("dpo", "reward"):
        return {"prompt": prompt, "chosen": right, "rejected": wrong}
    if method == "kto":
        good = index % 2 == 0
        return {"prompt": prompt, "completion": right if good else wrong, "label": good}
    if method in ("grpo", "rloo"):
        return {"prompt": prompt, "reference": right[0]["content"]}
    return {"text": f"{prompt[0]['content']}\n{right[0]['content']}"} if method == "clm" else row


REWARD = """
def closeness(completions, reference, **kwargs):
    texts = [completion[0]["content"] for completion in completions]
    return [sum(a == b for a, b in zip(text, right)) / len(right) for text, right in zip(texts, reference)]
"""


def method_recipe(method: str, folder: Path, *, rows: Iterable[dict[str, Any]] | int = 96, **keys: Any) -> Recipe:
    """A recipe of the built-in model for a method, with its rows (and a reward function) written into `folder`."""
    made = method_rows(method, rows) if isinstance(rows, int) else list(rows)
    train = write_rows(folder / f"{method}.jsonl", made)
    values: dict[str, Any] = {"model": "builtin:small", "method": method, "data": {"train": train, "eval": 0.1}}
    if method in ("grpo", "rloo"):
        (folder / "rewards.py").write_text(REWARD)
        values["rewards"] = [f"{folder / 'rewards.py'}:closeness"]
    training = {"report_to": "none", **keys.pop("training", {})}
    return build_recipe({**values, "training": training, **keys}, folder=folder)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
