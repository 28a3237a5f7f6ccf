"""The step that a recipe comes to, and the micro-batch that fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.plans import CPU, GPU
from tunesmith.models.facts import model_facts
from tunesmith.models.families import find_known, write_config
from tunesmith.models.source import Source, locate
from tunesmith.plan.fit import need
from tunesmith.plan.memory import Step, estimate
from tunesmith.plan.sizing import EFFECTIVE_BATCH, devices_of, micro_batch, step_of
from tunesmith.recipe import Recipe, build_recipe
from tunesmith.records import Hardware, ModelFacts

GIB = 1 << 30
SMALL = model_facts(locate("builtin:small"))


def known(name: str = "Qwen/Qwen3-0.6B") -> ModelFacts:
    """A model of the shipped table."""
    row = find_known(name)
    assert row is not None
    return model_facts(Source(name, name, write_config(row), as_of=row.as_of), planning=True)


def recipe(**keys: Any) -> Recipe:
    return build_recipe({"model": "builtin:small", "data": {"train": "rows.jsonl"}, **keys})


def made(training: dict[str, Any] | None = None, hardware: Hardware = GPU, **keys: Any) -> Step:
    return step_of(recipe(**keys), known(), hardware, {"dtype": "bfloat16", **(training or {})}, length=100)


def test_a_step_of_trainer_arguments() -> None:
    step = made(
        {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "gradient_checkpointing": True,
            "optim": "adamw_torch",
            "bf16": True,
        },
        adapter={"kind": "lora", "r": 8, "targets": ["q_proj"]},
    )
    assert (step.rows, step.length, step.tokens, step.padded, step.accumulate) == (4, 100, 400, True, True)
    assert (step.adapter, step.rank, step.targets) == ("lora", 8, ["q_proj"])
    assert (step.dtype, step.mixed, step.optimizer, step.checkpointing) == ("bfloat16", True, "adamw_torch", "full")
    assert step.fused_loss
    single = made({"bf16": False})
    assert (single.rows, single.padded, single.accumulate, single.mixed) == (1, False, False, False)
    assert not made(hardware=CPU).mixed
    assert not made({"loss_type": "dft"}).fused_loss


@pytest.mark.parametrize(
    ("training", "checkpointing"),
    [
        ({}, "off"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}, "full"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"selective": True}}, "selective"),
        ({"activation_offloading": True}, "offload"),
    ],
)
def test_recomputing(training: dict[str, Any], checkpointing: str) -> None:
    assert made(training).checkpointing == checkpointing


def test_devices() -> None:
    four = GPU.model_copy(update={"count": 4})
    assert devices_of(recipe(), four) == 1
    assert devices_of(recipe(launch={"processes": 2}), four) == 2
    assert devices_of(recipe(launch={"on": "hf-jobs"}), four) == 4
    assert devices_of(recipe(launch={"on": "hf-jobs", "processes": 3}), four) == 3
    assert made(hardware=four, launch={"on": "sky"}).sharding == "ddp"
    assert made(hardware=four, launch={"on": "sky"}, adapter={"kind": "none"}).sharding == "fsdp"
    assert made().sharding == "none"


def test_on_a_processor_memory_decides_nothing() -> None:
    small = made(hardware=CPU).model_copy(update={"model": SMALL})
    assert micro_batch(small, CPU)[:2] == (EFFECTIVE_BATCH, False)
    assert micro_batch(made(hardware=CPU), CPU)[:2] == (1, False)


@given(st.integers(1, 64), st.sampled_from([128, 1024, 8192]), st.sampled_from([1, 2]))
def test_a_micro_batch_that_is_said_to_fit_fits(gibibytes: int, length: int, devices: int) -> None:
    hardware = GPU.model_copy(update={"memory": gibibytes * GIB})
    step = made().model_copy(
        update={"length": length, "devices": devices, "sharding": "ddp" if devices > 1 else "none"}
    )
    rows, recomputes, why = micro_batch(step, hardware)
    assert rows * devices in (devices, 2, 4, 8, 16)
    sized = step.model_copy(
        update={
            "rows": rows,
            "checkpointing": "full" if recomputes else "off",
            "padded": rows > 1,
            "accumulate": rows * devices < EFFECTIVE_BATCH,
        }
    )
    fits = need(estimate(sized)) <= hardware.memory
    assert fits or "doesn't fit" in why
    if recomputes and fits:
        bare = sized.model_copy(update={"rows": 1, "checkpointing": "off", "padded": True, "accumulate": True})
        assert need(estimate(bare)) > hardware.memory
