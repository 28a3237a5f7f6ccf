"""Signs in what a trainer logs that a run has gone wrong: pure folds over the log history, whatever the method.

A detector sees every log in order. So it can be brought up to date from a checkpoint's history, and the same history
always gives the same signals: on a resumed run, and on every process of many, since metrics are gathered before.
"""

from __future__ import annotations

import itertools
import math
import statistics
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Logs = Mapping[str, Any]

MAD_TO_SIGMA: Final = 1.4826
"""Standard deviation of a normal distribution by its median absolute deviation: 1 / Phi^-1(3/4)."""


@dataclass(frozen=True)
class Signal:
    """Something wrong in a run.

    Attributes:
        code: The rule's.
        since: The step from which on weights aren't to be trusted. A loss shows the weights of the step before, so
            that this is the last log that was sound.
        details: For the rule's texts.
    """

    code: str
    since: int
    details: dict[str, Any]


class Detector(ABC):
    """Sees each log of a run in order, and tells when something is wrong."""

    @abstractmethod
    def see(self, step: int, logs: Logs) -> Signal | None:
        """What the log of this step says, after all that were seen before."""

    def end(self) -> Signal | None:
        """What only shows at the end of training."""
        return None


def number(logs: Logs, name: str) -> float | None:
    """A logged value, where it is there and finite."""
    value = logs.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def spread(values: Iterable[float]) -> float:
    """Median absolute deviation from the median, scaled to a normal distribution's standard deviation."""
    values = list(values)
    middle = statistics.median(values)
    return MAD_TO_SIGMA * statistics.median(abs(value - middle) for value in values)


def noise(values: Iterable[float]) -> float:
    """Standard deviation of the noise on a curve: by the median of successive differences, which no trend moves.

    The difference of two independent values has twice their variance: hence the root of 2 (von Neumann 1941, with the
    median in place of the mean).
    """
    values = list(values)
    steps = [abs(later - earlier) for earlier, later in itertools.pairwise(values)]
    return MAD_TO_SIGMA * statistics.median(steps) / math.sqrt(2) if steps else 0.0


class NotFinite(Detector):
    """R001: loss, gradient or held-out loss isn't a number."""

    _SKIPPED: Final = 10

    def __init__(self, *, scaled: bool = False) -> None:
        """`scaled`: fp16 with a loss scaler, which skips steps whose gradient overflows and goes on with less."""
        self._scaled = scaled
        self._overflows = 0
        self._sound = 0

    def see(self, step: int, logs: Logs) -> Signal | None:
        """Loss and gradient of a log, or the held-out loss."""
        bad = [name for name in ("loss", "grad_norm", "eval_loss") if _not_finite(logs.get(name))]
        overflow = self._scaled and bad == ["grad_norm"]
        self._overflows = self._overflows + 1 if overflow else 0
        if bad and not (overflow and self._overflows < self._SKIPPED):
            return Signal("R001", self._sound, {"name": bad[0], "value": float(logs[bad[0]]), "step": step})
        self._sound = self._sound if bad else step
        return None


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class Spikes(Detector):
    """R009: a loss far above what was usual; R010 once it stays there."""

    _WINDOW: Final = 50
    _ENOUGH: Final = 10
    _SIGMAS: Final = 10.0
    _SHARE: Final = 0.5  # of the usual loss; the spread of a smooth curve is next to nothing
    _LEAST: Final = 0.2  # nats, for losses near zero
    _STAYS: Final = 10

    def __init__(self, rate: float) -> None:
        """`rate` is the peak learning rate."""
        self._rate = rate
        self._usual: deque[float] = deque(maxlen=self._WINDOW)
        self._row = 0
        self._sound = 0

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The loss against median and spread of the last ones that weren't spikes."""
        loss = number(logs, "loss")
        if loss is None:
            return None
        if len(self._usual) < self._ENOUGH:
            self._is_sound(step, loss)
            return None
        usual, sigma = statistics.median(self._usual), spread(self._usual)
        bound = usual + max(self._SIGMAS * sigma, self._SHARE * abs(usual), self._LEAST)
        if loss <= bound:
            self._is_sound(step, loss)
            return None
        self._row += 1
        if self._row == 1:
            times = (loss - usual) / max(sigma, self._LEAST / self._SIGMAS)
            return Signal("R009", self._sound, {"value": loss, "step": step, "usual": usual, "times": times})
        if self._row == self._STAYS:
            meaning = f"{usual:.4g} was usual before"
            return Signal("R010", self._sound, _diverged(loss, step, bound, meaning, self._rate))
        return None

    def _is_sound(self, step: int, loss: float) -> None:
        self._usual.append(loss)
        self._row, self._sound = 0, step


class Diverges(Detector):
    """R010: the loss stays above twice what it was at the start, plus one."""

    _FIRST: Final = 3
    _STAYS: Final = 5
    _AT_END: Final = 3  # a short run has no time for more

    def __init__(self, rate: float, steps: float = math.inf) -> None:
        """`rate` is the peak learning rate, `steps` the length of the run."""
        self._rate = rate
        self._steps = steps
        self._first: list[float] = []
        self._row = 0
        self._sound = 0

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The loss against that of the first logs."""
        loss = number(logs, "loss")
        if loss is None:
            return None
        if len(self._first) < self._FIRST:
            self._first.append(loss)
            return None
        start = statistics.median(self._first)
        bound = start + abs(start) + 1
        self._row, self._sound = (self._row + 1, self._sound) if loss > bound else (0, step)
        ends_high = step >= self._steps and self._AT_END <= self._row < self._STAYS
        if self._row != self._STAYS and not ends_high:
            return None
        return Signal("R010", self._sound, _diverged(loss, step, bound, f"it began at {start:.4g}", self._rate))


class WorseThanGuessing(Detector):
    """R010: the loss keeps jumping above its best so far, to more than a guess among all tokens has.

    Where each of V tokens is as likely as any other, the loss is ln V. A loss that swings as widely as this one does
    widens its own spread, so that neither its start nor what was usual tells.
    """

    _WINDOW: Final = 10
    _MOST: Final = 5  # of the last logs
    _AT_END: Final = 3  # a short run has no time for more
    _SHARE: Final = 0.25  # above the best: a base that starts out worse than a guess may be slow to learn

    def __init__(self, vocabulary: int, rate: float, steps: float = math.inf) -> None:
        """`vocabulary` counts tokens; `rate` is the peak learning rate, `steps` the length of the run."""
        self._guess = math.log(vocabulary)
        self._rate = rate
        self._steps = steps
        self._best = math.inf
        self._above: deque[bool] = deque(maxlen=self._WINDOW)
        self._sound = 0
        self._told = False

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The loss against a guess, and against its own best."""
        loss = number(logs, "loss")
        if loss is None:
            return None
        bound = max(self._guess, (1 + self._SHARE) * self._best)
        self._best = min(self._best, loss)
        self._above.append(loss > bound)
        if not any(self._above):
            self._sound = step
        ends_high = step >= self._steps and list(self._above)[-self._AT_END :] == [True] * self._AT_END
        if self._told or (sum(self._above) <= self._MOST and not ends_high):
            return None
        self._told = True
        meaning = "a guess among all tokens, or the best so far and a quarter"
        return Signal("R010", self._sound, _diverged(loss, step, bound, meaning, self._rate))


def _diverged(loss: float, step: int, bound: float, meaning: str, rate: float) -> dict[str, Any]:
    return {"value": loss, "step": step, "bound": bound, "meaning": meaning, "rate": rate}


class ZeroGradient(Detector):
    """R011: no gradient over several logs, and not because all rewards of all groups were equal (R015, R016)."""

    _ROW: Final = 5

    def __init__(self) -> None:
        self._row = 0

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The gradient's norm."""
        if "grad_norm" not in logs:
            return None
        zero = logs["grad_norm"] == 0 and number(logs, "frac_reward_zero_std") != 1
        self._row = self._row + 1 if zero else 0
        if self._row != self._ROW:
            return None
        return Signal("R011", 1, {"count": self._ROW, "step": step})


class NoBetter(Detector):
    """R013: on held-out rows no better at the end than before the first step, where both were measured."""

    _MARGIN: Final = 0.005  # of the first value: the rows are the same, so that only training differs

    def __init__(self, name: str, measure: str, *, rises: bool = False) -> None:
        """`name` is the metric's in the log, `measure` its name in words; it ought to fall, or else to rise."""
        self._name, self._measure = name, measure
        self._sign = -1 if rises else 1
        self._first: float | None = None
        self._last: tuple[int, float] | None = None

    def see(self, step: int, logs: Logs) -> Signal | None:
        """Remembers the first and the last evaluation."""
        value = number(logs, self._name)
        if value is not None and step == 0:
            self._first = value
        elif value is not None:
            self._last = step, value
        return None

    def end(self) -> Signal | None:
        """The last evaluation against the first."""
        if self._first is None or self._last is None:
            return None
        step, last = self._last
        if self._sign * (self._first - last) > self._MARGIN * abs(self._first):
            return None
        return Signal("R013", step, {"measure": self._measure, "value": last, "first": self._first})


class Overfits(Detector):
    """R014: the held-out loss rises twice in a row and stands clearly above its best."""

    _ROW: Final = 2
    _SHARE: Final = 0.03
    _LEAST: Final = 0.02  # nats

    def __init__(self) -> None:
        self._best: tuple[int, float] | None = None
        self._before = math.inf
        self._rises = 0

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The held-out loss against its best."""
        loss = number(logs, "eval_loss")
        if loss is None:
            return None
        self._rises = self._rises + 1 if loss > self._before else 0
        self._before = loss
        if self._best is None or loss < self._best[1]:
            self._best = step, loss
        at, best = self._best
        if self._rises < self._ROW or loss - best < max(self._SHARE * abs(best), self._LEAST):
            return None
        return Signal("R014", at + 1, {"best": best, "at": at, "value": loss, "step": step})
