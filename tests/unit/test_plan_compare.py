"""Machines against ways to train."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.options import option, span
from tests.support.steps import ROWS, llama, make_step
from tunesmith.plan import compare as comparison
from tunesmith.plan import sizing
from tunesmith.plan.compare import cheaper, compare, is_tight, recommend
from tunesmith.plan.documents import Documents
from tunesmith.plan.machines import Machine, find_machine
from tunesmith.plan.memory import estimate
from tunesmith.plan.memory.step import Step
from tunesmith.plan.time import Schedule, estimate_time
from tunesmith.records import MemoryEstimate
from tunesmith.records.cost import MachineOption, TimeEstimate

GB = 10**9
SCHEDULE = Schedule(epochs=3, accumulation=16)


def flat(step: Step) -> MemoryEstimate:
    """A peak that grows by the row: 10 GB for an adapter, 30 for all weights in bf16, 60 in fp32, 4 for QLoRA."""
    static = {"lora": 10, "qlora": 4, "none": 60 if step.dtype == "float32" else 30}[step.adapter]
    if step.sharding == "fsdp":
        static //= step.devices
    per_row = 1 if step.checkpointing == "full" else 5
    return MemoryEstimate(
        weights=0, gradients=0, optimizer=0, state=0, reserved=(static + per_row * step.rows) * GB, context=GB
    )


def options(
    *names: str,
    peak: Any = flat,
    schedule: Schedule = SCHEDULE,
    documents: Documents = ROWS,
    given: dict[str, Any] | None = None,
    **step: Any,
) -> list[MachineOption]:
    machines = [find_machine(name) for name in names]
    with pytest.MonkeyPatch.context() as patch:
        for module in (comparison, sizing):
            patch.setattr(module, "estimate", peak)
        return compare(make_step(**step), documents, schedule, machines, given=given)


def by_adapter(name: str, **how: Any) -> dict[str, MachineOption]:
    return {option.adapter: option for option in options(name, **how)}


def test_each_machine_with_each_way() -> None:
    found = options("l4x1", "a100-large", "rtx-4090")
    assert [(one.machine, one.adapter) for one in found] == [
        (name, adapter) for name in ("l4x1", "a100-large", "rtx-4090") for adapter in ("none", "lora", "qlora")
    ]
    assert found[0].provider == "hf-jobs"
    assert all(one.fits == (one.hours is not None) for one in found)
    assert all(one.dollars is None for one in found if one.machine == "rtx-4090")


def test_the_largest_batch_that_fits_and_no_larger_than_an_update() -> None:
    """24 GB take 10 + 1 and 5 or 1 a row; 80 GB all 16 rows of an update, when activations are computed again."""
    small = by_adapter("l4x1")
    assert small["lora"].fits
    assert small["lora"].peak <= small["lora"].memory
    large = by_adapter("a100-large", schedule=Schedule(accumulation=4))
    assert large["lora"].rows <= 4


def test_what_does_not_fit_says_what_it_would_need() -> None:
    none = by_adapter("l4x1")["none"]
    assert (none.fits, none.hours, none.tokens_per_second, none.rows) == (False, None, None, 1)
    assert none.peak == (30 + 1 + 1) * GB


def test_full_fine_tuning_falls_back_to_bf16_and_says_what_that_costs() -> None:
    fallback = by_adapter("l40sx1")["none"]
    assert (fallback.fits, fallback.dtype) == (True, "bfloat16")
    assert "P010" in fallback.note
    exact = by_adapter("a100-large")["none"]
    assert (exact.dtype, exact.note) == ("float32", "")


def test_several_devices_share_the_weights_of_full_fine_tuning() -> None:
    four = by_adapter("l40sx4")
    assert (four["none"].dtype, four["none"].fits) == ("float32", True)
    assert "FSDP" in four["none"].note
    assert "FSDP" not in four["lora"].note


def test_the_plans_own_dtype_is_kept_for_its_own_way() -> None:
    assert by_adapter("h200", dtype="float32")["lora"].dtype == "float32"
    assert by_adapter("h200", dtype="float32")["qlora"].dtype == "bfloat16"
    assert by_adapter("t4-small")["lora"].dtype == "float32"  # its tensor cores have no bf16


def test_no_qlora_without_a_gpu() -> None:
    assert {one.adapter for one in options("cpu-xl")} == {"none", "lora"}


def test_checkpointing_only_where_it_helps() -> None:
    assert by_adapter("h200")["lora"].checkpointing == "off"
    assert (
        by_adapter("l4x1", peak=lambda step: flat(step.model_copy(update={"rows": step.rows + 2})))[
            "lora"
        ].checkpointing
        == "full"
    )


def test_a_margin_is_left_in_what_is_recommended() -> None:
    options = [one for one in by_adapter("l4x1", peak=estimate).values() if one.fits]
    tight = [one.model_copy(update={"peak": round(0.96 * one.memory)}) for one in options]
    roomy = [one.model_copy(update={"machine": "roomy", "peak": one.memory // 2}) for one in options]
    dear = [one.model_copy(update={"dollars": one.dollars.times(3)}) for one in roomy if one.dollars]
    assert recommend([*tight, *dear])[0] in dear
    assert recommend(tight)[0] in tight


def test_with_the_real_estimate_small_cards_take_qlora_only() -> None:
    found = {adapter: option.fits for adapter, option in by_adapter("rtx-4060-ti-16gb", peak=estimate).items()}
    assert found == {"none": False, "lora": False, "qlora": True}
    assert by_adapter("h200", peak=estimate)["none"].fits


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


def test_a_small_model_is_not_recommended_a_big_machine() -> None:
    small = llama(layers=8, hidden=512, intermediate=1024, heads=8, kv_heads=8, head_dim=64, vocabulary=8000)
    small = small.model_copy(
        update={
            "parameters": 30_000_000,
            "parts": small.parts.model_copy(
                update={"attention": 8_000_000, "mlp": 12_000_000, "embedding": 4_000_000, "head": 4_000_000}
            ),
            "linears": [
                shape.model_copy(update={"in_features": 512, "out_features": 512, "count": 8})
                for shape in small.linears
            ],
        }
    )
    machines: list[Machine] = [find_machine(name) for name in ("a10g-small", "h200x8")]
    best, _ = recommend(compare(make_step(model=small), ROWS, SCHEDULE, machines), "lora")
    assert best is not None
    assert best.machine == "a10g-small"


def asked(monkeypatch: pytest.MonkeyPatch, machine: str, **how: Any) -> list[tuple[Step, Schedule]]:
    """What the time of a machine's options was estimated for."""
    seen = []

    def watched(step: Step, where: Machine, documents: Documents, schedule: Schedule) -> TimeEstimate:
        seen.append((step, schedule))
        return estimate_time(step, where, documents, schedule)

    monkeypatch.setattr(comparison, "estimate_time", watched)
    options(machine, **how)
    return seen


def test_an_update_keeps_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows in a batch, or more devices, mean fewer batches per update, not larger updates."""
    for machine in ("a100-large", "a100x4"):
        for step, schedule in asked(monkeypatch, machine, rows=2, schedule=Schedule(accumulation=16)):
            assert step.rows * step.devices * schedule.accumulation == 32
    shared = asked(monkeypatch, "l4x1", rows=1, devices=2, schedule=Schedule(accumulation=4))
    assert {step.rows * step.devices * schedule.accumulation for step, schedule in shared} == {8}
    alone = asked(monkeypatch, "h200x8", schedule=Schedule(accumulation=1))
    assert {(step.rows, schedule.accumulation) for step, schedule in alone} == {(1, 1)}


def test_rows_of_like_length_come_together_where_that_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def grouped(lengths: list[int], **given: Any) -> set[bool]:
        watched = asked(monkeypatch, "a100-large", documents=Documents.of(lengths), given=given)
        return {schedule.grouped for step, schedule in watched if step.rows > 1}

    uneven = [100] * 90 + [2000] * 10
    assert (grouped(uneven), grouped([500] * 100)) == ({True}, {False})
    assert grouped(uneven, train_sampling_strategy="random") == {False}
    assert grouped([500] * 100, train_sampling_strategy="group_by_length") == {True}


def test_what_the_recipe_sets_holds_for_every_machine() -> None:
    given = {"per_device_train_batch_size": 1, "gradient_checkpointing": True}
    found = by_adapter("h200", given=given, schedule=Schedule(accumulation=1))
    assert {(one.rows, one.checkpointing) for one in found.values()} == {(1, "full")}


def test_a_processor_takes_a_row_at_a_time() -> None:
    assert {one.rows for one in options("cpu-xl", peak=estimate)} == {1}


def test_the_most_rows_without_recomputing_as_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 GB without QLoRA's 4 and the context: 3 rows of 5 GB."""
    sizes = {(step.checkpointing, step.rows) for step, _ in asked(monkeypatch, "l4x1") if step.adapter == "qlora"}
    assert sizes == {("off", 2)}


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
