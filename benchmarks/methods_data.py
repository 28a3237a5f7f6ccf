"""Rows of every method's layout, made from the built-in model's task."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Final

from tunesmith.demo import task
from tunesmith.demo.task import Split

Row = dict[str, Any]
_PREFACE: Final = "Sure! "


def pairs(split: Split, count: int, seed: int) -> list[Row]:
    """Each ticket beside one with a mistake."""
    random_ = random.Random(f"{split} {seed}")
    return [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": _said(wrong(ticket(row), random_))}
        for row in task.rows(split, count, seed)
    ]


def marked(split: Split, count: int, seed: int) -> list[Row]:
    """A ticket or one with a mistake, marked as such; half of each."""
    return [
        {"prompt": row["prompt"], "completion": row["chosen" if good else "rejected"], "label": good}
        for row, good in zip(pairs(split, count, seed), (number % 2 == 0 for number in range(count)), strict=True)
    ]


def asked(split: Split, count: int, seed: int) -> list[Row]:
    """A message, and the right ticket for the rewards to compare with."""
    return [{"prompt": row["prompt"], "reference": ticket(row)} for row in task.rows(split, count, seed)]


def texts(split: Split, count: int, seed: int) -> list[Row]:
    """Messages with their tickets as running text."""
    rows = task.rows(split, count, seed)
    return [{"text": f"{row['prompt'][0]['content']}\n{ticket(row)}"} for row in rows]


def answered(split: Split, count: int, seed: int) -> list[Row]:
    """Messages and the right tickets."""
    return task.rows(split, count, seed)


def ticket(row: Row) -> str:
    """The right answer of one of the task's rows."""
    return str(row["completion"][0]["content"])


def wrong(right: str, random_: random.Random) -> str:
    """A ticket with one field of another order, or with words before it."""
    fields: dict[str, Any] = json.loads(right)
    changed = random_.choice([*fields, _PREFACE])
    if changed == _PREFACE:
        return _PREFACE + right
    value = fields[changed]
    while value == fields[changed]:
        value = getattr(task.random_order(random_), changed)
    return json.dumps(fields | {changed: value})


def _said(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


ROWS: Final = {
    "sft": answered,
    "clm": texts,
    "dpo": pairs,
    "reward": pairs,
    "kto": marked,
    "grpo": asked,
    "rloo": asked,
}
"""Method -> its rows: of a split, so many, by a seed."""


def write(folder: Path, method: str, count: int, held_out: int, seed: int = 0) -> dict[str, str]:
    """Write training and test rows of a method; gives their paths as a recipe's `data` has them."""
    paths = {}
    splits: tuple[tuple[str, Split, int], ...] = (("train", "train", count), ("test", "test", held_out))
    for name, split, wanted in splits:
        path = folder / f"{method}-{name}.jsonl"
        lines = (json.dumps(row) + "\n" for row in ROWS[method](split, wanted, seed))
        path.write_text("".join(lines), encoding="utf-8")
        paths[name] = str(path)
    return paths
