"""The rules on what single methods ask of a plan: whole groups of answers, both labels, a weight for each loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..records import Finding, Plan
from ..rules import finding
from ..words import counted
from .rl_checks import check_generating
from .rows import GENERATING, Rows


def check_method(plan: Plan, rows: Rows, devices: int) -> Iterator[Finding]:
    """P046, P054 and P080 to P084; `devices` train together."""
    if plan.method in GENERATING:
        yield from _groups(plan.training, len(rows.train), devices)
        yield from _room(plan, rows)
        yield from check_generating(plan)
    elif plan.method == "kto":
        yield from _labels(rows)
    elif plan.method == "dpo":
        yield from _weights(plan.training)


def _groups(training: dict[str, Any], prompts: int, devices: int) -> Iterator[Finding]:
    group = training["num_generations"]
    micro = training["per_device_train_batch_size"] * devices
    each = training.get("steps_per_generation") or training["gradient_accumulation_steps"]
    answers = training.get("generation_batch_size") or micro * each
    evaluated = training["per_device_eval_batch_size"] * devices
    if answers % group:
        yield finding("P081", "training.num_generations", answers=answers, group=group, what="generation batch")
    elif prompts < answers // group:
        yield finding(
            "P080",
            "training rows",
            prompts=counted(prompts, "prompt"),
            need=answers // group,
            answers=answers,
            group=group,
        )
    of_eval = training.get("num_generations_eval") or group
    if training["eval_strategy"] != "no" and evaluated % of_eval:
        yield finding(
            "P081", "training.per_device_eval_batch_size", answers=evaluated, group=of_eval, what="evaluation batch"
        )


def _room(plan: Plan, rows: Rows) -> Iterator[Finding]:
    """Prompts and answers against the model's context."""
    new, longest = plan.training["max_completion_length"], max(rows.token_counts, default=0)
    if plan.model.context and longest + new > plan.model.context:
        yield finding("P084", "training.max_completion_length", new=new, longest=longest, context=plan.model.context)
    if rows.answer_tokens > new:
        yield finding("P085", "training.max_completion_length", new=new, answer=rows.answer_tokens)


def _labels(rows: Rows) -> Iterator[Finding]:
    labels = {bool(row["label"]) for row in rows.train}
    if len(labels) == 1:
        yield finding("P082", "training rows", label="good" if labels.pop() else "bad")


def _weights(training: dict[str, Any]) -> Iterator[Finding]:
    losses, weights = training.get("loss_type") or [], training.get("loss_weights")
    losses = [losses] if isinstance(losses, str) else losses
    if weights is not None and len(weights) != len(losses):
        yield finding("P083", "training.loss_weights", weights=len(weights), losses=len(losses))
