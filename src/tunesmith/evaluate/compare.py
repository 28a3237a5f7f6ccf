"""Evaluate a run: both models on the same rows, compared metric by metric."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UsageError
from ..models.load import bare_is_base, is_adapter, load_base, load_tokenizer, load_tuned
from ..progress import Progress, silent
from ..recipe.schema import Evaluation
from ..records import EvalReport, Plan
from . import findings
from .measures import Given, Prepared, prepare
from .outcome import Arm, Outcome, first_changes
from .rows import held_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Result = TypeVar("Result")


def evaluate(folder: Path, settings: Evaluation, *, progress: Progress = silent) -> EvalReport:
    """Compare the model trained in a run folder with its base on the same held-out rows, and save the report there.

    Args:
        folder: The run folder; model/ in it is the tuned model or adapter.
        settings: Which metrics, on how many rows.
        progress: Told of each batch, for both models and each measure.

    Raises:
        UsageError: no trained model, no held-out rows, or a task that the run's method doesn't have.
        FindingsError: the held-out rows changed since the plan (R003).
    """
    began = time.monotonic()
    plan = Plan.load(folder)
    result = _result(folder)
    split, rows = held_out(folder, plan, settings.rows)
    prepared = prepare(Given(rows, split.path, plan, load_tokenizer(result), settings, device()))

    def measure(arm: Arm, model: PreTrainedModel) -> list[Any]:
        return [one.take(arm, model, progress) for one in prepared.measures]

    base, tuned = _both(plan, result, measure)
    taken = zip(prepared.measures, base, tuned, strict=True)
    outcomes = [one.compare(before, after) for one, before, after in taken]
    report = EvalReport(rows=len(rows), split=split.path, comparisons=[], seconds=time.monotonic() - began)
    report = _filled(report, plan.method, prepared, outcomes)
    report.save(folder)
    return report


def _filled(report: EvalReport, method: str, prepared: Prepared, outcomes: Sequence[Outcome]) -> EvalReport:
    """The report with what the measures say, and the verdict on it."""
    comparisons = [comparison for outcome in outcomes for comparison in outcome.comparisons]
    changed = next((outcome.changed for outcome in outcomes if outcome.changed), [])
    stops = next((outcome.stop_rates for outcome in outcomes if outcome.stop_rates), (None, None))
    report = report.model_copy(
        update={
            "comparisons": comparisons,
            "primary": findings.primary(method, comparisons, prepared.answer_tokens),
            "fixed": sum(row.change == "fixed" for row in changed),
            "broken": sum(row.change == "broken" for row in changed),
            "changed": first_changes(changed),
            "stop_rate_base": stops[0],
            "stop_rate_tuned": stops[1],
            "max_new_tokens": prepared.answers.max_new_tokens if prepared.answers else None,
        }
    )
    found = [found for outcome in outcomes for found in outcome.findings]
    return report.model_copy(update={"findings": [*found, *findings.judge(report), *prepared.findings]})


def _result(folder: Path) -> Path:
    result = folder / "model"
    if not result.is_dir():
        raise UsageError(
            f"{folder} has no trained model.",
            why="Its training hasn't ended, so there is nothing to compare with the base model.",
            fix=f"Finish it first: `tunesmith resume {folder}`.",
        )
    return result


def _both(plan: Plan, result: Path, measure: Callable[[Arm, PreTrainedModel], Result]) -> tuple[Result, Result]:
    """Measure base and tuned; an adapter needs one load, whole models are in memory one after the other.

    Both libraries load models in evaluation mode, without dropout.
    """
    from transformers import set_seed

    here = device()
    set_seed(plan.training.get("seed", 0))  # a base without a score's head gets a random one
    kwargs = {"head": plan.head, **plan.model_kwargs}
    if is_adapter(result) and bare_is_base(plan.model):
        model = load_tuned(plan.model, result, **kwargs).to(here)
        with model.disable_adapter():
            base = measure("base", model)
        return base, measure("tuned", model)
    base = measure("base", load_base(plan.model, **kwargs).to(here))
    return base, measure("tuned", load_tuned(plan.model, result, **kwargs).to(here))


def device() -> str:
    """Where models are evaluated."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
