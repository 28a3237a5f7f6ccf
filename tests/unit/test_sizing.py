"""The step that a recipe comes to, and the micro-batch that fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.plans import CPU, GPU, make_plan, make_recipe
from tunesmith.models.facts import model_facts
from tunesmith.models.families import find_known, write_config
from tunesmith.models.source import Source, locate
from tunesmith.plan.documents import Documents
from tunesmith.plan.fit import need
from tunesmith.plan.memory import Step, estimate
from tunesmith.plan.methods import USUAL_BATCH
from tunesmith.plan.sizing import fitting_kinds, micro_batch, step_of
from tunesmith.recipe import Recipe, build_recipe
from tunesmith.records import VARLEN, Hardware, ModelFacts

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


def test_on_a_processor_rows_go_by_speed() -> None:
    small = made(hardware=CPU).model_copy(update={"model": SMALL})
    tiny, one = micro_batch(small, CPU), micro_batch(made(hardware=CPU), CPU)
    assert (tiny.rows, tiny.how) == (USUAL_BATCH, "off")
    assert (one.rows, one.how) == (1, "off")
    assert tiny.why_rows.startswith("a tiny model")
    assert one.why_rows == "on a CPU single rows without padding are fastest"


@given(st.integers(1, 64), st.sampled_from([128, 1024, 8192]), st.sampled_from([1, 2]))
def test_a_micro_batch_that_is_said_to_fit_fits(gibibytes: int, length: int, devices: int) -> None:
    hardware = GPU.model_copy(update={"memory": gibibytes * GIB})
    step = made().model_copy(
        update={"length": length, "devices": devices, "sharding": "ddp" if devices > 1 else "none"}
    )
    rows, why, how, _ = micro_batch(step, hardware)
    assert rows * devices in (devices, 2, 4, 8, 16)
    sized = step.model_copy(
        update={
            "rows": rows,
            "checkpointing": how,
            "padded": rows > 1,
            "accumulate": rows * devices < USUAL_BATCH,
        }
    )
    fits = need(estimate(sized)) <= hardware.memory
    assert fits or "doesn't fit" in why
    if how != "off" and fits:
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
    assert (free.rows, free.how) == (off.rows, off.how) == (2, "off")
    assert full.how == "full"
    assert full.rows > 2
    small = GPU.model_copy(update={"memory": peak(LONG, 1, "full")})
    tight = micro_batch(LONG, small, {"gradient_checkpointing": False})
    assert (tight.rows, tight.how, tight.why_rows) == (1, "off", "the smallest; even that doesn't fit")


def test_recomputing_goes_by_the_rows_that_the_recipe_sets() -> None:
    hardware = GPU.model_copy(update={"memory": peak(LONG, 2, "off")})
    two, three = (micro_batch(LONG, hardware, {"per_device_train_batch_size": rows}) for rows in (2, 3))
    assert (two.rows, two.how, two.why_recomputes) == (2, "off", "activations fit; recomputing costs a quarter")
    assert (three.rows, three.how) == (3, "full")
    assert three.why_recomputes == "activations don't fit in memory otherwise"
    none = micro_batch(LONG, GPU.model_copy(update={"memory": 1}), {"per_device_train_batch_size": 3})
    assert (none.rows, none.how) == (3, "offload")
    assert none.why_recomputes.endswith("even so the step doesn't fit")


def test_what_costs_least_speed_is_recomputed_first() -> None:
    whole = LONG.model_copy(update={"adapter": "none", "sharding": "none"})
    for step, ways in ((LONG, ["off", "full", "offload"]), (whole, ["off", "selective", "full", "offload"])):
        for way, fewer in zip(ways, [*ways[1:], None], strict=True):
            fits = GPU.model_copy(update={"memory": peak(step, 1, way)})
            assert micro_batch(step, fits).how == way
            if fewer:
                tight = GPU.model_copy(update={"memory": peak(step, 1, way) - 1})
                assert micro_batch(step, tight).how == fewer
    pairs = whole.model_copy(update={"method": "dpo"})
    assert micro_batch(pairs, GPU.model_copy(update={"memory": peak(pairs, 1, "off") - 1})).how == "full"


def test_rows_of_a_small_model_go_by_their_padding_on_a_processor() -> None:
    tiny, long, short = made(hardware=CPU).model_copy(update={"model": SMALL}), [900], [20]
    even, mixed = Documents.of(100 * [100]), Documents.of(10 * long + 90 * short)
    assert micro_batch(tiny, CPU, documents=even).rows == USUAL_BATCH
    assert micro_batch(tiny, CPU, documents=mixed).rows == 1
    assert micro_batch(tiny, CPU, documents=mixed, flat=True).rows == USUAL_BATCH
    assert micro_batch(tiny, CPU, documents=mixed, flat=True, update=4).rows == 4
    assert (
        micro_batch(made(hardware=CPU), CPU, documents=mixed, flat=True).rows == 1
    )  # 0.6B: a pass outweighs its start


def test_the_attention_and_the_layout_of_a_step() -> None:
    flat = {"per_device_train_batch_size": 4, "padding_free": True}
    assert made(flat).padded is made(flat | {"packing": True}).padded is False
    for name, gpu, cpu in ((VARLEN, "flash", "sdpa"), ("flash_attention_2", "flash", "sdpa"),
                           ("eager", "eager", "eager"), ("as loaded", "sdpa", "sdpa")):  # fmt: skip
        told = {"attention": name}
        assert (made(told).attention, made(told, hardware=CPU).attention) == (gpu, cpu)


def test_a_processor_recomputes_where_activations_do_not_fit() -> None:
    step = LONG.model_copy(update={"mixed": False, "dtype": "float32"})
    fitting, tight = (
        micro_batch(step, CPU.model_copy(update={"memory": memory}))
        for memory in (peak(step, 1, "off"), peak(step, 1, "off") - 1)
    )
    assert (fitting.rows, fitting.how) == (1, "off")
    assert (tight.rows, tight.how) == (1, "full")


def test_what_is_offloaded_is_recomputed() -> None:
    chosen = micro_batch(LONG, GPU, {"activation_offloading": True})
    assert (chosen.how, "activation_offloading" in chosen.why_recomputes) == ("offload", True)


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
