"""Stopping on request: at the end of the step where that is near, else in the middle of it.

A pre-empted machine gives some thirty seconds, and a step that generates answers, or an evaluation, may take longer. So
a request that the step's end hasn't served in time reaches into the step: its gradients are thrown away, and what is
saved is the state after the step before, random numbers included.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Final

from . import ranks

PATIENCE: Final = 8.0
"""Seconds that a step may take to its end once a stop was asked for; saving takes its time, too."""
_AGAIN: Final = 2.0
_ASKING: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A stop that was asked for ends a step or an evaluation early; no Exception, since libraries catch those."""


class Finished(BaseException):
    """Nothing is left to train: the checkpoint that a run was resumed from is its last."""


class StopRequest:
    """Whether a stop was asked for, and whether it may reach into the work at hand."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.asked = False
        self.within_step = False
        """Gradients are being computed: the weights are those after the step before."""
        self._patience = patience
        self._due = 0.0
        self._listening = False

    def listen(self) -> None:
        """Take SIGINT and SIGTERM as requests; call it in the main thread."""
        self._listening = True
        signal.signal(signal.SIGALRM, self._reach_in)
        for number in _ASKING:
            signal.signal(number, self.ask)

    def ask(self, number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """Ask for a stop; a second signal ends the process at once, unless it is one of several."""
        self.asked = True
        self._due = time.monotonic() + self._patience
        if self._listening:
            # Of several processes each gets the signal from whoever sends it, and once more from torchrun.
            for name in _ASKING if ranks.count() == 1 else ():
                signal.signal(name, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self._patience, _AGAIN)

    def ask_from_thread(self) -> None:
        """The same from another thread than the main one, which alone gets signals and sets what they do."""
        if self._listening:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.asked = True

    @property
    def overdue(self) -> bool:
        """Whether the end of a step should have served the request by now."""
        return self.asked and time.monotonic() >= self._due

    def _reach_in(self, number: int, frame: FrameType | None) -> None:
        if self.within_step:
            raise Interrupted

    def served(self) -> None:
        """Reach into nothing any more."""
        self.within_step = False
        if self._listening:
            signal.setitimer(signal.ITIMER_REAL, 0)
