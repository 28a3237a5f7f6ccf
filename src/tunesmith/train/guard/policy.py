"""Signs of methods that learn from rewards (grpo, rloo) and from preferences (dpo, kto, reward)."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Final

from .signals import Detector, Logs, Signal, number


class NoSignal(Detector):
    """R015: from the first step on, all rewards of each group are equal."""

    _FIRST: Final = 10

    def __init__(self) -> None:
        self._seen = 0
        self._silent = True

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The share of groups whose rewards are all equal."""
        share, reward = number(logs, "frac_reward_zero_std"), number(logs, "reward")
        if share is None:
            return None
        self._seen += 1
        self._silent = self._silent and share == 1
        if not self._silent or self._seen != self._FIRST:
            return None
        return Signal("R015", 1, {"count": self._FIRST, "reward": reward if reward is not None else float("nan")})


class EqualRewards(Detector):
    """R016: later on, hardly a group has rewards that differ."""

    _WINDOW: Final = 20
    _SHARE: Final = 0.95

    def __init__(self) -> None:
        self._shares: deque[tuple[int, float]] = deque(maxlen=self._WINDOW)

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The same share, over the last logs."""
        share, reward = number(logs, "frac_reward_zero_std"), number(logs, "reward")
        if share is None or reward is None:
            return None
        self._shares.append((step, share))
        mean = sum(one for _, one in self._shares) / len(self._shares)
        if len(self._shares) < self._WINDOW or mean < self._SHARE:
            return None
        return Signal("R016", self._shares[0][0], {"share": mean, "step": step, "reward": reward})


class CutOff(Detector):
    """R017: nearly all completions run into the length limit."""

    _WINDOW: Final = 10
    _SHARE: Final = 0.9

    def __init__(self, limit: int | None) -> None:
        """`limit` is max_completion_length."""
        self._limit = limit
        self._shares: deque[tuple[int, float]] = deque(maxlen=self._WINDOW)

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The share of completions that were cut off, over the last logs."""
        share = number(logs, "completions/clipped_ratio")
        if share is None:
            return None
        self._shares.append((step, share))
        mean = sum(one for _, one in self._shares) / len(self._shares)
        if len(self._shares) < self._WINDOW or mean < self._SHARE:
            return None
        return Signal("R017", self._shares[0][0], {"share": mean, "step": step, "limit": self._limit})


class Collapse(Detector):
    """R018: the mean reward falls far below its best, beyond what chance does to means of so many logs.

    The mean of the last logs is held against the best mean of as many before, by the standard error of their difference
    (Welch 1947). Where few answers earn a reward, a median and its deviations would be 0 whatever happens.
    """

    _WINDOW: Final = 15
    _ERRORS: Final = 7.0  # far out: the best of many means is high by chance, and every log asks again
    _SHARE: Final = 0.5  # of the best, and of what was gained

    def __init__(self) -> None:
        self._rewards: deque[float] = deque(maxlen=2 * self._WINDOW)
        self._first = 0.0
        self._best: tuple[int, float, float] | None = None
        self._steps: deque[int] = deque(maxlen=self._WINDOW + 1)

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The mean of the last rewards against the best of those before."""
        reward = number(logs, "reward")
        if reward is None:
            return None
        self._rewards.append(reward)
        self._steps.append(step)
        if len(self._rewards) < 2 * self._WINDOW:
            return None
        rewards = list(self._rewards)
        before, variance = _mean_and_variance(rewards[: self._WINDOW])
        if self._best is None:
            self._first = before
        if self._best is None or before > self._best[1]:
            self._best = self._steps[0], before, variance
        at, best, variance = self._best
        recent, now = _mean_and_variance(rewards[self._WINDOW :])
        least = max(
            self._ERRORS * math.sqrt((variance + now) / self._WINDOW),
            self._SHARE * abs(best),
            self._SHARE * (best - self._first),
        )
        if best - recent > least:
            return Signal("R018", at + 1, {"best": best, "at": at, "value": recent, "step": step})
        return None


def _mean_and_variance(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sum((value - mean) * (value - mean) for value in values) / (len(values) - 1)


class ChosenFalls(Detector):
    """R019: chosen answers become far less likely than they are to the reference.

    The implicit reward of an answer is beta (log p - log p_ref) (Rafailov et al. 2023), so that p_ref follows from what
    is logged. The fall is held against -log p_ref: an answer of 300 tokens loses more nats than one of 30.
    """

    _WINDOW: Final = 5
    _SHARE: Final = 0.5
    _LEAST: Final = 2.0  # nats

    def __init__(self, beta: float) -> None:
        self._beta = beta
        self._falls: deque[tuple[float, float]] = deque(maxlen=self._WINDOW)
        self._sound = 0

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The running median of the fall, in nats and as a share."""
        reward, logp = number(logs, "rewards/chosen"), number(logs, "logps/chosen")
        if reward is None or logp is None or not self._beta:
            return None
        fall = -reward / self._beta
        self._falls.append((fall, fall / max(-(logp + fall), 1.0)))
        median, share = (statistics.median(column) for column in zip(*self._falls, strict=True))
        if median < self._LEAST or share < self._SHARE:
            self._sound = step
            return None
        if len(self._falls) < self._WINDOW:
            return None
        return Signal("R019", self._sound, {"fall": median, "step": step})


class NoMargin(Detector):
    """R020: past the warm-up, chosen and rejected answers go on scoring alike."""

    _ROW: Final = 20
    _SHORT: Final = 5
    _BOUND: Final = 1e-3

    def __init__(self, name: str, warm_up: int) -> None:
        """`name` is the margin's in the log; `warm_up` counts steps."""
        self._name, self._warm_up = name, warm_up
        self._row: list[int] = []
        self._apart = False

    def see(self, step: int, logs: Logs) -> Signal | None:
        """The margin between chosen and rejected."""
        margin = number(logs, self._name)
        if margin is None or step <= self._warm_up:
            return None
        self._apart = self._apart or abs(margin) > self._BOUND
        self._row.append(step)
        return self._signal() if len(self._row) == self._ROW else None

    def end(self) -> Signal | None:
        """A short run's margins are all there is to go by."""
        return self._signal() if self._SHORT <= len(self._row) < self._ROW else None

    def _signal(self) -> Signal | None:
        if self._apart:
            return None
        return Signal("R020", 1, {"step": self._row[-1], "bound": self._BOUND})
