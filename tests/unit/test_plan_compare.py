"""Machines against ways to train."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.options import option, span
from tests.support.steps import ROWS, make_step
from tunesmith.plan.compare import ADAPTERS, Way, cheaper, compare, is_tight, recommend
from tunesmith.plan.machines import Machine, find_machine
from tunesmith.plan.time import Schedule, estimate_time
from tunesmith.recipe.adapter import Kind
from tunesmith.records import MemoryEstimate

GB = 10**9


def way(machine: Machine, kind: Kind, peak: int, lacks: str = "", **step: object) -> Way:
    """A way to train that takes so many GB of each device."""
    memory = MemoryEstimate(
        weights=0, gradients=0, optimizer=0, state=0, reserved=(peak - 1) * GB, context=GB
    )  # fmt: skip
    made = make_step(adapter=kind, **step)
    return Way(made, memory, estimate_time(made, machine, ROWS, Schedule(epochs=3)), lacks)


def test_each_machine_with_each_kind() -> None:
    names = ("l4x1", "a100-large", "rtx-4090")
    found = compare(map(find_machine, names), lambda machine, kind: [way(machine, kind, 10)])
    assert [(one.machine, one.adapter) for one in found] == [(name, kind) for name in names for kind in ADAPTERS]
    assert found[0].provider == "hf-jobs"
    assert all(one.dollars is None for one in found if one.machine == "rtx-4090")
    only = compare([find_machine("l4x1")], lambda machine, kind: [way(machine, kind, 10)], ["lora"])
    assert only == [one for one in found if (one.machine, one.adapter) == ("l4x1", "lora")]


def test_no_qlora_without_a_gpu() -> None:
    found = compare([find_machine("cpu-xl")], lambda machine, kind: [way(machine, kind, 10)])
    assert {one.adapter for one in found} == {"none", "lora"}


def test_the_first_way_that_fits_is_taken_and_no_other_is_asked_for() -> None:
    asked = []

    def ways(machine: Machine, kind: Kind) -> Iterator[Way]:
        for peak in (30, 20, 10):
            asked.append(peak)
            yield way(machine, kind, peak, f"lacks at {peak}", rows=peak)

    (found,) = compare([find_machine("l4x1")], ways, ["lora"])
    assert (found.fits, found.peak, found.rows, found.lacks) == (True, 20 * GB, 20, "lacks at 20")
    assert asked == [30, 20]


def test_what_fits_has_its_time_and_cost() -> None:
    machine = find_machine("l4x1")
    made = way(machine, "lora", 10)
    (found,) = compare([machine], lambda machine, kind: [made], ["lora"])
    assert found.tokens_per_second == made.time.tokens_per_second
    assert found.hours == made.time.total.times(1 / 3600)
    assert found.dollars is not None
    assert found.hours is not None
    assert machine.per_hour is not None
    assert abs(found.dollars.likely - found.hours.likely * machine.per_hour) < 1e-9


def test_what_does_not_fit_says_what_it_would_need() -> None:
    (none,) = compare([find_machine("l4x1")], lambda machine, kind: [way(machine, kind, n) for n in (60, 30)], ["none"])
    assert (none.fits, none.hours, none.dollars, none.tokens_per_second) == (False, None, None, None)
    assert none.peak == 30 * GB


def test_notes_tell_of_what_a_way_costs() -> None:
    def noted(kind: Kind, **step: object) -> str:
        found = compare([find_machine("a100x4")], lambda machine, kind: [way(machine, kind, 10, **step)], [kind])
        return found[0].note

    assert "P010" in noted("none", dtype="bfloat16")
    assert noted("none", dtype="float32") == noted("lora", devices=4, sharding="ddp") == ""
    assert noted("lora", devices=4, sharding="fsdp") == "weights spread over 4 devices (FSDP)"


def test_a_margin_is_left_in_what_is_recommended() -> None:
    tight, dear = option(peak=96, memory=100), option(machine="roomy", peak=50, memory=100, dollars=span(15))
    assert recommend([tight, dear])[0] == dear
    assert recommend([tight])[0] == tight


def test_the_cheapest_is_recommended() -> None:
    best, reason = recommend([option(machine="dear", dollars=span(9)), option(machine="cheap", dollars=span(4))])
    assert best is not None
    assert best.machine == "cheap"
    assert reason == "the lowest likely cost, $4.00 for 2.0 hours, of the 2 options that fit"


def test_of_equally_cheap_ones_the_faster() -> None:
    best, reason = recommend([option(machine="slow"), option(machine="fast", dollars=span(5.2), hours=span(1))])
    assert best is not None
    assert best.machine == "fast"
    assert "of those within 5% of it, the fastest" in reason


def test_one_that_takes_days_is_not_recommended_while_others_do_not() -> None:
    days = option(machine="cpu", dollars=span(1), hours=span(100))
    best, reason = recommend([days, option(machine="gpu")])
    assert best is not None
    assert best.machine == "gpu"
    assert "end within 24 hours" in reason
    assert recommend([days])[0] == days


def test_what_rounds_its_updates_away_is_the_last_resort() -> None:
    rounded = option(machine="rounded", adapter="none", dtype="bfloat16", dollars=span(1))
    best, _ = recommend([rounded, option(machine="lora")])
    assert best is not None
    assert best.machine == "lora"
    assert recommend([rounded])[0] == rounded


def test_what_only_fits_when_the_recipe_is_changed_is_the_last_resort() -> None:
    spread = option(machine="spread", sharding="fsdp", note="weights spread", dollars=span(1))
    tight = option(machine="tight", peak=99, memory=100)
    assert recommend([spread, tight])[0] == tight
    only, reason = recommend([spread])
    assert only == spread
    assert reason.endswith("(weights spread)")
    full = spread.model_copy(update={"adapter": "none", "dtype": "float32"})
    assert recommend([full, option(machine="m", adapter="none", dtype="float32")])[0] == full


def test_only_what_fits_and_has_a_price_is_recommended() -> None:
    best, reason = recommend([option(fits=False, hours=None, dollars=None), option(machine="own", dollars=None)])
    assert best is None
    assert "none of the machines" in reason
    chosen, _ = recommend([option(machine="a"), option(machine="b", adapter="qlora", dollars=span(1))], adapter="lora")
    assert chosen is not None
    assert chosen.machine == "a"


def test_what_lacks_main_memory_or_disk_is_not_recommended() -> None:
    best, reason = recommend([option(machine="poor", lacks="1 GB of disk", dollars=span(1)), option(machine="m")])
    assert best is not None
    assert best.machine == "m"
    assert "of the 1 options" in reason


def test_something_cheaper_by_more_than_a_tie() -> None:
    here, near, far = option(dollars=span(5)), option(machine="near", dollars=span(4.9)), option(machine="far")
    far = far.model_copy(update={"dollars": span(3)})
    assert cheaper(here, [here, near], "lora") is None
    assert cheaper(here, [here, far], "lora") == far
    assert cheaper(here, [here, far], "qlora") is None
    assert cheaper(None, [near], "lora") == near


def test_tight_is_more_than_95_percent_of_the_memory() -> None:
    assert is_tight(option(peak=96, memory=100))
    assert not is_tight(option(peak=95, memory=100))
