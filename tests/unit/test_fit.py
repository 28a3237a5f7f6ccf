"""The largest micro-batch that fits, and what to change when none does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.models.facts import model_facts
from tunesmith.models.families import find_known, write_config
from tunesmith.models.source import Source
from tunesmith.plan.fit import largest_batch, need, remedies
from tunesmith.plan.memory import Step, estimate
from tunesmith.records import ModelFacts

GB = 10**9


def facts(name: str) -> ModelFacts:
    known = find_known(name)
    assert known is not None
    return model_facts(Source(name, name, write_config(known), as_of=known.as_of), planning=True)


LLAMA = facts("meta-llama/Llama-3.1-8B")


def needed(step: Step, rows: int) -> int:
    return need(estimate(step.model_copy(update={"rows": rows})))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(64, 16_384), st.sampled_from(["off", "full"]))
def test_the_largest_batch_fits_and_one_more_row_does_not(gigabytes: int, length: int, checkpointing: str) -> None:
    step = Step.model_validate(
        {"model": LLAMA, "adapter": "lora", "dtype": "bfloat16", "length": length, "checkpointing": checkpointing}
    )
    rows = largest_batch(step, gigabytes * GB)
    assert rows == 0 or needed(step, rows) <= gigabytes * GB
    assert needed(step, rows + 1) > gigabytes * GB


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8])
def test_the_largest_batch_stops_at_the_most(most: int) -> None:
    step = Step(model=facts("Qwen/Qwen3-0.6B"), adapter="lora", dtype="bfloat16", length=256, checkpointing="full")
    assert largest_batch(step, 80 * GB, most=most) == most


def test_what_fits_needs_no_remedy() -> None:
    assert remedies(Step(model=LLAMA, adapter="qlora", dtype="bfloat16", checkpointing="full"), 24 * GB) == []


def test_remedies_go_from_what_is_free_to_what_costs_quality() -> None:
    step = Step(
        model=LLAMA, rows=8, length=4096, dtype="float32", optimizer="adamw_torch", attention="eager", fused_loss=False
    )
    found = remedies(step, 12 * GB)
    changes = [next(iter(remedy.settings)) for remedy in found]
    assert changes[:2] == ["fused_loss", "attention"]
    assert changes.index("rows") < changes.index("checkpointing") < changes.index("adapter")
    assert found[-1].settings["adapter"] == "qlora"
    assert [remedy.fits for remedy in found] == [False] * (len(found) - 1) + [True]


def test_remedies_add_up_and_save_what_they_say() -> None:
    step = Step(model=LLAMA, rows=8, length=2048, dtype="float32")
    now = need(estimate(step))
    for remedy in remedies(step, 24 * GB):
        step = step.model_copy(update=remedy.settings)
        assert remedy.needs == need(estimate(step)) == now - remedy.saves
        assert remedy.saves >= 0.01 * now
        now = remedy.needs


def test_a_frozen_base_in_fp32_is_the_first_to_go() -> None:
    step = Step(model=LLAMA, adapter="lora", dtype="float32", length=2048, checkpointing="full")
    (only,) = remedies(step, 24 * GB)
    assert only.settings == {"dtype": "bfloat16"}
    assert only.saves > 15 * GB


def test_fewer_rows_are_as_many_as_fit() -> None:
    step = Step(model=LLAMA, adapter="lora", dtype="bfloat16", rows=16, length=2048, checkpointing="full")
    (only,) = remedies(step, 24 * GB)
    rows = int(only.settings["rows"])
    assert rows > 1
    assert needed(step.model_copy(update={"accumulate": True}), rows + 1) > 24 * GB


def test_a_reference_model_is_computed_before_it_is_held() -> None:
    step = Step(
        model=LLAMA, method="dpo", reference="model", dtype="bfloat16", length=256, checkpointing="full", devices=1
    )
    first = remedies(step, 80 * GB)[0]
    assert first.settings == {"reference": "precomputed"}


def test_several_devices_share_before_anything_gets_slower() -> None:
    step = Step(model=LLAMA, dtype="bfloat16", devices=8, sharding="ddp", rows=1, length=1024, checkpointing="full")
    found = remedies(step, 60 * GB)
    assert "sharding" in [next(iter(remedy.settings)) for remedy in found]
    assert found[-1].fits


def test_a_hopeless_step_ends_with_a_remedy_that_doesnt_fit() -> None:
    found = remedies(Step(model=LLAMA, rows=4, length=8192, dtype="float32"), 2 * GB)
    assert found
    assert not found[-1].fits
    assert found[-1].settings["length"] == 512


def test_an_adapter_is_offered_no_change_to_what_it_is() -> None:
    found = remedies(Step(model=LLAMA, adapter="lora", dtype="bfloat16", rows=2, length=4096), 2 * GB)
    settings = [remedy.settings for remedy in found]
    assert {"adapter": "lora"}.items() not in [setting.items() for setting in settings]
    assert not any("optimizer" in setting and "adapter" not in setting for setting in settings)
    assert settings[-1] == {"length": 512}


def test_bf16_weights_come_after_everything_that_costs_only_speed() -> None:
    found = remedies(Step(model=LLAMA, rows=2, length=2048, dtype="float32"), 60 * GB)
    names = [next(iter(remedy.settings)) for remedy in found]
    assert names.index("checkpointing") < names.index("dtype")
    assert found[0].settings == {"optimizer": "adamw_bnb_8bit"}


def test_a_quantised_base_is_not_quantised_again() -> None:
    gptq = LLAMA.model_copy(update={"quantised": "gptq"})
    found = remedies(Step(model=gptq, adapter="lora", dtype="bfloat16", rows=2, length=4096), 2 * GB)
    assert not any("adapter" in remedy.settings for remedy in found)
