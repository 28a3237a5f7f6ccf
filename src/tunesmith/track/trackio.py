"""Trackio, so held that its failure never ends a run and never stays unsaid."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..records import Finding
from ..rules import RULES

_HOOKS: Final = ("on_train_begin", "on_log", "on_save", "on_push_begin", "on_train_end")
_LEVELS: Final = {"note": "INFO", "warning": "WARN", "error": "ERROR"}


class Alerting(Protocol):
    """A callback of the trainer that also takes alerts."""

    def alert(self, found: Finding) -> None:
        """Show a finding beside the run's curves, now."""
        ...


class _Held:
    """What is put before Transformers' callback: its hooks, so that none of them raises, and alerts."""

    _trackio: Any
    _run: Any = None

    def __init__(self, failed: Callable[[str], None]) -> None:
        super().__init__()
        self._failed = failed
        self._broken = False
        self._complaints = _collect_warnings()

    def alert(self, found: Finding) -> None:
        """Between the beginning of training and its end; from any thread."""
        if self._run is not None:
            self._safely(self._alert, found)

    def _alert(self, found: Finding) -> None:
        from trackio import AlertLevel  # a level given as text is dropped (Trackio 0.43)

        title, level = f"{found.code} {RULES[found.code].title}", AlertLevel[_LEVELS[found.severity]]
        self._run.alert(title=title, text=f"{found.what} {found.fix}", level=level)

    def _hook(self, name: str, *args: Any, **kwargs: Any) -> None:
        self._safely(getattr(super(), name), *args, **kwargs)
        self._safely(self._look, name)

    def _look(self, hook: str) -> None:
        # A run belongs to the thread that began it; a watchdog's thread couldn't ask for it.
        self._run = None if hook == "on_train_end" else self._trackio.context_vars.current_run.get()
        if hook == "on_train_end" and self._complaints:
            self._fail(self._complaints[0])

    def _safely(self, work: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        if self._broken:
            return
        try:
            work(*args, **kwargs)
        except Exception as error:  # a tracker may raise anything, and a run is worth more than its chart
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, complaint: str) -> None:
        self._broken = True
        self._failed(complaint)


def trackio_callback(failed: Callable[[str], None]) -> Alerting | None:
    """Transformers' Trackio callback; at its first failure it reports through `failed` and falls silent.

    Returns None when Trackio isn't installed, after reporting that.
    """
    from transformers.integrations import TrackioCallback

    def hook(name: str) -> Callable[..., None]:
        return lambda self, *args, **kwargs: self._hook(name, *args, **kwargs)

    held = type("Held", (_Held, TrackioCallback), {name: hook(name) for name in _HOOKS})
    try:
        made: Alerting = held(failed)
    except RuntimeError as error:
        failed(str(error))
        return None
    return made


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
