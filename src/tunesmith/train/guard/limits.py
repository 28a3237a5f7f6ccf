"""What a run may take of its surroundings: time, money, disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ...records import Event, Plan
from ...words import lasting
from .signals import Signal

_MARGIN: Final = 0.05  # of the limit
_MOST: Final = 60.0  # seconds that the margin is at most
_BEFORE_TRAINING: Final = ("rows", "audit", "finding")


def seconds_spent(events: Iterable[Event]) -> float:
    """Seconds that earlier attempts were at work: from the start of each to the last that was heard of it.

    Who resumes a run that was stopped for its budget (R023) lets it spend as much again.
    """
    spent, began, last = 0.0, 0.0, 0.0
    for event in events:
        if event.kind == "finding" and event.data.get("code") == "R023":
            spent, began, last = 0.0, event.time, event.time
        elif event.kind == "start":
            spent, began, last = spent + last - began, event.time, event.time
        elif event.kind not in _BEFORE_TRAINING:
            last = event.time
    return spent + last - began


@dataclass
class Limits:
    """Time and money: the run is to end, saved, before they are used up.

    Attributes:
        timeout: Seconds that this attempt may take.
        budget: Dollars that all attempts together may cost.
        price: Dollars an hour.
        spent: Seconds that earlier attempts took.
        clock: Seconds; only differences count.
    """

    timeout: float | None = None
    budget: float | None = None
    price: float | None = None
    spent: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _last: float = field(init=False)
    _step: float = field(default=0.0, init=False)
    _save: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._began = self._last = self.clock()

    @classmethod
    def of(cls, plan: Plan, spent: float) -> Limits:
        """Those of a plan's recipe, at the price of its machine."""
        launch = plan.recipe.get("launch", {})
        price = plan.cost.per_hour if plan.cost else None
        return cls(launch.get("timeout"), launch.get("budget"), price, spent)

    def stepped(self) -> None:
        """An optimizer step is done; what comes between steps counts as well, as it will come again."""
        now = self.clock()
        self._step, self._last = max(self._step, now - self._last), now

    def saved(self) -> None:
        """A checkpoint was written since the last step."""
        now = self.clock()
        self._save, self._last = max(self._save, now - self._last), now

    def check(self, step: int, steps: int) -> Signal | None:
        """R022 or R023 where another step and two saves might not fit any more."""
        here = self.clock() - self._began
        if self.timeout and here + self._reserve(self.timeout) > self.timeout:
            times = {"used": lasting(here), "limit": lasting(self.timeout)}
            return Signal("R022", step, {**times, "step": step, "steps": steps})
        if self.budget is None or not self.price:
            return None
        seconds = self.budget / self.price * 3600
        if self.spent + here + self._reserve(seconds) <= seconds:
            return None
        used = (self.spent + here) / 3600 * self.price
        details = {"used": used, "limit": self.budget, "price": self.price, "step": step, "steps": steps}
        return Signal("R023", step, details)

    def _reserve(self, limit: float) -> float:
        return self._step + 2 * self._save + min(_MOST, _MARGIN * limit)


def check_room(checkpoint: Path, step: int) -> Signal | None:
    """R024 where the disk has no room for another checkpoint like this one."""
    need = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    free = shutil.disk_usage(checkpoint).free
    return Signal("R024", step, {"free": free / 1e9, "need": need / 1e9, "step": step}) if free < need else None
