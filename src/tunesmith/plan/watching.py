"""What a plan says of the watch over a run: which evaluation chooses the result, and which callbacks it has."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..recipe.guard import watched
from ..recipe.schema import Recipe
from ..records import Finding, Plan
from ..rules import finding
from .choices import Choices
from .settings_checks import interval

_BY_LOSS: Final = "loss: a smooth measure of the held-out rows"
# What TRL 1.16 logs of an evaluation by method and can be compared -> whether more is better.
_METRICS: Final[dict[str, dict[str, bool]]] = {
    "sft": {"loss": False, "mean_token_accuracy": True},
    "clm": {"loss": False, "mean_token_accuracy": True},
    "dpo": {"loss": False, "rewards/accuracies": True, "rewards/margins": True, "rewards/chosen": True},
    "kto": {"loss": False, "rewards/margins": True, "rewards/chosen": True},
    "reward": {"loss": False, "accuracy": True, "margin": True},
    "grpo": {"reward": True, "completions/clipped_ratio": False},
    "rloo": {"reward": True, "completions/clipped_ratio": False},
}


def choose_watch(choices: Choices, recipe: Recipe, *, evaluates: bool) -> None:
    """What the trainer is told where evaluations choose the result."""
    if not (recipe.watch.chooses and evaluates):
        return
    metric = recipe.watch.metric or next(iter(_METRICS[recipe.method]))
    choices.choose("load_best_model_at_end", True, "the result is the checkpoint with the best evaluation")
    reason = _BY_LOSS if metric == "loss" else "what the method raises"
    choices.choose("metric_for_best_model", metric, "set in the recipe" if recipe.watch.metric else reason)
    higher = higher_is_better(recipe.method, metric)
    choices.choose("greater_is_better", bool(higher), "more of it is better" if higher else "less of it is better")


def higher_is_better(method: str, metric: str) -> bool | None:
    """Whether more of a metric is better; None where the method's trainer logs no such metric."""
    if method in ("grpo", "rloo") and metric.startswith("rewards/") and metric.endswith("/mean"):
        return True
    return _METRICS[method].get(metric)


def check_watch(plan: Plan, recipe: Recipe) -> Iterator[Finding]:
    """P065 to P069; P027 for what is asked of the guard or the watch, and this run doesn't have."""
    yield from _callbacks(recipe)
    yield from _idle(plan, recipe)
    watch, method = recipe.watch, recipe.method
    if watch.metric and higher_is_better(method, watch.metric) is None:
        known = list(_METRICS[method])
        near = difflib.get_close_matches(watch.metric, known, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"Take one of {', '.join(known)}, or leave it out."
        yield finding("P066", "watch.metric", metric=watch.metric, method=method, remedy=remedy)
    if not watch.chooses:
        return
    key = "best" if watch.best else "early_stopping"
    if plan.eval is None or plan.training["eval_strategy"] == "no":
        yield finding("P065", f"watch.{key}", key=key)
        return
    if recipe.data.test is None:
        yield finding("P067", f"watch.{key}", key=key, rows=plan.eval.rows)
    yield from _together(plan, key)


def _idle(plan: Plan, recipe: Recipe) -> Iterator[Finding]:
    rules = watched(recipe.method)
    for code in recipe.guard.actions:
        if code not in rules:
            key, reason = f"guard.actions.{code}", f"{recipe.method} has no {code}"
            yield finding("P027", key, keys=key, reason=reason, remedy=f"Leave it out: it has {', '.join(rules)}")
    watch = recipe.watch
    if "samples" in watch.model_fields_set and watch.samples and plan.processes.total > 1:
        key, reason = "watch.samples", "sample answers are written where one process trains"
        yield finding("P027", key, keys=key, reason=reason, remedy="Leave it out, or set `launch: {processes: 1}`")


def _together(plan: Plan, key: str) -> Iterator[Finding]:
    """P068: the trainer can only go back to an evaluation that has its checkpoint (TrainingArguments.__post_init__)."""
    evaluates, saves = plan.training["eval_strategy"], plan.training["save_strategy"]
    every, kept = (interval(plan.training, name, plan.steps) for name in ("eval", "save"))
    if evaluates != saves or (every and kept and kept % every):
        said = (
            f"every {every} steps" if every else f"each {evaluates}",
            f"every {kept} steps" if kept else "never" if saves == "no" else f"each {saves}",
        )
        yield finding("P068", f"watch.{key}", key=key, evaluates=said[0], saves=said[1])


def _callbacks(recipe: Recipe) -> Iterator[Finding]:
    """P069, without running the user's code."""
    for reference in recipe.watch.callbacks:
        file, _, name = reference.rpartition(":")
        if problem := _missing(Path(file), name):
            yield finding("P069", "watch.callbacks", reference=reference, problem=problem)


def _missing(path: Path, name: str) -> str:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except OSError:
        return "there is no such file"
    except (SyntaxError, ValueError) as error:
        return f"the file is no Python: {error}".splitlines()[0]
    return "" if name in _names(tree) else f"the file defines no {name}"


def _names(tree: ast.Module) -> set[str]:
    """What a module's own statements define or import."""
    names: set[Any] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
