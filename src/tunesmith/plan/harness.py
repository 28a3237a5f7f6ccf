"""The tasks of lm-evaluation-harness that a recipe names: found, not loaded."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import EnvironmentLacksError, UsageError
from ..recipe.evaluation import Harness

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


def find_tasks(harness: Harness) -> TaskManager:
    """What knows the tasks; of lm-eval's own only where the recipe's folder doesn't have all, since they take seconds.

    Raises:
        EnvironmentLacksError: lm-eval isn't installed.
        UsageError: there is no such task.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise EnvironmentLacksError(
            "lm-eval isn't installed.",
            why="The recipe asks for tasks of lm-evaluation-harness.",
            fix="Run `pip install 'tunesmith[harness]'`.",
        )
    with quiet():
        from lm_eval.tasks import TaskManager

        def missing(manager: TaskManager) -> list[str]:
            return [name for name in harness.tasks if name not in manager.task_index]

        manager = TaskManager(include_path=harness.path, include_defaults=harness.path is None)
        if missing(manager) and harness.path:
            manager = TaskManager(include_path=harness.path)
    if unknown := missing(manager):
        raise _unknown(unknown[0], manager.all_tasks, harness.path)
    return manager


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without lm-eval's and the data sets' words; what they mean is told as findings and progress."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _unknown(name: str, known: Sequence[str], path: str | None) -> UsageError:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    where = f"Neither lm-eval nor {path} has a task, group or tag of that name." if path else "lm-eval has none."
    fix = "`lm-eval ls tasks` lists its own; `evaluation: {harness: {path: FOLDER}}` names a folder with yours."
    return UsageError(f"There is no task {name}.", why=where, fix=f"Did you mean {near[0]}?" if near else fix)
