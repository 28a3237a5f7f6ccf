"""Training on rows of the fast path is training on TRL's own: every loss, and every weight at the end, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import make_plan, write_split
from tunesmith.data.fast import FastResult
from tunesmith.demo import task
from tunesmith.records import Plan
from tunesmith.train.job import Job
from tunesmith.train.methods import build_trainer

pytestmark = pytest.mark.slow

STEPS = 5
ARGUMENTS = {
    "seed": 42,
    "max_steps": STEPS,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 3,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "max_length": 256,
}


def asked(count: int) -> list[dict[str, Any]]:
    """Rows of the demo's task as prompt and completion."""
    return [
        {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} if "messages" in row else row
        for row in task.rows("train", count)
    ]


PAIRS = asked(48)
CHATS = [{"messages": [*one["prompt"], *one["completion"], *two["prompt"], *two["completion"]]}
         for one, two in zip(PAIRS[::2], PAIRS[1::2], strict=True)]  # fmt: skip
TEXTS = [{"text": row["completion"][0]["content"]} for row in PAIRS]


def plan_of(folder: Path, rows: list[dict[str, Any]], training: dict[str, Any]) -> Plan:
    recipe = {"model": "builtin:small", "method": "sft", "data": {"train": "rows.jsonl"}, "chat_template": None}
    held_out = len(rows) // 4
    return make_plan(
        folder,
        rows,
        recipe=recipe,
        training={**ARGUMENTS, **training},
        train=write_split(folder, "train", rows[held_out:]),
        eval=write_split(folder, "eval", rows[:held_out]),
    )


@pytest.fixture(autouse=True)
def few_rows_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.train.methods.sft.WORTH", 0)


def trained(
    plan: Plan, folder: Path, *, fast: bool
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, FastResult]]:
    """What was logged but for times, the weights at the end, and what the fast path said."""
    told: dict[str, FastResult] = {}
    trainer = build_trainer(Job(plan, folder, fast=fast, report=told.update))
    trainer.train()
    timeless = [
        {name: value for name, value in entry.items() if "runtime" not in name and "per_second" not in name}
        for entry in trainer.state.log_history
    ]
    return timeless, trainer.model.state_dict(), told


@pytest.mark.parametrize(
    ("rows", "training"),
    [
        (PAIRS, {}),
        (PAIRS, {"shuffle_dataset": True, "max_length": 100}),
        (PAIRS, {"packing": True}),
        (PAIRS, {"packing": True, "eval_packing": False}),
        (CHATS, {"assistant_only_loss": True}),
        (CHATS, {"assistant_only_loss": True, "packing": True}),
        (TEXTS, {}),
    ],
)
def test_losses_and_weights_are_the_same(rows: list[dict[str, Any]], training: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_of(tmp_path, rows, training)
    logged, weights, told = trained(plan, tmp_path, fast=True)
    assert [result.reason for result in told.values()] == [None, None]
    theirs, their_weights, nothing = trained(plan, tmp_path, fast=False)
    assert nothing == {}
    assert logged == theirs
    assert [entry["loss"] for entry in logged if "loss" in entry] != []
    assert sum("eval_loss" in entry for entry in logged) > 0
    assert all((weights[name] == their_weights[name]).all() for name in their_weights)


def test_rows_that_the_fast_path_refuses_are_trained_by_trl(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, PAIRS, {"eos_token": "<|im_end|>"})
    logged, _, told = trained(plan, tmp_path, fast=True)
    assert [result.reason for result in told.values()] == ["eos_token is set"] * 2
    assert logged == trained(plan, tmp_path, fast=False)[0]


def test_few_rows_are_prepared_by_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, PAIRS, {})
    monkeypatch.setattr("tunesmith.train.methods.sft.WORTH", plan.train.rows + (plan.eval.rows if plan.eval else 0) + 1)
    logged, _, told = trained(plan, tmp_path, fast=True)
    assert told == {}
    assert sum("loss" in entry for entry in logged) == STEPS
