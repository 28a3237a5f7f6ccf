"""What the plan chooses for speed, and why."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

import pytest

from tests.support.plans import CPU, GPU, chat_rows, codes, make_plan, make_recipe
from tests.support.runs import small_facts
from tunesmith.plan import fast
from tunesmith.plan.choices import Choices
from tunesmith.plan.sizing import step_of
from tunesmith.records import VARLEN, Choice, Hardware, ModelFacts, Plan, Speed

HALF_CPU = CPU.model_copy(update={"bf16": True})
BIG = small_facts().model_copy(update={"parameters": 600_000_000, "context": 8192})


def planned(hardware: Hardware = GPU, model: ModelFacts = BIG, rows: list[dict[str, Any]] | None = None,
            **keys: Any) -> Plan:  # fmt: skip
    return make_plan(make_recipe(rows, **{"adapter": {"kind": "none"}, **keys}), hardware, model)


def choice(plan: Plan, name: str) -> Choice:
    return next(one for one in plan.choices if one.name == name)


@pytest.fixture(autouse=True)
def nothing_else_installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of modules that are there; no flash kernels unless a test adds them."""
    there: set[str] = set()
    find = importlib.util.find_spec
    optional = ("flash_attn", "flash_attn_interface", "liger_kernel")
    monkeypatch.setattr(
        fast.importlib.util, "find_spec", lambda name: name in there or None if name in optional else find(name)
    )
    return there


def test_on_a_cpu_rows_lie_end_to_end_and_each_is_seen_alone() -> None:
    plan = planned(CPU, small_facts())
    assert plan.speed == Speed(attention=VARLEN, compile="off", kernels=False)
    assert (plan.training["packing"], plan.training["padding_free"]) == (False, True)
    assert plan.training["per_device_train_batch_size"] == 16
    assert "dataloader_num_workers" not in plan.training


@pytest.mark.parametrize(
    ("model", "keys", "reason"),
    [
        (BIG.model_copy(update={"model_type": "falcon"}), {}, "it isn't known"),
        (BIG.model_copy(update={"model_type": "yours"}), {}, "it isn't known that rows of yours models"),
        (BIG, {"adapter": {"kind": "prompt"}}, "virtual tokens"),
        (BIG, {"adapter": {"kind": "prefix"}}, "virtual tokens"),
        (BIG.model_copy(update={"vision": True}), {}, "images"),
        (BIG.model_copy(update={"head_dim": 512}), {}, "heads of up to 256"),
        (BIG.model_copy(update={"attention_dropout": 0.1}), {}, "it drops out 10% of its attention weights"),
        (BIG, {"dtype": "float32", "training": {"bf16": False}}, "16 bits only"),
    ],
)
def test_rows_are_padded_where_they_would_see_each_other(model: ModelFacts, keys: dict[str, Any], reason: str) -> None:
    plan = planned(model=model, **keys)
    assert reason in choice(plan, "model.attention").reason
    assert plan.speed.attention == ""
    assert not plan.training.get("padding_free")


def test_an_old_gpu_has_no_flash_kernels() -> None:
    old = planned(GPU.model_copy(update={"name": "Tesla T4", "bf16": False}))
    assert "NVIDIA GPU with bf16" in choice(old, "model.attention").reason
    assert old.speed.attention == ""


def test_flash_attention_is_taken_where_it_is_installed(nothing_else_installed: set[str]) -> None:
    assert planned().speed.attention == VARLEN
    nothing_else_installed.add("flash_attn")
    assert planned().speed.attention == "flash_attention_2"
    nothing_else_installed.add("flash_attn_interface")
    assert planned().speed.attention == "flash_attention_3"
    assert planned(GPU.model_copy(update={"name": "NVIDIA A100"})).speed.attention == "flash_attention_2"


def test_torch_has_its_own_since_2_11(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    for installed, name in (("2.10.1", ""), ("2.11.0+cu130", VARLEN)):
        monkeypatch.setattr(
            fast.importlib.metadata,
            "version",
            lambda package, it=installed: it if package == "torch" else version(package),
        )
        plan = planned()
        assert plan.speed.attention == name
        assert name or "from 2.11 on" in choice(plan, "model.attention").reason


def test_packing_keeps_the_tokens_of_a_step() -> None:
    rows = [*chat_rows(400), chat_rows(1, words=120)[0]]
    plan, alone = planned(rows=rows), planned(rows=rows, training={"packing": False})
    assert plan.training["packing"]
    assert plan.training["eval_packing"] is False
    assert alone.training["padding_free"]
    assert alone.training["per_device_train_batch_size"] == 16
    assert plan.tokens_per_step == pytest.approx(alone.tokens_per_step, rel=0.3)
    assert plan.steps == pytest.approx(alone.steps, rel=0.3)
    assert "as many tokens as without packing" in choice(plan, "gradient_accumulation_steps").reason
    assert codes(plan) == codes(alone)


def test_rows_far_shorter_than_the_longest_are_not_packed() -> None:
    plan = planned(rows=chat_rows(400) + chat_rows(404, words=800)[400:])
    assert not plan.training["packing"]
    assert plan.training["padding_free"]
    assert "more than a step needs" in choice(plan, "packing").reason


def test_a_mask_is_worth_it_where_padding_is_worse() -> None:
    old = GPU.model_copy(update={"bf16": False})
    rows = chat_rows(300) + [{**row, "prompt": [{"role": "user", "content": f"{n} " * 90}]}
                             for n, row in enumerate(chat_rows(40))]  # fmt: skip
    masked = planned(old, rows=rows)
    assert masked.training["packing"]
    assert masked.training["per_device_train_batch_size"] == 1
    assert "P076" in codes(masked)
    even = planned(old)
    assert not even.training["packing"]
    assert not even.training["padding_free"]
    assert not {"P075", "P076", "P077"} & set(codes(even))


def test_text_is_packed_as_its_method_says_and_its_evaluation_too() -> None:
    rows = [{"text": f"{n} " + "word " * 50} for n in range(60)]
    plan = planned(rows=rows, method="clm")
    assert (plan.training["packing"], "eval_packing" in plan.training) == (True, False)
    assert plan.speed.attention == VARLEN


@pytest.mark.parametrize(("attention", "name"), [("varlen", VARLEN), ("sdpa", "sdpa"), ("eager", "eager")])
def test_the_recipe_switches_attention(attention: str, name: str) -> None:
    plan = planned(speed={"attention": attention})
    assert plan.speed.attention == name
    assert choice(plan, "model.attention").source == "recipe"


def test_the_recipe_switches_layouts_and_the_rest(nothing_else_installed: set[str]) -> None:
    padded = planned(CPU, training={"padding_free": False}).training
    assert (padded["packing"], padded["padding_free"]) == (False, False)
    nothing_else_installed.add("liger_kernel")
    free = planned()
    assert (free.speed.compile, free.speed.kernels) == ("auto", True)
    off = planned(speed={"compile": "off", "kernels": "off"})
    assert (off.speed.compile, off.speed.kernels) == ("off", False)
    assert planned(CPU, speed={"compile": "on"}).speed.compile == "on"
    assert planned(training={"torch_compile": True}).speed.compile == "off"
    assert planned(CPU).speed.kernels is False


def test_precision_of_processors() -> None:
    assert planned(HALF_CPU).training["bf16"]
    assert not planned(HALF_CPU, small_facts()).training["bf16"]
    assert not planned(CPU).training["bf16"]
    assert not planned(HALF_CPU, training={"bf16": False}).training["bf16"]
    assert "bf16" not in planned(training={"fp16": True}).training


def test_batches_are_made_beside_a_gpu() -> None:
    training = planned().training
    assert (training["dataloader_num_workers"], training["dataloader_persistent_workers"]) == (2, True)
    assert "dataloader_num_workers" not in planned(GPU.model_copy(update={"cores": 2})).training


def test_what_is_recomputed_is_told_to_the_trainer() -> None:
    told = []
    for how in ("off", "selective", "full", "offload"):
        choices = Choices({})
        fast._recomputing(choices, how, "because")
        told.append(choices.training())
    assert told == [
        {"gradient_checkpointing": False},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"selective": True}},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "activation_offloading": True},
    ]
    assert [
        step_of(make_recipe(), BIG, GPU, {**each, "dtype": "float32"}, length=9).checkpointing for each in told
    ] == ["off", "selective", "full", "offload"]


def test_p075_rows_of_an_architecture_that_leaks() -> None:
    leaking = BIG.model_copy(update={"model_type": "falcon"})
    for training in ({"packing": True}, {"padding_free": True}):
        (found,) = [one for one in planned(model=leaking, training=training).findings if one.code == "P075"]
        assert (found.severity, found.where) == ("error", f"training.{next(iter(training))}")
        assert "rows see each other" in found.what
    assert "P075" not in codes(planned(training={"packing": True}))
    assert "P075" not in codes(planned(model=leaking))


def test_p076_a_mask_that_the_recipe_asks_for() -> None:
    plan = planned(training={"packing": True}, speed={"attention": "sdpa"})
    (found,) = [one for one in plan.findings if one.code == "P076"]
    longest = plan.training["max_length"] * plan.training["per_device_train_batch_size"]
    assert (found.severity, f"{longest:,} tokens" in found.what) == ("note", True)
    assert "P076" not in codes(planned(training={"packing": True}))


def test_p077_wrapped_packing() -> None:
    wrapped = {"packing": True, "packing_strategy": "wrapped"}
    assert "P077" in codes(planned(training=wrapped))
    assert "P077" not in codes(planned(training=wrapped | {"packing_strategy": "bfd_split"}))


def test_p078_offloading_needs_a_gpu() -> None:
    offloads = {"activation_offloading": True}
    (found,) = [one for one in planned(CPU, training=offloads).findings if one.code == "P078"]
    assert (found.severity, found.where) == ("error", "training.activation_offloading")
    assert "P078" not in codes(planned(training=offloads))
    assert "P078" not in codes(planned(CPU))


def test_p079_an_attention_without_the_models_dropout() -> None:
    drops = BIG.model_copy(update={"attention_dropout": 0.1})
    one = next(found for found in planned(model=drops, speed={"attention": "varlen"}).findings if found.code == "P079")
    assert (one.severity, one.where) == ("error", "speed.attention")
    assert "(10% of them)" in one.what
    for plan in (planned(model=drops), planned(model=drops, speed={"attention": "sdpa"}), planned()):
        assert "P079" not in codes(plan)


def test_kernels_are_said_only_where_they_are_tried(nothing_else_installed: set[str]) -> None:
    nothing_else_installed.add("liger_kernel")
    assert planned().speed.kernels
    pairs = [{"prompt": f"order {n}", "chosen": " a lamp", "rejected": " a chair"} for n in range(64)]
    dpo = planned(method="dpo", rows=pairs)
    assert not dpo.speed.kernels
    assert "they aren't tried for dpo" in choice(dpo, "model.kernels").reason
