"""The table of GGUF architectures and the tensors that change on the way."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, LlamaConfig, MistralConfig, Qwen3Config

from tests.support.tiny import LLAMA3_ROPE
from tunesmith.export.architectures import ARCHITECTURES, extra_tensors, interleave, look_up, transform
from tunesmith.rules import FindingsError


def separate(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """From neighbouring pairs back to halves."""
    return torch.cat([torch.cat([head[0::2], head[1::2]]) for head in rows.chunk(heads)])


def refusal(config: Any) -> str:
    with pytest.raises(FindingsError) as caught:
        look_up(config)
    assert [found.code for found in caught.value.findings] == ["X006"]
    return caught.value.what


def test_interleave_brings_the_halves_of_each_head_together() -> None:
    rows = torch.arange(12).reshape(12, 1)
    assert interleave(rows, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


@given(st.integers(1, 5), st.integers(1, 8), st.integers(0, 4))
def test_interleave_is_undone_by_separating(heads: int, half: int, width: int) -> None:
    shape = (heads * half * 2, width) if width else (heads * half * 2,)
    rows = torch.rand(shape)
    assert torch.equal(separate(interleave(rows, heads), heads), rows)
    assert torch.equal(interleave(separate(rows, heads), heads), rows)


def test_only_q_and_k_of_permuted_architectures_change() -> None:
    config = LlamaConfig(num_attention_heads=4, num_key_value_heads=2)
    rows = torch.rand(16, 3)
    llama, qwen = ARCHITECTURES["LlamaForCausalLM"], ARCHITECTURES["Qwen3ForCausalLM"]
    layer = "model.layers.0.self_attn."
    assert torch.equal(transform(llama, config, layer + "q_proj.weight")(rows), interleave(rows, 4))
    assert torch.equal(transform(llama, config, layer + "k_proj.weight")(rows), interleave(rows, 2))
    assert torch.equal(transform(llama, config, layer + "v_proj.weight")(rows), rows)
    assert torch.equal(transform(qwen, config, layer + "q_proj.weight")(rows), rows)


def test_llama3_factors_turn_plain_frequencies_into_scaled_ones() -> None:
    config = LlamaConfig(head_dim=16, max_position_embeddings=1024, rope_parameters=LLAMA3_ROPE)
    factors = extra_tensors(config)["rope_freqs.weight"]
    assert factors.shape == (8,)
    assert factors.dtype == np.float32
    # Short wavelengths (below 64 / high factor) stay, long ones (above 64 / low factor) are stretched by the factor.
    wavelengths = 2 * np.pi * 500.0 ** (np.arange(8) / 8)
    assert factors[wavelengths < 16] == pytest.approx(1.0)
    assert factors[wavelengths > 64] == pytest.approx(8.0)
    between = (wavelengths > 16) & (wavelengths < 64)
    assert between.any()
    assert ((factors[between] > 1) & (factors[between] < 8)).all()


def test_plain_rope_has_no_extra_tensors() -> None:
    assert extra_tensors(Qwen3Config()) == {}


def test_known_architectures_are_found() -> None:
    assert look_up(Qwen3Config(architectures=["Qwen3ForCausalLM"])).gguf == "qwen3"
    assert look_up(LlamaConfig(architectures=["LlamaForCausalLM"], rope_parameters=LLAMA3_ROPE)).permute


def test_what_the_table_does_not_cover_is_refused() -> None:
    assert "GPT2LMHeadModel can't be converted" in refusal(GPT2Config(architectures=["GPT2LMHeadModel"]))
    assert "isn't in the table" in refusal(Qwen3Config(architectures=None))
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 1024}
    assert "rope type yarn" in refusal(Qwen3Config(architectures=["Qwen3ForCausalLM"], rope_parameters=yarn))
    windowed = MistralConfig(architectures=["MistralForCausalLM"], sliding_window=128, max_position_embeddings=1024)
    assert "sliding window of 128" in refusal(windowed)
    assert "activation gelu" in refusal(LlamaConfig(architectures=["LlamaForCausalLM"], hidden_act="gelu"))


def test_a_window_as_long_as_the_context_is_none() -> None:
    config = MistralConfig(architectures=["MistralForCausalLM"], sliding_window=1024, max_position_embeddings=1024)
    assert look_up(config).gguf == "llama"
