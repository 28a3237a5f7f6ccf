"""A run's curve and samples in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final, Literal

from ..records import Event
from ..track.events import curve, read_events

if TYPE_CHECKING:
    from .output import Output

HEIGHT: Final = 8
_LABEL: Final = 9
_WIDE: Final = 20.0  # times that the largest value may be the smallest, before a linear axis hides the end of the curve
_DRAWN_BELOW: Final = 1e30  # not what a run has that went out of bounds, nor NaN
_SAMPLE: Final = 60
_LINE: Final = 28  # of prompt and answer, so that both fit a line of 80


@dataclass(frozen=True)
class Signs:
    """What a chart is drawn with."""

    trained: str
    held_out: str
    axis: str
    corner: str
    floor: str


UNICODE: Final = Signs("•", "◆", "│", "└", "─")
ASCII: Final = Signs("*", "o", "|", "+", "-")
_DRAWN: Final = {"loss": "Loss", "reward": "Reward"}


def show_curve(output: Output, folder: Path) -> None:
    """The chart of what a run has logged, and its last samples."""
    events = read_events(folder)
    signs = UNICODE if output.data.encoding.lower().startswith("utf") else ASCII
    lines = chart(curve(events), width=output.data.width, signs=signs)
    for line in [*lines, ""] if lines else []:
        output.show(line)
    samples = [event for event in events if event.kind == "sample"]
    if samples:
        rows = sample_rows(samples[-1])
        output.table(f"Samples at step {samples[-1].step:,}", ("prompt", "answer", "expected"), rows)


def chart(events: Sequence[Event], *, width: int, signs: Signs = UNICODE) -> list[str]:
    """Lines of a chart of what a run has logged: the reward where there is one, else the loss; no lines of no points.

    Args:
        events: The run's curve: its log and eval events.
        width: Columns of the terminal.
        signs: What to draw with.
    """
    name: Literal["loss", "reward"] = "reward" if any("reward" in event.data for event in events) else "loss"
    trained, held_out = list(_points(events, "log", name)), list(_points(events, "eval", f"eval_{name}"))
    if not trained:
        return []
    values = [value for _, value in (*trained, *held_out)]
    first, last = min(step for step, _ in trained), max(step for step, _ in (*trained, *held_out))
    scale = _Scale.over(values)
    columns = max(10, min(width - _LABEL - 1, last - first + 1))
    grid = [[" "] * columns for _ in range(HEIGHT)]
    for points, sign in ((trained, signs.trained), (held_out, signs.held_out)):
        for column, value in _by_column(points, first, last, columns):
            grid[scale.row(value)][column] = sign
    shown = f", {signs.held_out} held-out" if held_out else ""
    logarithmic = ", logarithmic" if scale.logarithmic else ""
    title = f"{_DRAWN[name]} by step ({signs.trained} training{shown}{logarithmic})"
    labels = {0: scale.high, HEIGHT - 1: scale.low}
    rows = [
        f"{_number(labels[at]) if at in labels else '':>{_LABEL}}{signs.axis}{''.join(row)}".rstrip()
        for at, row in enumerate(grid)
    ]
    ends = f"{first:,}".ljust(columns - len(f"{last:,}")) + f"{last:,}"
    return [title, *rows, f"{'':>{_LABEL}}{signs.corner}{signs.floor * columns}", f"{'':>{_LABEL}} {ends}"]


def sample_lines(event: Event) -> Iterator[str]:
    """A line for each prompt that was answered: its end, and the beginning of the answer."""
    for prompt, answer in zip(event.data["prompts"], event.data["answers"], strict=True):
        yield f"step {event.step} sample: {_end(prompt, _LINE)} -> {_beginning(answer, _LINE)}"


def sample_rows(event: Event) -> list[tuple[str, str, str]]:
    """Prompt, answer and expected answer of each prompt, shortened."""
    told = (event.data[name] for name in ("prompts", "answers", "expected"))
    return [
        (_end(prompt), _beginning(answer), _beginning(wanted)) for prompt, answer, wanted in zip(*told, strict=True)
    ]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float]) -> _Scale:
        low, high = min(values), max(values)
        return cls(low, high, logarithmic=low > 0 and high > _WIDE * low)

    def row(self, value: float) -> int:
        """The row of a value, counted from the top."""
        low, high = (math.log(self.low), math.log(self.high)) if self.logarithmic else (self.low, self.high)
        at = math.log(value) if self.logarithmic else value
        share = (high - at) / (high - low) if high > low else 1.0
        return round(share * (HEIGHT - 1))


def _points(events: Sequence[Event], kind: str, name: str) -> Iterator[tuple[int, float]]:
    for event in events:
        value = event.data.get(name)
        if event.kind == kind and isinstance(value, int | float) and abs(value) < _DRAWN_BELOW:
            yield event.step, float(value)


def _by_column(points: Sequence[tuple[int, float]], first: int, last: int, columns: int) -> Iterator[tuple[int, float]]:
    """Each column with a point, and the mean of its points."""
    found: dict[int, list[float]] = {}
    for step, value in points:
        share = (step - first) / (last - first) if last > first else 0.0
        found.setdefault(min(columns - 1, max(0, int(share * columns))), []).append(value)
    for column, values in found.items():
        yield column, fmean(values)


def _number(value: float) -> str:
    return f"{value:.4g}"


def _end(text: str, most: int = _SAMPLE) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"…{line[-most + 1 :]}"


def _beginning(text: str, most: int = _SAMPLE) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
