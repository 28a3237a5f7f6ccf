"""Trackio, so held that its failure never ends a run and never stays unsaid."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

_HOOKS = ("on_train_begin", "on_log", "on_save", "on_push_begin", "on_train_end")


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
                complaint = complaints[0] if complaints and hook == "on_train_end" else None
            except Exception as error:  # a tracker may raise anything, and a run is worth more than its chart
                complaint = f"{type(error).__name__}: {error}"
            if complaint:
                self._broken = True
                failed(complaint)

    def guarded(hook: str) -> Callable[..., None]:
        return lambda self, *args, **kwargs: self._guard(hook, *args, **kwargs)

    for hook in _HOOKS:
        setattr(Guarded, hook, guarded(hook))
    complaints = _collect_warnings()
    try:
        return Guarded()
    except RuntimeError as error:
        failed(str(error))
        return None


def _collect_warnings() -> list[str]:
    """Trackio writes in a thread of its own and tells of lost metrics by a warning only: gather those."""
    said: list[str] = []
    show = warnings.showwarning

    def listen(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if str(message).startswith("trackio failed"):
            said.append(str(message))
        show(message, category, *args, **kwargs)

    warnings.showwarning = listen
    return said
