"""What a step computes and moves, held against counts by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.steps import ROWS, llama, make_step
from tunesmith.plan.documents import Documents
from tunesmith.plan.memory.step import Step
from tunesmith.plan.work import (
    Load,
    body_parameters,
    forward_load,
    lora_layers,
    micro_batch,
    step_load,
    trained_parameters,
)

BODY = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 4096 * 14336)
FULL_ROWS = Documents.of([1024])


def load(step: Step, documents: Documents = FULL_ROWS, **how: Any) -> Load:
    return step_load(step, micro_batch(step, documents, **how))


def test_parameters_of_the_matrix_products() -> None:
    assert body_parameters(llama()) == BODY
    bare = llama(parts=llama().parts.model_copy(update={"attention": 0, "mlp": 0}))
    assert body_parameters(bare) == BODY  # facts without parts: from the layers' shapes
    experts = llama(
        parts=llama().parts.model_copy(update={"experts": 8000, "router": 10}), expert_count=8, expert_active=2
    )
    assert body_parameters(experts) == BODY + 2000 + 10


def test_lora_trains_r_times_in_plus_out_of_the_layers_it_targets() -> None:
    step = make_step(rank=8, targets=["q_proj", "v_proj"])
    assert {shape.name for shape in lora_layers(step)} == {"q_proj", "v_proj"}
    assert trained_parameters(step) == 8 * 32 * ((4096 + 4096) + (4096 + 1024))
    assert trained_parameters(make_step(adapter="none")) == llama().parameters
    assert lora_layers(make_step(adapter="none")) == []


@pytest.mark.parametrize(
    ("adapter", "checkpointing", "linear", "head"),
    [
        ("none", "off", 6, 8),
        ("none", "full", 8, 8),
        ("lora", "off", 4, 6),
        ("lora", "full", 6, 6),
        ("qlora", "offload", 6, 6),
    ],
)
def test_operations_per_parameter_and_token(adapter: str, checkpointing: str, linear: int, head: int) -> None:
    """Frozen weights need no gradient; what is thrown away is computed again; the fused head always is."""
    operations = load(make_step(adapter=adapter, checkpointing=checkpointing)).operations
    assert operations["linear"] == linear * BODY * 1024
    assert operations["head"] == head * 128256 * 4096 * 1024
    plain = load(make_step(adapter=adapter, checkpointing=checkpointing, fused_loss=False)).operations
    assert plain["head"] == (head - 2) * 128256 * 4096 * 1024


def test_attention_counts_the_causal_half_and_what_is_computed_again() -> None:
    """4 x width per pair forward, 2.5 times that backward; TRL's selective checkpointing keeps it."""
    pairs = 32 * 1024 * 1024 / 2
    assert load(make_step(attention="flash")).operations["attention"] == 4 * 4096 * pairs * 3.5
    again = load(make_step(attention="flash", checkpointing="full")).operations
    assert again["attention"] == 4 * 4096 * pairs * 4.5
    kept = load(make_step(attention="flash", checkpointing="selective")).operations
    assert (kept["attention"], kept["linear"]) == (4 * 4096 * pairs * 3.5, again["linear"])


def test_a_sliding_window_bounds_the_pairs_of_its_layers() -> None:
    half = llama(window=256, windowed=16)
    batch = micro_batch(make_step(model=half, attention="flash"), FULL_ROWS)
    assert (batch.squares, batch.windowed) == (1024 * 1024 / 2, 1024 * 256 - 256 * 256 / 2)
    operations = step_load(make_step(model=half, attention="flash"), batch).operations
    assert operations["attention"] == 4 * 4096 * 16 * (batch.squares + batch.windowed) * 3.5


def test_a_padded_batch_is_computed_with_its_mask_in_full() -> None:
    rows = Documents.of([100] * 9 + [1000])
    alone = micro_batch(make_step(), rows)
    assert (alone.tokens, alone.useful) == (pytest.approx(190), 190)
    assert alone.squares == pytest.approx((0.9 * 100**2 + 0.1 * 1000**2) / 2)
    four = micro_batch(make_step(rows=4), rows)
    longest = 100 * 0.9**4 + 1000 * (1 - 0.9**4)
    assert (four.tokens, four.useful) == (pytest.approx(4 * longest), 4 * 190)
    assert four.squares == pytest.approx(4 * (100**2 * 0.9**4 + 1000**2 * (1 - 0.9**4)))
    grouped = micro_batch(make_step(rows=4), rows, grouped=True)
    assert (grouped.tokens, grouped.squares) == (pytest.approx(4 * 190), pytest.approx(4 * alone.squares))


def test_a_preference_pair_is_two_sequences_padded_to_the_longer() -> None:
    rows = Documents.of([100, 300])
    pair = micro_batch(make_step(method="dpo"), rows)
    assert (pair.tokens, pair.useful) == (pytest.approx(2 * (0.25 * 100 + 0.75 * 300)), 400)
    packed = micro_batch(make_step(method="reward", attention="flash"), rows, packed=True)
    assert packed.tokens == 2048


def test_a_packed_row_attends_within_its_documents_under_flash_alone() -> None:
    documents = Documents.of([256] * 4)
    flash = micro_batch(make_step(attention="flash"), documents, packed=True)
    assert (flash.tokens, flash.useful, flash.squares) == (1024, 1024, 4 * 256 * 256 / 2)
    assert micro_batch(make_step(attention="sdpa"), documents, packed=True).squares == 1024 * 1024


def test_the_fused_head_scores_only_what_is_trained() -> None:
    assert micro_batch(make_step(), FULL_ROWS, scored=0.25).scored == 256
    assert micro_batch(make_step(fused_loss=False), FULL_ROWS, scored=0.25).scored == 1024


def test_qlora_reads_its_base_in_each_pass() -> None:
    """Half a byte and the scales are read, two are written: twice, thrice with recompute."""
    assert load(make_step(adapter="qlora")).moved["dequantisation"] == (0.5 + 1 / 64 + 2) * BODY * 2
    assert (
        load(make_step(adapter="qlora", checkpointing="full")).moved["dequantisation"] == (0.5 + 1 / 64 + 2) * BODY * 3
    )
    assert load(make_step()).moved["dequantisation"] == 0


def test_fp32_weights_are_cast_under_autocast() -> None:
    assert load(make_step(adapter="none", dtype="float32")).moved["casts"] == 12 * BODY
    assert load(make_step(adapter="none", dtype="float32", mixed=False)).moved["casts"] == 0
    assert load(make_step(adapter="none")).moved["casts"] == 0


@pytest.mark.parametrize(
    ("checkpointing", "hidden", "inner"), [("off", 400, 28), ("full", 510, 38), ("selective", 510, 38)]
)
def test_elementwise_bytes_go_by_the_model_s_width(checkpointing: str, hidden: int, inner: int) -> None:
    per_token = 32 * (hidden * 4096 + inner * 14336)
    step = make_step(adapter="none", checkpointing=checkpointing)
    assert load(step).moved["elementwise"] == pytest.approx(1024 * per_token)
    wide = 32 * (1.37 * hidden * 4096 + inner * 14336)
    fp32 = make_step(adapter="none", checkpointing=checkpointing, dtype="float32")
    assert load(fp32).moved["elementwise"] == pytest.approx(1024 * wide)
    bare = llama(parts=llama().parts.model_copy(update={"attention": 0, "mlp": 0}))
    assert load(step.model_copy(update={"model": bare})).moved["elementwise"] == pytest.approx(1024 * per_token)


def test_elementwise_bytes_of_the_experts_that_are_used() -> None:
    parts = llama().parts.model_copy(update={"mlp": 0, "experts": 8 * llama().parts.mlp})
    experts = llama(parts=parts, expert_count=8, expert_active=2)
    moved = load(make_step(adapter="none", model=experts)).moved["elementwise"]
    assert moved == pytest.approx(1024 * 32 * (400 * 4096 + 2 * (54 * 4096 + 54 * 14336)))
    again = load(make_step(adapter="none", model=experts, checkpointing="full")).moved["elementwise"]
    assert again == pytest.approx(1024 * 32 * (510 * 4096 + 2 * (65 * 4096 + 70 * 14336)))


@pytest.mark.parametrize(("checkpointing", "of_in", "of_out"), [("off", 25, 17), ("full", 33, 28)])
def test_adapters_move_what_goes_in_and_out(checkpointing: str, of_in: int, of_out: int) -> None:
    step = make_step(targets=["k_proj", "down_proj"], checkpointing=checkpointing)
    per_token = 32 * (of_in * (4096 + 14336) + of_out * (1024 + 4096))
    assert load(step).moved["adapters"] == 1024 * per_token


def test_logits_are_moved_in_tiles_or_in_full() -> None:
    assert load(make_step(), scored=0.5).moved["logits"] == 512 * 128256 * 12
    assert load(make_step(fused_loss=False), scored=0.5).moved["logits"] == 1024 * 128256 * 36


def test_adapters_operations_are_those_of_trained_weights() -> None:
    trained = trained_parameters(make_step())
    assert load(make_step()).operations["adapters"] == 6 * trained * 1024
    assert load(make_step(checkpointing="full")).operations["adapters"] == 8 * trained * 1024
    assert load(make_step(adapter="none")).operations["adapters"] == 0


def test_eager_attention_moves_its_scores() -> None:
    moved = load(make_step(attention="eager")).moved["scores"]
    assert moved == 1024 * 1024 * 32 * 32 * 60
    again = make_step(attention="eager", checkpointing="full")
    assert load(again).moved["scores"] == 1024 * 1024 * 32 * 32 * 92
    assert load(make_step()).moved["scores"] == 0
    assert load(make_step(attention="eager")).operations["attention"] == 4 * 4096 * 32 * 1024 * 1024 * 3


@pytest.mark.parametrize(
    ("optimizer", "bytes_per_parameter"),
    [
        ("adamw_torch_fused", 10 * 2),
        ("adamw_torch", 20 * 2),
        ("adamw_8bit", 6 * 2 + 4),
        ("something_new", 20 * 2),
        ("adamw_bnb_8bit", 16),
        ("paged_adamw_8bit", 16),
        ("paged_adamw_32bit", 28),
        ("sgd", 12),
        ("adafactor", 24),
    ],
)
def test_bytes_of_the_optimizer(optimizer: str, bytes_per_parameter: int) -> None:
    step = make_step(adapter="none", optimizer=optimizer)
    assert load(step).update_moved == bytes_per_parameter * llama().parameters


@pytest.mark.parametrize(("dtype", "width"), [("float16", 2), ("bfloat16", 2), ("float32", 4)])
def test_weights_are_updated_in_their_dtype(dtype: str, width: int) -> None:
    assert load(make_step(adapter="none", dtype=dtype)).update_moved == 10 * width * llama().parameters


def test_adapters_are_updated_in_fp32_and_shards_on_their_device() -> None:
    assert load(make_step()).update_moved == 40 * trained_parameters(make_step())
    shared = load(make_step(adapter="none", devices=4, sharding="fsdp")).update_moved
    assert shared == load(make_step(adapter="none")).update_moved / 4
    assert load(make_step(adapter="none", devices=4, sharding="ddp")).update_moved == 4 * shared


def test_kernels_grow_with_layers_adapters_and_recompute() -> None:
    assert load(make_step(adapter="none")).kernels == pytest.approx(32 * 46 * 2.6)
    assert load(make_step()).kernels == pytest.approx(32 * (46 + 8 * 7) * 2.6)
    assert load(make_step(checkpointing="full")).kernels == pytest.approx(32 * (46 + 8 * 7) * 3.5)


def test_a_reference_model_adds_its_forward_pass() -> None:
    operations = load(make_step(reference="model")).operations
    assert operations["reference"] == 2 * (BODY + 128256 * 4096) * 1024
    assert "reference" not in load(make_step(reference="precomputed")).operations


def test_a_forward_pass_alone() -> None:
    step = make_step(adapter="none", attention="flash")
    batch = micro_batch(step, FULL_ROWS)
    forward, whole = forward_load(step, batch), step_load(step, batch)
    assert forward.operations["linear"] == whole.operations["linear"] / 3
    assert forward.operations["attention"] == pytest.approx(whole.operations["attention"] / 3.5)
    assert forward.moved["elementwise"] == whole.moved["elementwise"] / 3
    assert forward.kernels == 32 * 46
    assert forward.operations["head"] == 2 * 128256 * 4096 * 1024
    assert forward.update_kernels == 0
    half = make_step(model=llama(window=256, windowed=12), attention="flash")
    windows = micro_batch(half, FULL_ROWS)
    attended = 20 * windows.squares + 12 * windows.windowed
    assert forward_load(half, windows).operations["attention"] == 4 * 4096 * attended


def test_a_forward_pass_dequantises_and_casts_once() -> None:
    quantised, cast = make_step(adapter="qlora"), make_step(adapter="none", dtype="float32")
    batch = micro_batch(quantised, FULL_ROWS)
    assert forward_load(quantised, batch).moved["dequantisation"] == (0.5 + 1 / 64 + 2) * BODY
    assert forward_load(cast, batch).moved["casts"] == 6 * BODY


@given(
    st.integers(1, 16), st.integers(1, 16), st.sampled_from(["off", "full"]), st.sampled_from(["none", "lora", "qlora"])
)
def test_more_rows_are_more_work(rows: int, more: int, checkpointing: str, adapter: str) -> None:
    few = load(make_step(rows=rows, checkpointing=checkpointing, adapter=adapter), ROWS)
    many = load(make_step(rows=rows + more, checkpointing=checkpointing, adapter=adapter), ROWS)
    assert all(many.operations[part] > few.operations[part] or not few.operations[part] for part in few.operations)
    assert all(many.moved[part] >= few.moved[part] for part in few.moved)
    assert many.kernels == few.kernels
