"""What a trainer would pass to a reward, where there is none: before a run, and in the evaluation."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final

_NOT_PASSED: Final = ("prompt", "completion", "completion_ids")
"""Columns that GRPOTrainer doesn't hand on under their own names (TRL 1.16, _calculate_rewards)."""


class _State:
    """The trainer's state as it is before the first step; made when asked for, since it imports torch."""

    def __getattr__(self, name: str) -> Any:
        from transformers import TrainerState

        return getattr(TrainerState(), name)


def _ignore(*_arguments: object, **_named: object) -> None:
    """Takes what a function logs."""


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns of the rows that completions answer, as the trainer passes them: a value for each completion.

    A row that lacks a column has None there.
    """
    names = dict.fromkeys(name for row in rows for name in row if name not in _NOT_PASSED)
    return {name: [row.get(name) for row in rows] for name in names}


def settled(values: Any) -> Any:
    """What a reward function gave; of one that is async, what it ends with."""
    return asyncio.run(_awaited(values)) if inspect.isawaitable(values) else values


async def _awaited(values: Awaitable[Any]) -> Any:
    return await values


def outside_trainer() -> dict[str, Any]:
    """The rest of a trainer's arguments: trainer_state, log_extra, log_metric."""
    return {"trainer_state": _State(), "log_extra": _ignore, "log_metric": _ignore}
