"""Inline SVG charts of a report; colours and fonts come from the page's style sheet."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from ..records import Comparison, Event, Histogram, units
from ..words import counted

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 54, 22, 12, 40
POINTS = 500
"""At most so many points of a line are drawn."""

Point = tuple[int, float]


def series(events: Sequence[Event], key: str) -> list[Point]:
    """(step, value) of each event that logged a finite number under `key`, in order."""
    return [
        (event.step, float(value))
        for event in events
        if isinstance(value := event.data.get(key), int | float) and math.isfinite(value)
    ]


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round values, 1, 2 or 5 times a power of ten apart, that enclose `low` < `high`."""
    raw = (high - low) / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def learning_curve(events: Sequence[Event]) -> Markup | None:
    """Training and evaluation loss by step, or None when fewer than two losses were logged."""
    train, held_out = series(events, "loss"), series(events, "eval_loss")
    points = train + held_out
    if len(points) < 2:
        return None
    last = max(step for step, _ in points) or 1
    up, height = _scale([value for _, value in points])

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * height(value)

    across = [(x(tick), tick) for tick in ticks(0, last) if tick <= last]
    parts = [_axes(across, [(y(tick), tick) for tick in up], "step", "nats per trained token")]
    for kind, line in (("train", train), ("eval", held_out)):
        placed = [(x(step), y(value)) for step, value in _thinned(line)]
        parts.append(_line(kind, placed, marked=kind == "eval" or len(placed) < 3))
    label = f"Loss by step: {_told('training', train)}; {_told('evaluation', held_out)}."
    return _svg(WIDTH, HEIGHT, label, Markup("").join(parts), "curve")


def _scale(values: Sequence[float]) -> tuple[list[float], Callable[[float], float]]:
    """Ticks, and the height in [0, 1] of a value: linear, or by powers of ten if values span two of them."""
    low, high = min(values), max(values)
    if low > 0 and high >= 100 * low:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return [
            10.0**power for power in range(first, last + 1)
        ], lambda value: (math.log10(value) - first) / (last - first)
    low = min(low, 0.0)
    marks = ticks(low, high if high > low else low + 1.0)
    return marks, lambda value: (value - marks[0]) / (marks[-1] - marks[0])


def _thinned(line: Sequence[Point]) -> list[Point]:
    stride = math.ceil(len(line) / POINTS) or 1
    kept = list(line[::stride])
    return kept if not line or kept[-1] == line[-1] else [*kept, line[-1]]


def _told(name: str, line: Sequence[Point]) -> str:
    return f"{name} from {line[0][1]:.4g} to {line[-1][1]:.4g}" if line else f"no {name} loss"


def _axes(across: list[tuple[float, float]], up: list[tuple[float, float]], along: str, upwards: str) -> Markup:
    """Grid, ticks and names of the axes; `across` and `up` hold (coordinate, value at it)."""
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    level = Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/><text class="up" x="{}" y="{}">{}</text>')
    step = Markup('<line class="axis" x1="{x}" x2="{x}" y1="{}" y2="{}"/><text x="{x}" y="{}">{}</text>')
    parts = [level.format(LEFT, right, LEFT - 8, round(y + 4, 1), f"{value:g}", y=round(y, 1)) for y, value in up]
    parts += [
        step.format(base, base + 4, base + 18, f"{value:,.0f}", x=round(x, 1))
        for x, value in across
        if value == int(value)
    ]
    frame = Markup(
        '<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/><text x="{3}" y="{4}">{6}</text>'
        '<text transform="translate(12 {5}) rotate(-90)">{7}</text>'
    )
    middle = (LEFT + right) // 2
    parts.append(frame.format(LEFT, right, base, middle, HEIGHT - 4, (TOP + base) // 2, along, upwards))
    return Markup("").join(parts)


def _line(kind: str, placed: Sequence[tuple[float, float]], *, marked: bool) -> Markup:
    points = [(round(x, 1), round(y, 1)) for x, y in placed]
    parts = [Markup('<polyline class="line {}" points="{}"/>').format(kind, " ".join(f"{x},{y}" for x, y in points))]
    if marked:
        parts += [Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(kind, x, y) for x, y in points]
    return Markup("").join(parts)


def interval_bar(comparison: Comparison) -> Markup | None:
    """A line of a forest plot: the difference with its interval, right of zero where tuned is better.

    A dashed tick is the loss that is accepted. The scale is the comparison's own. None without an interval.
    """
    found = comparison.interval
    if found is None:
        return None
    low, high = sorted((comparison.gain(found.low), comparison.gain(found.high)))
    at, margin = comparison.gain(comparison.difference), -(comparison.margin or 0.0)
    reach = max(abs(low), abs(high), abs(at), -margin) * 1.15 or 1.0
    width, height = 220, 34

    def x(value: float) -> float:
        return round(width / 2 + value / reach * width / 2, 1)

    body = Markup(
        '<line class="grid" x1="0" x2="{width}" y1="12" y2="12"/>'
        '<line class="axis" x1="{zero}" x2="{zero}" y1="2" y2="22"/><text x="{zero}" y="32">0</text>'
    ).format(width=width, zero=width // 2)
    if margin:
        body += Markup('<line class="limit" x1="{x}" x2="{x}" y1="2" y2="22"/>').format(x=x(margin))
    body += Markup(
        '<path class="line train" d="M{low} 12H{high}M{low} 6V18M{high} 6V18"/>'
        '<circle class="dot train" cx="{at}" cy="12" r="4"/>'
    ).format(low=x(low), high=x(high), at=x(at))
    told = f"{units.metric(comparison)}: {units.change(comparison, comparison.difference)}"
    accepted = f", accepted loss {units.change(comparison, comparison.gain(margin))}" if margin else ""
    label = f"{told}, interval {units.interval(comparison)}, {units.outcome(comparison)}{accepted}."
    return _svg(width, height, label, body, "bar")


def _svg(width: int, height: int, label: str, body: Markup, name: str) -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        name, width, height, label, body
    )


def length_histogram(histogram: Histogram, max_length: int | None) -> Markup:
    """Rows by token length, in bins as wide as each other, with max_length drawn in; what lies beyond it is cut."""
    edges, rows = histogram.edges, histogram.rows
    marks = ticks(0, 1.15 * max(rows))  # room for the limit's name
    wide = (WIDTH - LEFT - RIGHT) / len(rows)

    def x(length: float) -> float:
        """Where a length lies: between its bin's edges, evenly."""
        at = min(max(bisect.bisect_right(edges, length) - 1, 0), len(rows) - 1)
        inside = (length - edges[at]) / (edges[at + 1] - edges[at])
        return LEFT + wide * (at + min(max(inside, 0.0), 1.0))

    def y(count: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * count / marks[-1]

    shown = edges[:: math.ceil(len(edges) / 8)]
    parts = [_axes([(x(edge), edge) for edge in shown], [(y(mark), mark) for mark in marks], "tokens", "rows")]
    parts += [
        _bar(x(low), x(high), y(count), low, high, count)
        for low, high, count in zip(edges, edges[1:], rows, strict=False)
        if count
    ]
    if max_length is not None and max_length < edges[-1]:
        parts.append(_limit(x(max_length), max_length))
    label = f"Rows by length, from {edges[0]:,} to {edges[-1]:,} tokens; max_length {max_length or 'none'}."
    return _svg(WIDTH, HEIGHT, label, Markup("").join(parts), "curve")


def _bar(left: float, right: float, top: float, low: int, high: int, count: int) -> Markup:
    return Markup('<rect class="column" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
        round(left + 0.5, 1),
        round(top, 1),
        round(max(right - left - 1, 0.5), 1),
        round(HEIGHT - BOTTOM - top, 1),
        f"{low:,} to {high - 1:,} tokens: {counted(count, 'row')}",
    )


def _limit(at: float, max_length: int) -> Markup:
    anchor, shift = ("end", -5) if at > WIDTH / 2 else ("start", 5)
    return Markup(
        '<line class="limit" x1="{x}" x2="{x}" y1="{}" y2="{}"/>'
        '<text x="{}" y="{}" style="text-anchor: {}">max_length {}</text>'
    ).format(TOP, HEIGHT - BOTTOM, round(at + shift, 1), TOP + 9, anchor, f"{max_length:,}", x=round(at, 1))
