"""The step that a recipe comes to, and the micro-batch that fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.plans import CPU, GPU, codes, make_plan, make_recipe
from tunesmith.models.facts import model_facts
from tunesmith.models.families import find_known, write_config
from tunesmith.models.source import Source, locate
from tunesmith.plan.fit import need
from tunesmith.plan.memory import Step, estimate
from tunesmith.plan.sizing import EFFECTIVE_BATCH, devices_of, fitting_kinds, micro_batch, step_of
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
    assert devices_of(recipe(launch={"processes": 5}), four) == 4
    assert devices_of(recipe(launch={"processes": 2}), CPU) == 1
    assert devices_of(recipe(launch={"on": "hf-jobs"}), four) == 4
    assert devices_of(recipe(launch={"on": "hf-jobs", "processes": 3}), four) == 3
    assert made(hardware=four, launch={"on": "sky"}).sharding == "ddp"
    assert made(hardware=four, launch={"on": "sky"}, adapter={"kind": "none"}).sharding == "fsdp"
    assert made().sharding == "none"


def test_on_a_processor_rows_go_by_speed() -> None:
    small = made(hardware=CPU).model_copy(update={"model": SMALL})
    tiny, one = micro_batch(small, CPU), micro_batch(made(hardware=CPU), CPU)
    assert (tiny.rows, tiny.recomputes) == (EFFECTIVE_BATCH, False)
    assert (one.rows, one.recomputes) == (1, False)
    assert tiny.why_rows.startswith("a tiny model")
    assert one.why_rows == "on a CPU single rows without padding are fastest"


@given(st.integers(1, 64), st.sampled_from([128, 1024, 8192]), st.sampled_from([1, 2]))
def test_a_micro_batch_that_is_said_to_fit_fits(gibibytes: int, length: int, devices: int) -> None:
    hardware = GPU.model_copy(update={"memory": gibibytes * GIB})
    step = made().model_copy(
        update={"length": length, "devices": devices, "sharding": "ddp" if devices > 1 else "none"}
    )
    rows, why, recomputes, _ = micro_batch(step, hardware)
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
        bare = sized.model_copy(update={"rows": 1, "checkpointing": "off", "padded": False, "accumulate": devices < 16})
        assert need(estimate(bare)) > hardware.memory


LONG = made().model_copy(update={"length": 8192, "rows": 1})


def peak(step: Step, rows: int, checkpointing: str) -> int:
    """Bytes of a step of so many rows of an update of 16."""
    how = {"rows": rows, "checkpointing": checkpointing, "padded": rows > 1, "accumulate": rows < 16}
    return need(estimate(step.model_copy(update=how)))


def test_rows_go_by_the_recomputing_that_the_recipe_sets() -> None:
    hardware = GPU.model_copy(update={"memory": peak(LONG, 2, "off")})
    free, off, full = (
        micro_batch(LONG, hardware, {} if given is None else {"gradient_checkpointing": given})
        for given in (None, False, True)
    )
    assert (free.rows, free.recomputes) == (off.rows, off.recomputes) == (2, False)
    assert full.recomputes
    assert full.rows > 2
    small = GPU.model_copy(update={"memory": peak(LONG, 1, "full")})
    tight = micro_batch(LONG, small, {"gradient_checkpointing": False})
    assert (tight.rows, tight.recomputes, tight.why_rows) == (1, False, "the smallest; even that doesn't fit")


def test_recomputing_goes_by_the_rows_that_the_recipe_sets() -> None:
    hardware = GPU.model_copy(update={"memory": peak(LONG, 2, "off")})
    two, three = (micro_batch(LONG, hardware, {"per_device_train_batch_size": rows}) for rows in (2, 3))
    assert (two.rows, two.recomputes, two.why_recomputes) == (2, False, "activations fit; recomputing costs a quarter")
    assert (three.rows, three.recomputes) == (3, True)
    assert three.why_recomputes == "activations don't fit in memory otherwise"
    none = micro_batch(LONG, GPU.model_copy(update={"memory": 1}), {"per_device_train_batch_size": 3})
    assert (none.rows, none.recomputes) == (3, True)
    assert none.why_recomputes.endswith("even so the step doesn't fit")


def test_a_processor_recomputes_where_activations_do_not_fit() -> None:
    step = LONG.model_copy(update={"mixed": False, "dtype": "float32"})
    fitting, tight = (
        micro_batch(step, CPU.model_copy(update={"memory": memory}))
        for memory in (peak(step, 1, "off"), peak(step, 1, "off") - 1)
    )
    assert (fitting.rows, fitting.recomputes) == (1, False)
    assert (tight.rows, tight.recomputes) == (1, True)


def test_what_is_offloaded_is_recomputed() -> None:
    chosen = micro_batch(LONG, GPU, {"activation_offloading": True})
    assert (chosen.recomputes, "activation_offloading" in chosen.why_recomputes) == (True, True)


def test_accumulated_gradients_count_where_the_recipe_asks_for_them() -> None:
    all_weights = LONG.model_copy(update={"adapter": "none", "dtype": "float32"})
    once = need(estimate(all_weights.model_copy(update={"rows": 1, "checkpointing": "off", "accumulate": False})))
    hardware = GPU.model_copy(update={"memory": once})
    assert once < peak(all_weights, 1, "off")
    given = {"per_device_train_batch_size": 1, "gradient_checkpointing": False}
    assert "doesn't fit" in micro_batch(all_weights, hardware, given).why_rows
    given["gradient_accumulation_steps"] = 1
    assert "doesn't fit" not in micro_batch(all_weights, hardware, given).why_rows


def test_4_bits_fit_on_gpus_only() -> None:
    step = made()
    assert fitting_kinds(step, GPU) == {"none": True, "lora": True, "qlora": True}
    assert fitting_kinds(step, CPU.model_copy(update={"memory": 100 * GIB})) == {
        "none": True, "lora": True, "qlora": False,
    }  # fmt: skip
    between = need(estimate(LONG.model_copy(update={"length": 100, "adapter": "qlora", "checkpointing": "full"})))
    assert fitting_kinds(step, GPU.model_copy(update={"memory": between})) == {
        "none": False, "lora": False, "qlora": True,
    }  # fmt: skip


def test_p037_more_processes_than_devices() -> None:
    many = make_recipe(launch={"processes": 3})
    for hardware, where in (
        (CPU, "this machine (cpu)"),
        (GPU.model_copy(update={"machine": "a10g-large (hf-jobs)"}), "a10g"),
    ):
        plan = make_plan(many, hardware)
        (one,) = [found for found in plan.findings if found.code == "P037"]
        assert (one.severity, one.where) == ("error", "launch.processes")
        assert where in one.what
        assert one.what.endswith("has 1 device.")
        assert "processes: 1" in one.fix
        alone = make_plan(make_recipe(), hardware)
        assert (plan.time, plan.tokens_per_step) == (alone.time, alone.tokens_per_step)
    assert "P037" not in codes(make_plan(many, GPU.model_copy(update={"count": 3})))
    assert "P037" not in codes(make_plan(make_recipe()))


def test_the_plan_decides_for_what_the_recipe_sets() -> None:
    model = known()
    given = {"per_device_train_batch_size": 16}
    rows = [{"text": "word " * 500 + str(n)} for n in range(40)]
    two = {"per_device_train_batch_size": 2, "gradient_checkpointing": False}
    hardware = GPU.model_copy(update={"memory": need(make_plan(make_recipe(rows, training=two), GPU, model).memory)})
    free, sixteen, never = (
        make_plan(make_recipe(rows, training=training), hardware, model)
        for training in ({}, given, {"gradient_checkpointing": False})
    )
    assert not free.training["gradient_checkpointing"]
    assert sixteen.training["gradient_checkpointing"]
    assert never.training["per_device_train_batch_size"] == free.training["per_device_train_batch_size"] == 2
