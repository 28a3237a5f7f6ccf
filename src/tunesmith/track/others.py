"""Trackers that Transformers feeds by itself (wandb, tensorboard, mlflow and more), so held that none ends a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback


def hold_back(callbacks: Iterable[TrainerCallback], failed: Callable[[str, str], None]) -> None:
    """Make those of `callbacks` that feed a tracker fall silent at their first failure, which goes to `failed`.

    `failed` is told the tracker's name and what happened.
    """
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    names = {kind: name for name, kind in INTEGRATION_TO_CALLBACK.items()}
    for callback in callbacks:
        if type(callback) in names:
            _hold(callback, names[type(callback)], failed)


def _hold(callback: TrainerCallback, name: str, failed: Callable[[str, str], None]) -> None:
    broken = False

    def held(hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal broken
            if broken:
                return None
            try:
                return hook(*args, **kwargs)
            except Exception as error:  # a tracker may raise anything, and a run is worth more than its chart
                broken = True
                failed(name, f"{type(error).__name__}: {error}".splitlines()[0])
                return None

        return call

    for hook in dir(callback):
        if hook.startswith("on_"):
            setattr(callback, hook, held(getattr(callback, hook)))
