"""Values as text, and charts."""

import math
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.receipts import compared, make_curve, make_evaluation
from tunesmith.evaluate import findings
from tunesmith.receipt import chart, text
from tunesmith.records import Comparison, Event, Interval, units


@given(st.text())
def test_visible_text_has_nothing_a_browser_obeys(value: str) -> None:
    shown = text.visible(value)
    assert not set(shown) & {chr(code) for code in (*range(9), *range(11, 32), 127, 0x2028, 0x202E, 0x200B, 0xFEFF)}
    assert all(ord(character) not in range(0xD800, 0xE000) for character in shown)
    assert text.visible(shown) == shown


def test_visible_text_spells_out_and_keeps_what_scripts_need() -> None:
    assert text.visible("a\u202eb\x00\tc\u2028\n") == "a⟨U+202E⟩b⟨U+0000⟩\tc⟨U+2028⟩\n"
    joined = "\u0645\u06cc\u200c\u062e 👩\u200d💻"
    assert text.visible(joined) == joined


@given(st.text(max_size=100), st.integers(10, 60))
def test_shortened_text_keeps_its_ends(value: str, limit: int) -> None:
    short = text.shorten(value, limit)
    if len(value) <= limit:
        assert short == value
    else:
        left_out = int(short[limit * 2 // 3 :].split("[…")[1].split(" ")[0].replace(",", ""))
        assert short.startswith(value[: limit * 2 // 3])
        assert len(value) - left_out in range(limit - 2, limit + 2)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.count(1234567), "1,234,567"),
        (text.count(None), units.NONE),
        (units.number(0.028943), "0.02894"),
        (units.number(47474.4), "47,474"),
        (units.number(3.1e-6, 3), "3.1e-06"),
        (units.number(None), units.NONE),
        (units.percent(0.985), "98.5 %"),
        (units.percent(None), units.NONE),
        (text.size(512), "512 B"),
        (text.size(1536), "1.5 KiB"),
        (text.size(3 << 30), "3.0 GiB"),
        (text.size(5 << 40), "5.0 TiB"),
        (text.size(None), units.NONE),
        (text.duration(31.42), "31.4 s"),
        (text.duration(95), "1 min 35 s"),
        (text.duration(7320), "2 h 2 min"),
        (text.duration(None), units.NONE),
        (text.moment("2026-11-20T13:04:58+01:00"), "2026-11-20 12:04:58 UTC"),
        (text.newlines("a\nb\n"), "a↵\nb↵"),
        (text.plain("text"), "text"),
        (text.plain(["q_proj", 1, None]), '["q_proj", 1, null]'),
        (units.p_value(1e-9), "< 0.0001"),
        (units.p_value(0.0312), "0.031"),
        (units.p_value(None), units.NONE),
    ],
)
def test_values_as_text(shown: str, expected: str) -> None:
    assert shown == expected


def comparison(metric: str) -> Comparison:
    return next(one for one in make_evaluation().comparisons if one.metric == metric)


def test_comparisons_are_told_in_the_unit_of_their_metric() -> None:
    match, loss = comparison("exact_match"), comparison("loss")
    assert (units.score(match, 0.985), units.change(match, -0.25)) == ("98.5 %", "-25.0 points")
    assert (units.score(loss, 0.0289), units.change(loss, 1.5)) == ("0.0289", "+1.5")
    assert units.interval(match) == "+95.1 to +99.5 points"
    assert units.interval(loss) == "-10.81 to -10.66"
    assert units.interval(loss.model_copy(update={"interval": None})) == units.NONE
    assert units.metric(match) == "exact match"


@pytest.mark.parametrize("name", ["preference_accuracy", "reward_accuracy"])
def test_accuracies_are_shares(name: str) -> None:
    accuracy = comparison("exact_match").model_copy(update={"metric": name})
    assert (units.score(accuracy, 0.985), units.change(accuracy, -0.25)) == ("98.5 %", "-25.0 points")


def test_metrics_have_words_and_rewards_keep_their_names() -> None:
    match = comparison("exact_match")
    names = [findings.PRIMARY[method][0] for method in findings.PRIMARY]
    names += ["chosen_loss", "desirable_loss", "score_margin", "reward: own"]
    told = [units.metric(match.model_copy(update={"metric": name})) for name in names]
    assert not any("_" in words for words in told)
    assert told[-1] == "reward: own"


def test_perplexities_are_short_however_large() -> None:
    perplexity = comparison("perplexity")
    assert (units.score(perplexity, 1.0293), units.score(perplexity, 47_474.0)) == ("1.03", "4.75e+04")
    assert units.change(perplexity, -361797916.328) == "-3.62e+08"
    assert units.interval(perplexity) == "-5.01e+04 to -4.49e+04"


positive = st.floats(1e-6, 1e9)


@given(st.floats(-1e6, 1e6), positive)
def test_ticks_enclose_the_range_evenly(low: float, width: float) -> None:
    high = low + width
    ticks = chart.ticks(low, high)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + step * 1e-6
    assert ticks[-1] >= high - step * 1e-6
    assert 2 <= len(ticks) <= 12
    gaps = [after - before for before, after in pairwise(ticks)]
    assert all(math.isclose(gap, step, rel_tol=1e-3, abs_tol=1e-8) for gap in gaps)


def parts(svg: Any, name: str) -> list[ElementTree.Element]:
    return [part for part in ElementTree.fromstring(str(svg)).iter() if part.tag == name]


def test_learning_curve_draws_both_losses_inside_its_frame() -> None:
    svg = chart.learning_curve(make_curve())
    lines = parts(svg, "polyline")
    assert [line.attrib["class"] for line in lines] == ["line train", "line eval"]
    points = [tuple(map(float, pair.split(","))) for line in lines for pair in line.attrib["points"].split()]
    assert len(points) == 50 + 5
    assert all(chart.LEFT <= x <= chart.WIDTH and 0 <= y <= chart.HEIGHT - chart.BOTTOM for x, y in points)
    heights = [y for _, y in points[:50]]
    assert heights[0] < heights[-1], "a falling loss goes down the page"
    assert {"step", "nats per trained token", "0", "200"} <= {part.text for part in parts(svg, "text")}
    assert points[49][0] == points[54][0] == chart.WIDTH - chart.RIGHT, "the last step ends the axis"


def test_learning_curve_passes_over_what_is_not_a_number_and_needs_two_points() -> None:
    def event(step: int, loss: Any) -> Event:
        return Event(time=0.0, kind="log", step=step, data={"loss": loss})

    assert chart.series([event(1, 2), event(2, math.nan), event(3, "x"), event(4, math.inf)], "loss") == [(1, 2.0)]
    assert chart.learning_curve([event(1, 2.0), event(2, math.nan)]) is None
    assert chart.learning_curve([event(1, 0.0), event(2, 0.0)]) is not None
    assert chart.learning_curve([event(0, 1.0), event(0, 1.0)]) is not None


def test_losses_that_span_two_powers_of_ten_are_drawn_by_powers_of_ten() -> None:
    def drawn(*losses: float) -> tuple[list[float], set[str | None]]:
        events = [Event(time=0.0, kind="log", step=step, data={"loss": loss}) for step, loss in enumerate(losses)]
        svg = chart.learning_curve(events)
        points = parts(svg, "polyline")[0].attrib["points"].split()
        return [float(point.split(",")[1]) for point in points], {part.text for part in parts(svg, "text")}

    heights, marks = drawn(10.0, 1.0, 0.1)
    assert {"0.1", "1", "10"} <= marks
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.11)
    heights, marks = drawn(10.0, 5.0, 0.11)
    assert "0" in marks
    assert heights[1] - heights[0] == pytest.approx((heights[2] - heights[0]) * 5 / 9.89, abs=0.11)
    assert "0" in drawn(10.0, 0.0)[1]


def test_curves_of_one_or_two_points_show_them() -> None:
    events = [Event(time=0.0, kind="log", step=step, data={"loss": 1.0}) for step in (1, 2, 3)]
    assert len(parts(chart.learning_curve(events[:2]), "circle")) == 2
    assert parts(chart.learning_curve(events), "circle") == []


def test_long_curves_are_thinned_but_keep_their_end() -> None:
    events = [Event(time=0.0, kind="log", step=step, data={"loss": 1 / step}) for step in range(1, 10_002)]
    points = parts(chart.learning_curve(events), "polyline")[0].attrib["points"].split()
    assert len(points) <= chart.POINTS + 1
    assert float(points[-1].split(",")[0]) == chart.WIDTH - chart.RIGHT


def test_interval_bar_tells_what_it_draws_and_the_loss_that_is_accepted() -> None:
    lost = compared("exact_match", 0.6, 0.3, 0.1, margin=0.05, kept=False)
    bar = chart.interval_bar(lost)
    told = "exact match: -30.0 points, interval -40.0 to -20.0 points, worse, accepted loss -5.0 points."
    assert ElementTree.fromstring(str(bar)).attrib["aria-label"] == told
    limits = [float(line.attrib["x1"]) for line in parts(bar, "line") if line.attrib["class"] == "limit"]
    assert limits == [pytest.approx(110 * (1 - 0.05 / (0.4 * 1.15)), abs=0.1)]
    lines = parts(chart.interval_bar(comparison("loss")), "line")
    assert "limit" not in {line.attrib["class"] for line in lines}


def test_interval_bar_puts_the_difference_on_its_side_of_zero() -> None:
    def at(svg: Any) -> float:
        return float(parts(svg, "circle")[0].attrib["cx"])

    match, loss = comparison("exact_match"), comparison("loss")
    assert at(chart.interval_bar(match)) > 110
    assert at(chart.interval_bar(loss)) > 110, "a loss that falls is better"
    worse = match.model_copy(update={"difference": -0.98, "interval": Interval(low=-1, high=-0.9, method="m")})
    assert at(chart.interval_bar(worse)) < 110
    assert chart.interval_bar(comparison("loss").model_copy(update={"interval": None})) is None
