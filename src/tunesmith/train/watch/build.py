"""The callbacks that a plan's watch asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from transformers import TrainerCallback

from ...recipe.watch import Watch
from ...records import Finding
from ...rules import finding
from ...track.events import EventLog
from .. import ranks
from ..job import Job
from .best import BestCallback, Choosing
from .own import own_callback
from .samples import SampleCallback, prompts
from .system import SystemCallback

_SCORES: Final = ("reward",)
"""Methods whose model gives numbers, no text."""


def choosing(job: Job) -> Choosing | None:
    """How evaluations choose the result of a plan; None where they don't."""
    training, watch = job.plan.training, _watch(job)
    if not training.get("load_best_model_at_end"):
        return None
    return Choosing(
        metric=training["metric_for_best_model"],
        higher=training["greater_is_better"],
        patience=watch.early_stopping,
        least=watch.least_gain,
    )


def watchers(
    job: Job, log: EventLog, update: Callable[[dict[str, Any]], None], find: Callable[[Finding], None]
) -> list[TrainerCallback]:
    """The callbacks, the user's own at the end.

    Args:
        job: The training.
        log: The run's event log.
        update: Receives the fields of the run record that changed.
        find: Receives what is found.

    Raises:
        UsageError: a callback of the user's can't be used.
    """
    watch = _watch(job)
    made: list[TrainerCallback] = []
    if chosen := choosing(job):
        made.append(BestCallback(chosen, lambda best: update({"best": best})))
    if watch.samples and "eval" in job.rows and job.plan.method not in _SCORES:
        asked = prompts(job.rows["eval"], job.tokenizer, watch.samples)
        stops = job.plan.model.stop_ids
        made.append(
            SampleCallback(
                log,
                asked,
                most=watch.sample_tokens,
                stops=stops,
                failed=lambda error: find(finding("R031", "watch.samples", error=error)),
            )
        )
    if watch.system and ranks.is_main():
        made.append(
            SystemCallback(log, watch.system, failed=lambda error: find(finding("R039", "watch.system", error=error)))
        )
    return [*made, *(own_callback(reference) for reference in watch.callbacks)]


def _watch(job: Job) -> Watch:
    return Watch.model_validate(job.plan.recipe.get("watch", {}))
