"""What an evaluation is made of: the run's own task first, then whatever else is measured of both models."""

from __future__ import annotations

from ..progress import Progress, silent
from .conversations import conversations
from .harness import harness_tasks
from .measures import Given, prepare
from .outcome import Suite
from .regression import regression

__all__ = ["Suite", "suites"]


def suites(given: Given, progress: Progress = silent) -> list[Suite]:
    """The suites of an evaluation; the task's comes first. `progress` hears of what is asked before the models are.

    Raises:
        UsageError, EnvironmentLacksError, FindingsError: what the settings ask for can't be measured.
    """
    task = prepare(given)
    limit = task.answers.max_new_tokens if task.answers else None
    success = given.settings.success
    named = [*([success.metric] if success and success.metric else []), *task.named]
    return [
        Suite("task", task.measures, task.findings, task.answer_tokens, limit, named),
        *regression(given),
        *harness(given),
        *conversations(given, progress),
    ]


def harness(given: Given) -> list[Suite]:
    """Tasks of lm-eval, where the recipe names some."""
    if given.settings.harness is None:
        return []
    has_template = given.tokenizer.chat_template is not None
    tasks = harness_tasks(given.settings.harness, has_template=has_template, batch_size=given.settings.batch_size)
    return [Suite("harness", [tasks])]
