"""Trackio, so held that its failure never ends a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

_HOOKS = ("on_train_begin", "on_log", "on_save", "on_train_end", "on_push_begin")


def trackio_callback(failed: Callable[[str], None]) -> TrainerCallback | None:
    """Transformers' Trackio callback; at its first failure it reports through `failed` and falls silent.

    Returns None when Trackio isn't installed, after reporting that.
    """
    from transformers.integrations import TrackioCallback

    class Guarded(TrackioCallback):
        _broken = False

        def _guard(self, hook: str, *args: Any, **kwargs: Any) -> None:
            if self._broken:
                return
            try:
                getattr(TrackioCallback, hook)(self, *args, **kwargs)
            except Exception as error:  # a tracker may raise anything, and a run is worth more than its chart
                self._broken = True
                failed(f"{type(error).__name__}: {error}")

    def guarded(hook: str) -> Callable[..., None]:
        return lambda self, *args, **kwargs: self._guard(hook, *args, **kwargs)

    for hook in _HOOKS:
        setattr(Guarded, hook, guarded(hook))
    try:
        return Guarded()
    except RuntimeError as error:
        failed(str(error))
        return None
