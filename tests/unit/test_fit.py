"""The largest micro-batch that fits, and what to change when none does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.plans import CPU, GPU, make_plan, make_recipe
from tunesmith.models.facts import model_facts
from tunesmith.models.families import find_known, write_config
from tunesmith.models.source import Source
from tunesmith.plan.fit import largest_batch, need, remedies
from tunesmith.plan.memory import Step, estimate
from tunesmith.records import Hardware, ModelFacts, Remedy

GB = 10**9


def facts(name: str) -> ModelFacts:
    known = find_known(name)
    assert known is not None
    return model_facts(Source(name, name, write_config(known), as_of=known.as_of), planning=True)


def gpu(gigabytes: int) -> Hardware:
    return GPU.model_copy(update={"memory": gigabytes * GB})


def cpu(gigabytes: int) -> Hardware:
    return CPU.model_copy(update={"memory": gigabytes * GB})


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
    assert remedies(Step(model=LLAMA, adapter="qlora", dtype="bfloat16", checkpointing="full"), gpu(24)) == []


def test_remedies_go_from_what_is_free_to_what_costs_quality() -> None:
    step = Step(
        model=LLAMA, rows=8, length=4096, dtype="float32", optimizer="adamw_torch", attention="eager", fused_loss=False
    )
    found = remedies(step, gpu(12))
    changes = [next(iter(remedy.settings)) for remedy in found]
    assert changes[:2] == ["fused_loss", "attention"]
    assert changes.index("rows") < changes.index("checkpointing") < changes.index("adapter")
    assert found[-1].settings["adapter"] == "qlora"
    assert [remedy.fits for remedy in found] == [False] * (len(found) - 1) + [True]


def test_remedies_add_up_and_save_what_they_say() -> None:
    step = Step(model=LLAMA, rows=8, length=2048, dtype="float32")
    now = need(estimate(step))
    for remedy in remedies(step, gpu(24)):
        step = step.model_copy(update=remedy.settings)
        assert remedy.needs == need(estimate(step)) == now - remedy.saves
        assert remedy.saves >= 0.01 * now
        now = remedy.needs


def test_a_frozen_base_in_fp32_is_the_first_to_go() -> None:
    step = Step(model=LLAMA, adapter="lora", dtype="float32", length=2048, checkpointing="full")
    (only,) = remedies(step, gpu(24))
    assert only.settings == {"dtype": "bfloat16"}
    assert only.saves > 15 * GB


def test_fewer_rows_are_as_many_as_fit() -> None:
    step = Step(model=LLAMA, adapter="lora", dtype="bfloat16", rows=16, length=2048, checkpointing="full")
    (only,) = remedies(step, gpu(24))
    rows = int(only.settings["rows"])
    assert rows > 1
    assert needed(step.model_copy(update={"accumulate": True}), rows + 1) > 24 * GB


def test_a_reference_model_is_computed_before_it_is_held() -> None:
    step = Step(
        model=LLAMA, method="dpo", reference="model", dtype="bfloat16", length=256, checkpointing="full", devices=1
    )
    first = remedies(step, gpu(80))[0]
    assert first.settings == {"reference": "precomputed"}


def test_several_devices_share_before_anything_gets_slower() -> None:
    step = Step(model=LLAMA, dtype="bfloat16", devices=8, sharding="ddp", rows=1, length=1024, checkpointing="full")
    found = remedies(step, gpu(60))
    assert "sharding" in [next(iter(remedy.settings)) for remedy in found]
    assert found[-1].fits


def test_a_hopeless_step_ends_with_a_remedy_that_doesnt_fit() -> None:
    found = remedies(Step(model=LLAMA, rows=4, length=8192, dtype="float32"), gpu(2))
    assert found
    assert not found[-1].fits
    assert found[-1].settings["length"] == 512


def test_an_adapter_is_offered_no_change_to_what_it_is() -> None:
    found = remedies(Step(model=LLAMA, adapter="lora", dtype="bfloat16", rows=2, length=4096), gpu(2))
    settings = [remedy.settings for remedy in found]
    assert {"adapter": "lora"}.items() not in [setting.items() for setting in settings]
    assert not any("optimizer" in setting and "adapter" not in setting for setting in settings)
    assert settings[-1] == {"length": 512}


def test_bf16_weights_come_after_everything_that_costs_only_speed() -> None:
    found = remedies(Step(model=LLAMA, rows=2, length=2048, dtype="float32"), gpu(60))
    names = [next(iter(remedy.settings)) for remedy in found]
    assert names.index("checkpointing") < names.index("dtype")
    assert found[0].settings == {"optimizer": "adamw_bnb_8bit"}


def test_a_quantised_base_is_not_quantised_again() -> None:
    gptq = LLAMA.model_copy(update={"quantised": "gptq"})
    found = remedies(Step(model=gptq, adapter="lora", dtype="bfloat16", rows=2, length=4096), gpu(2))
    assert not any("adapter" in remedy.settings for remedy in found)


def test_selective_checkpointing_is_for_all_weights_only() -> None:
    """PEFT's wrapper refuses it (P036)."""
    lora = remedies(Step(model=LLAMA, adapter="lora", dtype="bfloat16", length=2048), gpu(24))
    assert [remedy.settings for remedy in lora] == [{"checkpointing": "full"}]
    full = remedies(Step(model=LLAMA, dtype="bfloat16", length=8192), gpu(66))
    assert {"checkpointing": "selective"} in [remedy.settings for remedy in full]


def test_a_processor_is_offered_nothing_that_needs_a_gpu() -> None:
    for step in (
        Step(model=LLAMA, adapter="lora", dtype="float32", mixed=False, rows=2, length=4096),
        Step(model=LLAMA, dtype="float32", mixed=False, rows=2, length=4096),
    ):
        found = remedies(step, cpu(4))
        said = " ".join(remedy.change for remedy in found)
        assert not any(word in said for word in ("bitsandbytes", "qlora", "offloading"))
        (half,) = [remedy for remedy in found if remedy.settings == {"dtype": "bfloat16"}]
        assert "slower" in half.costs
        assert "faster" not in half.costs
        assert half != found[0]


def test_an_adapter_keeps_the_dtype_of_a_device_without_bf16() -> None:
    found = remedies(Step(model=facts("Qwen/Qwen3-0.6B"), dtype="float16", mixed=False, length=64), cpu(2))
    (adapter,) = [remedy for remedy in found if "adapter" in remedy.settings]
    assert adapter.settings["dtype"] == "float16"


def as_recipe(keys: dict[str, Any], remedy: Remedy) -> dict[str, Any]:
    """The recipe's keys after a remedy."""
    training, keys = dict(keys["training"]), dict(keys)
    for name, value in remedy.settings.items():
        if name == "rows":
            training |= {"per_device_train_batch_size": value, "gradient_accumulation_steps": 16 // int(value)}
        elif name == "checkpointing":
            kwargs = {"gradient_checkpointing_kwargs": {"selective": True}} if value == "selective" else {}
            training.pop("gradient_checkpointing_kwargs", None)
            training |= {"gradient_checkpointing": True, "activation_offloading": value == "offload", **kwargs}
        elif name in ("optimizer", "length"):
            training[{"optimizer": "optim", "length": "max_length"}[name]] = value
        elif name == "adapter":
            keys["adapter"] = {"kind": value}
        elif name == "dtype":
            keys["dtype"] = value
        else:
            assert name == "accumulate"
    return keys | {"training": training}


@pytest.mark.parametrize("kind", ["none", "lora"])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_no_remedy_is_refused_by_another_rule(kind: str, device: str) -> None:
    """P007 apart, which says itself that a base in 4 bits can be planned only."""
    hardware = gpu(1) if device == "cuda" else cpu(1)
    model = facts("Qwen/Qwen3-0.6B")
    keys: dict[str, Any] = {
        "adapter": {"kind": kind},
        "launch": {"on": "hf-jobs" if device == "cuda" else "local"},  # what isn't installed here is no matter there
        "training": {"per_device_train_batch_size": 16, "gradient_checkpointing": False, "optim": "adamw_torch"},
    }

    def errors(keys: dict[str, Any]) -> set[tuple[str, str]]:
        plan = make_plan(make_recipe(**keys), hardware, model)
        return {(one.code, one.where) for one in plan.findings if one.severity == "error"}

    proposed = make_plan(make_recipe(**keys), hardware, model).remedies
    before = errors(keys) | {("P007", "adapter.kind")}
    assert len(proposed) >= 3
    assert ("P006", "memory") in before
    for remedy in proposed:
        keys = as_recipe(keys, remedy)
        assert errors(keys) <= before, remedy.change
