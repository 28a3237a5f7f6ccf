"""The closed form of memory: hand-computed terms, measured peaks of others, and what must hold for any step."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import memory as benchmark
from tunesmith.models.facts import model_facts
from tunesmith.models.families import find_known, write_config
from tunesmith.models.source import Source
from tunesmith.plan.memory import Step, estimate
from tunesmith.plan.memory.block import block_of
from tunesmith.plan.memory.state import trained_parameters
from tunesmith.records import MemoryEstimate, ModelFacts

ROOT = Path(__file__).parents[2]
GB = 10**9
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def facts(name: str) -> ModelFacts:
    known = find_known(name)
    assert known is not None
    return model_facts(Source(name, name, write_config(known), as_of=known.as_of), planning=True)


@pytest.fixture(scope="module")
def llama() -> ModelFacts:
    return facts("meta-llama/Llama-3.1-8B")


@pytest.fixture(scope="module")
def qwen() -> ModelFacts:
    return facts("Qwen/Qwen3-0.6B")


def phase(memory: MemoryEstimate, name: str) -> int:
    return next(phase.bytes for phase in memory.phases if phase.name == name)


def part(step: Step, name: str, *, during: str = "forward and loss") -> int:
    return next(phase.parts.get(name, 0) for phase in estimate(step).phases if phase.name == during)


# Allocated bytes as fms-acceleration measured them on A100-80GB, 4,096 tokens a row (scripts/benchmarks/refs).
OLD: dict[str, Any] = {
    "length": 4096,
    "checkpointing": "full",
    "attention": "flash",
    "fused_loss": False,
    "code": "4.4x",
    "optimizer": "adamw_torch",
    "dtype": "bfloat16",
}
LORA = {"adapter": "lora", "targets": ATTENTION, "mixed": False}
QLORA = {"adapter": "qlora", "targets": ATTENTION}
FSDP = {"devices": 2, "sharding": "fsdp"}
MEASURED: list[tuple[str, dict[str, Any], int]] = [
    ("Mistral-7B", {"rows": 4, "mixed": False}, 72_435_000_000),
    ("Mistral-7B", {"rows": 2, "mixed": False} | FSDP, 36_226_000_000),
    ("Mistral-7B", {"rows": 4} | LORA, 26_705_000_000),
    ("Mistral-7B", {"rows": 8} | LORA, 38_743_000_000),
    ("Mistral-7B", {"rows": 2} | LORA | FSDP, 15_145_000_000),
    ("Mistral-7B", {"rows": 8} | QLORA, 28_412_000_000),
    ("Mistral-7B", {"rows": 8, "upcast": True} | QLORA, 37_003_000_000),
    ("Mixtral-8x7B", {"rows": 8} | QLORA, 48_770_000_000),
    ("Llama-2-70", {"rows": 4} | QLORA, 68_126_000_000),
    ("Llama-2-70", {"rows": 2} | QLORA | FSDP, 46_685_000_000),
]


@pytest.mark.parametrize(("name", "how", "measured"), MEASURED)
def test_measured_peaks_of_others_are_met(name: str, how: dict[str, Any], measured: int) -> None:
    model = benchmark.facts_of(name)
    assert model is not None
    assert estimate(Step(model=model, **OLD | how)).allocated == pytest.approx(measured, rel=0.05)


def test_the_exact_tier_is_met() -> None:
    rows = list(benchmark.against_exact())
    said = benchmark.summary(rows)
    assert said["rows"] >= 30
    assert said["median"] <= 0.005  # asked: 0.03, and 0.08 at worst; a term that goes missing shows long before
    assert abs(said["worst"]) <= 0.02


def test_full_training_in_fp32_holds_sixteen_bytes_a_parameter(llama: ModelFacts) -> None:
    memory = estimate(Step(model=llama, dtype="float32", length=64, checkpointing="full"))
    assert memory.state == 16 * llama.parameters
    assert phase(memory, "optimizer") == memory.state
    assert (memory.weights, memory.gradients, memory.optimizer) == tuple(llama.parameters * n for n in (4, 4, 8))


def test_an_update_over_all_parameters_at_once_needs_a_copy_of_them(llama: ModelFacts) -> None:
    fused, foreach = (
        estimate(Step(model=llama, dtype="bfloat16", optimizer=name)) for name in ("adamw_torch_fused", "adamw_torch")
    )
    assert phase(foreach, "optimizer") - phase(fused, "optimizer") == 2 * llama.parameters
    assert phase(foreach, "forward and loss") == phase(fused, "forward and loss")


def test_optimizers_keep_what_their_table_says(llama: ModelFacts) -> None:
    def optimizer(name: str) -> float:
        return estimate(Step(model=llama, dtype="bfloat16", optimizer=name)).optimizer / llama.parameters

    assert optimizer("adamw_torch_fused") == pytest.approx(4)
    assert optimizer("sgd") == 0
    assert optimizer("paged_adamw_8bit") == 0
    assert optimizer("an_optimizer_of_tomorrow") == pytest.approx(4)
    embedding = llama.vocabulary * llama.hidden / llama.parameters
    assert optimizer("adamw_bnb_8bit") == pytest.approx(2.03 + 6 * embedding, abs=0.01)


def test_the_table_of_optimizers_has_names_that_transformers_knows() -> None:
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], "training_args.py").read_text(encoding="utf-8")
    names = set(re.findall(r'^    [A-Z0-9_]+ = "(\w+)"', source, re.MULTILINE))
    table = yaml.safe_load((ROOT / "src/tunesmith/plan/tables/optimizers.yaml").read_text(encoding="utf-8"))
    assert set(table) <= names


def test_lora_trains_rank_times_in_and_out(llama: ModelFacts) -> None:
    step = Step(model=llama, adapter="lora", rank=16, targets=ATTENTION, dtype="bfloat16")
    assert trained_parameters(step) == 13_631_488
    memory = estimate(step)
    assert memory.weights == 2 * llama.parameters + 4 * 13_631_488
    assert part(step, "gradients", during="optimizer") == 4 * 13_631_488


def test_a_single_target_may_be_given_as_a_word(llama: ModelFacts) -> None:
    one, listed = (Step(model=llama, adapter="lora", targets=targets) for targets in ("q_proj", ["q_proj"]))
    assert trained_parameters(one) == trained_parameters(listed) == 32 * 16 * (4096 + 4096)


def test_qlora_packs_linear_layers_and_no_others(llama: ModelFacts) -> None:
    linear = llama.parameters - 2 * llama.vocabulary * llama.hidden - 65 * llama.hidden
    step = Step(model=llama, adapter="qlora", targets=["q_proj"], rank=1, dtype="bfloat16")
    rest = 2 * (llama.parameters - linear)
    adapter = 2 * trained_parameters(step)  # TRL keeps QLoRA's adapter in bf16
    twice = estimate(step).weights - rest - adapter
    once = estimate(step.model_copy(update={"double_quant": False})).weights - rest - adapter
    assert twice == pytest.approx(linear * (1 / 2 + 1 / 64 + 4 / 64 / 256), rel=1e-6)
    assert once == pytest.approx(linear * (1 / 2 + 4 / 64), rel=1e-6)


def test_qlora_leaves_fused_experts_as_they_are() -> None:
    mixture = facts("Qwen/Qwen3-30B-A3B")
    memory = estimate(Step(model=mixture, adapter="qlora", targets=ATTENTION, dtype="bfloat16"))
    assert memory.weights > 2 * mixture.parts.experts
    old = estimate(Step(model=mixture, adapter="qlora", targets=ATTENTION, dtype="bfloat16", code="4.4x"))
    assert old.weights < mixture.parts.experts


def test_lora_on_fused_experts_holds_a_second_copy_of_a_layers_experts() -> None:
    mixture = facts("Qwen/Qwen3-30B-A3B")
    some, all_ = (
        estimate(
            Step(model=mixture, adapter="lora", targets=targets, dtype="bfloat16", length=64, checkpointing="full")
        )
        for targets in (ATTENTION, "all-linear")
    )
    added = phase(all_, "backward, first block") - phase(some, "backward, first block")
    states = all_.state - all_.gradients - some.state + some.gradients
    assert added - states == pytest.approx(2 * mixture.parts.experts / mixture.layers * 4 / 3, rel=0.1)


def test_checkpointed_blocks_keep_their_inputs(llama: ModelFacts) -> None:
    short, long = (
        part(Step(model=llama, adapter="lora", dtype="bfloat16", length=length, checkpointing="full"), "activations")
        for length in (1024, 2048)
    )
    kept = 2 * llama.hidden * llama.layers + 4 * llama.hidden + 32  # block inputs, the last norm's fp32 copy, ids
    assert long - short == 1024 * kept


def test_fp32_weights_are_cast_until_the_forward_pass_ends(llama: ModelFacts) -> None:
    how = {"dtype": "float32", "length": 64, "checkpointing": "full"}
    mixed, plain = (estimate(Step(model=llama, mixed=mixed, **how)) for mixed in (True, False))
    linear = sum(shape.in_features * shape.out_features * shape.count for shape in llama.linears)
    added = phase(mixed, "forward and loss") - phase(plain, "forward and loss")
    assert added == pytest.approx(2 * linear, rel=0.05)


def test_the_fused_loss_doesnt_grow_with_the_vocabulary(llama: ModelFacts) -> None:
    wide = llama.model_copy(update={"vocabulary": 2 * llama.vocabulary})
    how: dict[str, Any] = {"adapter": "lora", "dtype": "bfloat16", "length": 8192}
    assert part(Step(model=wide, **how), "loss") == part(Step(model=llama, **how), "loss")
    full = part(Step(model=llama, fused_loss=False, **how), "loss", during="backward of the head")
    assert full == 12 * llama.vocabulary * 8192


def test_a_tied_embeddings_gradient_is_there_twice_at_the_end(qwen: ModelFacts) -> None:
    memory = estimate(Step(model=qwen, dtype="bfloat16", length=64, checkpointing="full"))
    twice = phase(memory, "end of backward") - phase(memory, "optimizer")
    assert twice == 2 * qwen.vocabulary * qwen.hidden


def test_padded_rows_keep_a_mask_and_repeated_keys(llama: ModelFacts) -> None:
    how: dict[str, Any] = {"adapter": "lora", "dtype": "bfloat16", "length": 1024}
    even, padded = (part(Step(model=llama, padded=padded, **how), "activations") for padded in (False, True))
    repeated = 2 * 2 * (4096 - 1024)  # keys and values
    assert padded - even == 1024 * (32 * (repeated + 2 * 1024) + 1024)


def test_eager_attention_keeps_every_score(llama: ModelFacts) -> None:
    how: dict[str, Any] = {"adapter": "lora", "dtype": "bfloat16", "length": 2048}
    eager, sdpa = (part(Step(model=llama, attention=name, **how), "activations") for name in ("eager", "sdpa"))
    assert eager - sdpa > 32 * 6 * 32 * 2048 * 2048 * 0.99


def test_a_pair_is_two_rows_and_a_reference_model_is_a_second_base(llama: ModelFacts) -> None:
    how: dict[str, Any] = {"dtype": "bfloat16", "length": 512}
    sft = Step(model=llama, rows=4, **how)
    dpo = Step(model=llama, rows=2, method="dpo", **how)
    assert part(dpo, "activations") == part(sft, "activations")
    with_reference = estimate(dpo.model_copy(update={"reference": "model"}))
    assert with_reference.reference == 2 * llama.parameters
    assert with_reference.allocated - estimate(dpo).allocated == 2 * llama.parameters
    adapter = estimate(dpo.model_copy(update={"reference": "model", "adapter": "lora"}))
    assert adapter.reference == 0  # the base without its adapter


def test_a_generation_caches_keys_and_values_and_slides() -> None:
    llama, gemma = facts("meta-llama/Llama-3.1-8B"), facts("google/gemma-3-1b-it")
    step = Step(model=llama, adapter="lora", dtype="bfloat16", generate=(8, 500, 524))
    cache = part(step, "cache", during="generation")
    assert cache == 2 * 2 * 1024 * 32 * 1024 * 8
    slid = part(Step(model=gemma, dtype="bfloat16", generate=(1, 4000, 96)), "cache", during="generation")
    positions = gemma.windowed * gemma.window + (gemma.layers - gemma.windowed) * 4096
    assert slid == 2 * 2 * gemma.kv_heads * gemma.head_dim * positions


def test_ddp_holds_gradients_again_and_fsdp_divides_the_state(llama: ModelFacts) -> None:
    how: dict[str, Any] = {"model": llama, "dtype": "bfloat16", "mixed": False, "length": 64, "checkpointing": "full"}
    alone = estimate(Step(**how))
    ddp = estimate(Step(devices=4, sharding="ddp", **how))
    fsdp = estimate(Step(devices=4, sharding="fsdp", **how))
    assert ddp.allocated - alone.allocated == alone.gradients
    assert fsdp.state == pytest.approx(alone.state / 4, rel=1e-6)
    mixed = estimate(Step(devices=4, sharding="fsdp", **how | {"mixed": True}))
    assert mixed.state == pytest.approx(16 * llama.parameters / 4, rel=1e-6)  # accelerate upcasts what is trained


def test_zero_divides_its_parts_and_offload_takes_them_away(llama: ModelFacts) -> None:
    how: dict[str, Any] = {"model": llama, "dtype": "bfloat16", "devices": 4, "length": 64, "checkpointing": "full"}
    two, three = (estimate(Step(sharding=name, **how)) for name in ("zero2", "zero3"))
    assert two.weights == 2 * llama.parameters
    assert three.weights == 2 * llama.parameters // 4
    assert two.optimizer == three.optimizer == 12 * llama.parameters // 4
    away = estimate(Step(sharding="zero3", offload=True, **how))
    assert away.state == 0
    assert 0 < away.allocated < three.allocated
    assert three.reserved_error > estimate(Step(model=llama)).reserved_error


def test_gradients_that_accumulate_are_there_in_the_forward_pass(llama: ModelFacts) -> None:
    once, many = (estimate(Step(model=llama, dtype="bfloat16", accumulate=accumulate)) for accumulate in (False, True))
    assert phase(many, "forward and loss") - phase(once, "forward and loss") == once.gradients
    assert phase(many, "optimizer") == phase(once, "optimizer")


@pytest.mark.parametrize(
    ("name", "norms", "qk_norm", "up", "chosen"),
    [
        ("meta-llama/Llama-3.1-8B", 2, False, 2, 0),
        ("Qwen/Qwen3-0.6B", 2, True, 2, 0),
        ("google/gemma-3-1b-it", 4, True, 2, 0),
        ("Qwen/Qwen3-30B-A3B", 2, True, 2, 8),
        ("microsoft/Phi-4-mini-instruct", 2, False, 2, 0),
    ],
)
def test_blocks_are_read_from_facts(name: str, norms: int, qk_norm: bool, up: int, chosen: int) -> None:
    block = block_of(Step(model=facts(name)))
    assert (block.norms, block.qk_norm, block.chosen) == (norms, qk_norm, chosen)
    assert block.up == up or chosen


def test_facts_without_details_are_taken_for_a_llama_block() -> None:
    bare = ModelFacts(
        name="x",
        location="x",
        architecture="Unknown",
        model_type="unknown",
        parameters=GB,
        linears=[],
        layers=24,
        hidden=2048,
        intermediate=0,
        vocabulary=50000,
        context=2048,
        dtype="bfloat16",
        tied=True,
        has_template=False,
        bytes=2 * GB,
    )
    memory = estimate(Step(model=bare, dtype="bfloat16"))
    assert memory.weights + memory.optimizer == 6 * GB
    assert part(Step(model=bare, dtype="bfloat16"), "gradients", during="optimizer") == 2 * GB
    assert memory.allocated > memory.state
    nothing = bare.model_copy(update={"layers": 0, "hidden": 0, "vocabulary": 0})
    assert estimate(Step(model=nothing)).allocated >= 16 * GB


def test_an_architecture_that_isnt_in_the_table_has_a_wide_error(llama: ModelFacts) -> None:
    """Wide enough for GPT-BigCode's, the one that was held against measurements (docs/memory.md)."""
    rough = estimate(Step(model=llama.model_copy(update={"rough": True}))).allocated_error
    for estimated in (1.67, 1 - 0.18):  # times what was measured
        assert abs(1 / estimated - 1) <= rough
    assert estimate(Step(model=llama)).allocated_error < 0.1
    sharded = Step(model=llama.model_copy(update={"rough": True}), devices=2, sharding="fsdp")
    assert estimate(sharded).reserved_error == rough


def test_the_stated_error_is_that_of_the_worst_row(llama: ModelFacts) -> None:
    stated = estimate(Step(model=llama)).allocated_error
    kept = json.loads((ROOT / "benchmarks/results/memory.json").read_text(encoding="utf-8"))
    worst = max(abs(kept["parts"][name]["summary"]["worst"]) for name in ("exact tier", "fms-acceleration", "held out"))
    assert worst <= stated < worst + 0.01


def test_casts_of_fp32_weights_are_buffers(llama: ModelFacts) -> None:
    step = Step(model=llama, dtype="float32", length=64, checkpointing="full")
    linear = sum(shape.in_features * shape.out_features * shape.count for shape in llama.linears)
    assert part(step, "buffers") == 2 * linear
    assert part(step.model_copy(update={"mixed": False}), "buffers") == 0


PARTS = ("weights", "gradients", "optimizer", "activations", "loss", "reference", "cache", "buffers")
STEPS = st.builds(
    dict,
    adapter=st.sampled_from(["none", "lora", "qlora"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    mixed=st.booleans(),
    rows=st.integers(1, 32),
    length=st.integers(16, 20_000),
    checkpointing=st.sampled_from(["off", "full", "selective", "offload"]),
    attention=st.sampled_from(["eager", "sdpa", "flash"]),
    fused_loss=st.booleans(),
    padded=st.booleans(),
    accumulate=st.booleans(),
    code=st.sampled_from(["today", "4.4x"]),
    sharding=st.sampled_from(["none", "ddp", "fsdp", "zero2", "zero3"]),
    devices=st.sampled_from([1, 2, 8]),
    reference=st.sampled_from(["none", "model", "precomputed"]),
    method=st.sampled_from(["sft", "dpo"]),
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from(["rows", "length", "rank"]))
def test_more_never_needs_less(how: dict[str, Any], name: str) -> None:
    step = Step(model=facts("Qwen/Qwen3-0.6B"), **how)
    more = step.model_copy(update={name: 2 * getattr(step, name)})
    assert estimate(more).allocated >= estimate(step).allocated


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_every_estimate_adds_up(how: dict[str, Any]) -> None:
    memory = estimate(Step(model=facts("google/gemma-3-1b-it"), **how))
    assert memory.state == memory.weights + memory.gradients + memory.optimizer
    assert memory.allocated == max(phase.bytes for phase in memory.phases)
    assert memory.allocated == sum(getattr(memory, name) for name in PARTS)
    assert all(phase.bytes == sum(phase.parts.values()) for phase in memory.phases)
    assert all(phase.parts.keys() <= set(PARTS) and min(phase.parts.values()) >= 0 for phase in memory.phases)
    assert memory.reserved >= memory.allocated
    assert min(value for value in memory.model_dump(exclude={"phases", "tier"}).values()) >= 0


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_checkpointing_keeps_less_the_more_it_recomputes(how: dict[str, Any]) -> None:
    model = facts("Qwen/Qwen3-0.6B")
    off, selective, full, offload = (
        part(Step(model=model, **how | {"checkpointing": name}), "activations")
        for name in ("off", "selective", "full", "offload")
    )
    assert off > selective > full >= offload


def test_an_estimate_takes_no_torch_and_no_time() -> None:
    code = (
        "import sys, tunesmith.plan.memory, tunesmith.plan.fit;"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_the_benchmark_says_why_a_row_is_left_out(tmp_path: Path) -> None:
    columns = (
        "framework_config,mem_nvidia_mem_reserved,mem_peak_torch_mem_alloc_in_bytes,model_name_or_path,num_gpus,"
        "peft_method,per_device_train_batch_size,r,target_modules,torch_dtype,bf16,fp16"
    )
    rows = [
        "none,29576,26705000000,mistralai/Mistral-7B-v0.1,1,lora,4,16,q_proj k_proj v_proj o_proj,bfloat16,,",
        "none,81000,,mistralai/Mistral-7B-v0.1,1,,4,,,bfloat16,,",
        "foak-fast-kernels,29000,24473000000,mistralai/Mistral-7B-v0.1,1,lora,4,16,q_proj,bfloat16,,",
        "none,15116,11267745280,bigcode/gpt_bigcode-santacoder,1,,4,,,bfloat16,,",
    ]
    file = tmp_path / "fms.csv"
    file.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    found = list(benchmark.against_fms(file))
    assert abs(found[0]["error"]) < 0.01
    assert abs(found[0]["reserved_error"]) < 0.1
    assert [("left_out" in row) for row in found] == [False, True, True, True]
    assert benchmark.summary(found)["left_out"] == 3
    assert json.dumps(found)
