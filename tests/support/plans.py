"""Recipes, rows and plans of the built-in model, for tests of the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.runs import SMALL
from tunesmith.models.facts import model_facts
from tunesmith.models.light import LightTokenizer
from tunesmith.models.source import locate
from tunesmith.plan.resolve import resolve
from tunesmith.plan.rows import Rows, gather_rows
from tunesmith.recipe import Recipe, build_recipe
from tunesmith.records import Hardware, ModelFacts, Plan

CPU = Hardware(device="cpu", name="cpu", count=1, memory=8 << 30, cores=2, bf16=False)
GPU = Hardware(device="cuda", name="NVIDIA H200", count=1, memory=140 << 30, cores=16, bf16=True)


def chat_rows(count: int, *, words: int = 5) -> list[dict[str, Any]]:
    """Chats whose prompts all differ."""
    return [
        {"prompt": [{"role": "user", "content": f"order {n} " + "x " * words}],
         "completion": [{"role": "assistant", "content": f"lamp {n}"}]}
        for n in range(count)
    ]  # fmt: skip


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write rows as JSON Lines; returns the path as a recipe names it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make_recipe(rows: list[dict[str, Any]] | None = None, *, data: dict[str, Any] | None = None, **keys: Any) -> Recipe:
    """A recipe over `rows`, written into the working folder."""
    train = write_rows(Path("train.jsonl"), chat_rows(240) if rows is None else rows)
    return build_recipe({"model": "builtin:small", "data": {"train": train, **(data or {})}, **keys}, folder=Path.cwd())


def rows_of(recipe: Recipe) -> Rows:
    """The recipe's rows."""
    context = model_facts(locate("builtin:small")).context
    return gather_rows(recipe, LightTokenizer(SMALL, recipe.chat_template), context)


def make_plan(recipe: Recipe, hardware: Hardware = CPU, model: ModelFacts | None = None) -> Plan:
    """The plan of a recipe, on the built-in model unless another is given."""
    return resolve(recipe, rows_of(recipe), model or model_facts(locate("builtin:small")), hardware, run="r1").plan


def codes(plan: Plan) -> list[str]:
    """Codes of the plan's findings."""
    return [found.code for found in plan.findings]
