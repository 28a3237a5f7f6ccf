"""Single terms of the closed form, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.models.facts import model_facts
from tunesmith.models.families import find_known, write_config
from tunesmith.models.source import Source
from tunesmith.plan.memory import Step, estimate
from tunesmith.plan.memory.activations import BlockMemory, block_memory, widths_of
from tunesmith.plan.memory.block import block_of, text_linears
from tunesmith.plan.memory.closed import _hoards
from tunesmith.plan.memory.generation import forward_work
from tunesmith.plan.memory.head import head_memory
from tunesmith.plan.memory.state import state_of
from tunesmith.records import LinearShape, ModelFacts

H, INNER, Q, K = 4096, 14336, 4096, 1024  # widths of Llama-3.1-8B: stream, MLP, query heads, key heads
SCORES = 4 * 32  # logsumexp of its 32 heads
HALF: dict[str, Any] = {"dtype": "bfloat16"}
LORA: dict[str, Any] = {"dtype": "bfloat16", "adapter": "lora", "rank": 16}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def facts(name: str) -> ModelFacts:
    known = find_known(name)
    assert known is not None
    return model_facts(Source(name, name, write_config(known), as_of=known.as_of), planning=True)


LLAMA = facts("meta-llama/Llama-3.1-8B")
MIXTURE = facts("Qwen/Qwen3-30B-A3B")
GEMMA = facts("google/gemma-3-1b-it")


def memory(model: ModelFacts = LLAMA, **how: Any) -> BlockMemory:
    step = Step(model=model, **how)
    return block_memory(step, block_of(step))


def test_a_block_trained_in_bf16() -> None:
    norms = 2 * H * (4 + 2)
    inputs = 2 * 2 * H
    assert memory(**HALF).attention == norms + inputs + 2 * 2 * (Q + K) + SCORES
    assert memory(**HALF).mlp == 2 * 4 * INNER
    assert memory(**HALF).mlp_work == 2 * 2 * INNER + 2 * H
    assert memory(**HALF).attention_work == 2 * 6 * Q + 2 * H
    assert memory(**HALF).score == 2 * Q + SCORES


def test_a_block_trained_in_fp32_under_autocast_casts_for_each_of_five_readers() -> None:
    norms = 2 * H * (4 + 4)
    assert memory(dtype="float32").attention == norms + 5 * 2 * H + 2 * 2 * (Q + K) + SCORES
    assert memory(dtype="float32").mlp_work == 2 * 2 * INNER + 4 * H


def test_a_block_trained_in_fp32_alone_shares_its_inputs() -> None:
    norms = 2 * H * (4 + 4)
    plain = memory(dtype="float32", mixed=False, length=512)
    assert plain.attention == norms + 2 * 4 * H + 4 * 4 * Q + 4 * 32 * 512  # grouped heads in fp32: SDPA makes scores
    padded = memory(dtype="float32", mixed=False, length=512, padded=True)
    assert padded.attention == norms + 2 * 4 * H + 4 * 4 * Q + SCORES + 4 * 512
    assert plain.mlp == 4 * 4 * INNER


def test_a_block_under_lora_keeps_a_copy_for_each_adapter() -> None:
    adapted = memory(**LORA)
    ranks = 2 * 16 * 7
    assert adapted.attention == 2 * 4 * H + 2 * (5 * H + Q) + ranks + 2 * 2 * (Q + K) + SCORES
    assert adapted.mlp == 2 * 4 * INNER
    assert adapted.mlp_work == 6 * INNER + 10 * H


def test_a_block_under_lora_without_autocast_keeps_fp32_copies() -> None:
    adapted = memory(**LORA, mixed=False)
    assert adapted.attention == 2 * 4 * H + 4 * (5 * H + Q) + 2 * 16 * 7 + 2 * 2 * (Q + K) + SCORES
    assert adapted.mlp == 2 * 3 * INNER + 4 * INNER


def test_a_block_under_lora_of_attention_alone() -> None:
    adapted = memory(**LORA, targets=ATTENTION)
    assert adapted.attention == 2 * 4 * H + 2 * (3 * H + Q) + 2 * 16 * 4 + 2 * 2 * (Q + K) + SCORES
    assert adapted.mlp == 2 * 3 * INNER
    assert adapted.mlp_work == 2 * 3 * INNER + 2 * H


def test_qloras_bf16_adapters_share_their_inputs() -> None:
    adapted = memory(dtype="bfloat16", adapter="qlora", rank=16)
    assert adapted.attention == 2 * 4 * H + 2 * 2 * H + 2 * 16 * 7 + 2 * 2 * (Q + K) + SCORES
    assert adapted.mlp == 2 * 4 * INNER
    assert adapted.mlp_work == 2 * 2 * INNER + 2 * H


def test_normed_queries_keep_their_inputs_in_fp32() -> None:
    plain = memory(**LORA).attention
    assert memory(facts("Qwen/Qwen3-8B"), **LORA).attention == plain + (Q + K) * 4
    assert memory(facts("Qwen/Qwen3-8B"), **HALF).attention == memory(**HALF).attention + (Q + K) * 6


def test_gemmas_norms_multiply_in_fp32() -> None:
    step = Step(model=GEMMA, **HALF, length=512)
    block = block_of(step)
    hidden, heads = GEMMA.hidden, block.query + block.keys
    norms = 4 * hidden * 8 + heads * 8
    assert block_memory(step, block).attention == norms + 2 * 2 * hidden + 2 * 2 * heads + 4 * GEMMA.heads


def test_a_window_shorter_than_the_row_needs_a_mask_in_its_layers() -> None:
    short, long = (memory(GEMMA, **LORA, length=length).attention for length in (512, 1024))
    assert (GEMMA.window, GEMMA.windowed, GEMMA.layers) == (512, 22, 26)
    assert long - short == 2 * 1024 * 22 // 26
    padded = memory(GEMMA, **LORA, length=1024, padded=True).attention
    assert padded - short == 2 * 1024


def test_a_fused_projection_is_kept_whole_and_its_output_copied() -> None:
    phi = facts("microsoft/Phi-4-mini-instruct")
    block = block_of(Step(model=phi, **HALF))
    assert (block.fused, block.readers, block.up) == (True, 2, 2)
    whole = 2 * 2 * (block.query + block.keys) + 2 * (block.query + block.keys) + 4 * block.heads
    assert memory(phi, **HALF).attention == 2 * phi.hidden * 6 + 2 * block.query + 2 * 2 * phi.hidden + whole
    shared = memory(phi, dtype="bfloat16", adapter="qlora", targets=["o_proj"], rank=1)
    none = memory(phi, dtype="bfloat16", adapter="qlora", targets=["down_proj"], rank=1)
    assert shared.attention - none.attention == 2 * block.query


def test_capped_scores_are_kept_once_more() -> None:
    gemma2 = facts("google/gemma-2-2b")
    how = LORA | {"attention": "eager", "length": 1024}
    block = block_of(Step(model=gemma2, **how))
    assert block.capped
    rest = 4 * gemma2.hidden * 4 + 2 * (5 * gemma2.hidden + block.query) + 2 * 16 * 7 + 2 * 2 * 2 * block.query
    assert memory(gemma2, **how).attention == rest + block.heads * 1024 * (4 + 2 + 2)


def test_experts_hold_a_copy_of_the_token_each() -> None:
    token, inner, router = 2 * 2048 * 8, 2 * 768 * 8, 3 * 4 * 128
    block = block_of(Step(model=MIXTURE))
    assert (block.expert, block.chosen, block.routed, block.intermediate) == (768, 8, 128, 0)
    frozen = memory(MIXTURE, **LORA, targets=ATTENTION)
    assert (frozen.mlp, frozen.mlp_work) == (token + 3 * inner + router, 3 * token)
    for how in (HALF, LORA):
        trained = memory(MIXTURE, **how)
        assert (trained.mlp, trained.mlp_work) == (2 * token + 4 * inner + router, 2 * token + inner)


def test_experts_listed_one_by_one_are_no_linear_layers_of_a_block() -> None:
    single = LinearShape(name="w1", out_features=768, in_features=2048, count=48 * 128)
    listed = MIXTURE.model_copy(update={"linears": [*MIXTURE.linears, single]})
    assert single not in text_linears(listed)
    assert text_linears(listed) == text_linears(MIXTURE)


def test_the_heads_backward_holds_its_gradient_in_fp32_and_cast() -> None:
    step = Step(model=LLAMA, **HALF, rows=2, length=4096)
    head = head_memory(step, widths_of(step))
    weight, tile, tokens = LLAMA.vocabulary * H, 2 * 4096 * 32768, 8192
    assert head.kept == tokens * H * 6
    assert head.forward == tokens * (2 * 2 * H + 40) + tile
    assert head.backward == tokens * (2 * H + 4 * H + 2 * H + 40) + 4 * weight + 2 * weight + tile
    assert head.gradient == 2 * weight


def test_fp32_weights_are_cast_a_piece_at_a_time_by_the_fused_loss() -> None:
    step = Step(model=LLAMA, dtype="float32", length=1024)
    head = head_memory(step, widths_of(step))
    tile = 2 * 1024 * 32768 + 2 * 32768 * H
    assert head.forward == 1024 * (2 * 4 * H + 40) + tile
    assert head.backward == 1024 * (4 * H + 4 * H + 40) + 4 * LLAMA.vocabulary * H + tile


@pytest.mark.parametrize(
    ("code", "mixed", "dtype", "forward"),
    [("today", True, "bfloat16", 10), ("4.4x", True, "bfloat16", 14), ("today", False, "float32", 8)],
)
def test_full_logits_have_copies(code: Any, mixed: bool, dtype: Any, forward: int) -> None:
    step = Step(model=LLAMA, adapter="lora", dtype=dtype, mixed=mixed, length=1024, fused_loss=False, code=code)
    head = head_memory(step, widths_of(step))
    stream = widths_of(step).stream * H
    assert head.forward == 1024 * (forward * LLAMA.vocabulary + stream)
    assert head.backward == 1024 * 12 * LLAMA.vocabulary


def test_a_reward_model_has_no_vocabulary() -> None:
    step = Step(model=LLAMA, **HALF, method="reward", rows=1, length=1024)
    assert head_memory(step, widths_of(step)).backward == 2048 * 2 * H


def test_lora_dropout_keeps_a_mask_and_an_input_of_its_own_for_each_adapter() -> None:
    dry, wet = (memory(**LORA, dropout=dropout) for dropout in (0.0, 0.05))
    assert wet.attention - dry.attention == 5 * H + Q
    assert wet.mlp - dry.mlp == INNER
    assert wet.mlp_work - dry.mlp_work == 4 * INNER
    quantised = {"dtype": "bfloat16", "adapter": "qlora"}
    dry, wet = (memory(**quantised, dropout=dropout) for dropout in (0.0, 0.05))
    assert wet.attention - dry.attention == 3 * (5 * H + Q) - 2 * 2 * H


def test_gathered_layers() -> None:
    root = 2 * LLAMA.vocabulary * H
    block = (LLAMA.parameters - root) // 32
    fsdp = Step(model=LLAMA, **HALF, devices=2, sharding="fsdp")
    assert state_of(fsdp, widths_of(fsdp)).gathered == 2 * block * 2 + root * 2 + block * 2
    adapted = fsdp.model_copy(update={"adapter": "lora"})
    assert state_of(adapted, widths_of(adapted)).gathered == 2 * block * 2 + root * 2
    zero = Step(model=LLAMA, **HALF, devices=2, sharding="zero3")
    assert state_of(zero, widths_of(zero)).gathered == 2 * 10**9
    assert state_of(zero, widths_of(zero)).buckets == 2 * 200_000_000 * 2
    alone = Step(model=LLAMA, **HALF, sharding="fsdp")
    assert state_of(alone, widths_of(alone)).gathered == 0


def test_four_bit_weights_are_unpacked_one_layer_at_a_time() -> None:
    step = Step(model=LLAMA, adapter="qlora", dtype="bfloat16")
    assert state_of(step, widths_of(step)).gathered == H * INNER * 2
    gptq = Step(model=LLAMA.model_copy(update={"quantised": "gptq"}), adapter="lora", dtype="float16")
    assert state_of(gptq, widths_of(gptq)).gathered == H * INNER * 2


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"adapter": "lora"}, True),
        ({"adapter": "none"}, False),
        ({"adapter": "lora", "checkpointing": "off"}, False),
        ({"adapter": "lora", "code": "today"}, False),
        ({"adapter": "lora", "sharding": "ddp"}, False),
    ],
)
def test_only_fsdp1_hoards_the_inputs_of_frozen_blocks(how: dict[str, Any], expected: bool) -> None:
    step = {"model": LLAMA, "code": "4.4x", "sharding": "fsdp", "devices": 2, "checkpointing": "full"} | how
    assert _hoards(Step.model_validate(step)) is expected


def test_a_generation_holds_its_cache_and_the_prompts_pass_or_the_logits() -> None:
    how: dict[str, Any] = {"model": LLAMA, **LORA, "length": 64, "checkpointing": "full"}
    step = Step(**how, generate=(4, 1000, 24))
    found = estimate(step)
    block, widths = block_of(step), widths_of(step)
    assert forward_work(block, widths) == 2 * 2 * H + 4 * H + 2 * 3 * INNER
    cache = 2 * 2 * K * 32 * 1024 * 4  # keys and values of 1,024 tokens, four rows
    generation = next(phase for phase in found.phases if phase.name == "generation")
    assert (generation.parts["cache"], generation.parts["activations"]) == (cache, 4000 * forward_work(block, widths))
    assert generation.bytes == found.weights + found.optimizer + cache + 4000 * forward_work(block, widths)
    tiny = estimate(Step(**how, generate=(4, 1, 1)))
    least = next(phase.bytes for phase in tiny.phases if phase.name == "generation")
    assert least == tiny.weights + tiny.optimizer + cache // 512 + 4 * LLAMA.vocabulary * 14
    assert "generation" not in [phase.name for phase in estimate(Step(**how)).phases]


def test_a_mixtures_prompt_visits_its_experts() -> None:
    step = Step(model=MIXTURE, **HALF)
    expected = 2 * 2 * 2048 + 4 * 2048 + 2 * 8 * (2 * 2048 + 3 * 768)
    assert forward_work(block_of(step), widths_of(step)) == expected


def test_the_references_pass_keeps_nothing_for_backward() -> None:
    step = Step(model=LLAMA, **HALF, method="dpo", reference="model", rows=2, length=512)
    found = estimate(step)
    head = head_memory(step, widths_of(step))
    passed = next(phase.bytes for phase in found.phases if phase.name == "reference")
    always = found.weights + found.optimizer + found.reference
    assert passed == always + 2048 * forward_work(block_of(step), widths_of(step)) + head.forward
    for other in ("none", "precomputed"):
        phases = estimate(step.model_copy(update={"reference": other})).phases
        assert "reference" not in [phase.name for phase in phases]


def test_an_unknown_block_has_an_mlp_four_times_as_wide() -> None:
    bare = LLAMA.model_copy(update={"linears": [], "intermediate": 0, "heads": 0, "head_dim": 0, "kv_heads": 0})
    block = block_of(Step(model=bare))
    assert (block.intermediate, block.up, block.readers) == (4 * H, 2, 5)
    assert (block.heads, block.query, block.keys) == (32, H, H)


def test_an_mlp_without_a_gate_has_one_projection_up() -> None:
    names = {"q_proj": (H, H), "o_proj": (H, H), "fc1": (4 * H, H), "fc2": (H, 4 * H)}
    linears = [
        LinearShape(name=name, out_features=out, in_features=into, count=32) for name, (out, into) in names.items()
    ]
    plain = LLAMA.model_copy(update={"linears": linears, "intermediate": 4 * H})
    assert (block_of(Step(model=plain)).up, block_of(Step(model=plain)).readers) == (1, 2)
    assert memory(plain, **HALF).mlp == 2 * 2 * 4 * H
    assert memory(plain, **HALF).mlp_work == 2 * 2 * 4 * H + 2 * H
