"""A watchdog: tells when a run makes no progress, from a thread of its own, since the run's own thread is stuck."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from .signals import Signal

LEAST: Final = 120.0
"""Seconds of silence that are never called a stall: a save, a compilation, a few long answers."""
FIRST: Final = 1800.0
"""The same before the first steps are done, which compile, load and tune."""
_TIMES: Final = 10.0
_WARM: Final = 3


class Watchdog:
    """Calls `tell` once for each pause that is ten times as long as the longest before."""

    def __init__(self, tell: Callable[[Signal], None], *, least: float = LEAST, first: float = FIRST) -> None:
        self._tell = tell
        self._least = least
        self._first = first
        self._step = 0
        self._beats = 0
        self._longest = 0.0
        self._last = time.monotonic()
        self._told = False
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="stall", daemon=True)
        self._thread.start()

    def beat(self, step: int) -> None:
        """Something was done: part of a step, of an evaluation, or a save."""
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now
        self._beats += step > self._step
        self._step, self._told = step, False

    def close(self) -> None:
        """Watch no longer."""
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(self._least / 20):
            silence = time.monotonic() - self._last
            if not self._told and silence > self._patience():
                self._told = True
                details = {"seconds": silence, "step": self._step, "longest": self._longest}
                self._tell(Signal("R021", self._step, details))

    def _patience(self) -> float:
        return self._first if self._beats < _WARM else max(self._least, _TIMES * self._longest)
