"""The table of architectures whose rows may lie end to end, held against the installed Transformers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunesmith.models.table import read_table
from tunesmith.records import VARLEN
from tunesmith.train.attention import packing_error, register, rounding

TABLE = read_table("packing")
SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
WINDOW = {"sliding_window": 4}
OLD = {"n_embd": 64, "n_layer": 2, "n_head": 4}
MORE: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "cohere2": WINDOW,
    "ernie4_5": {"head_dim": 16},
    "exaone4": WINDOW,
    "falcon": {"num_kv_heads": 2},
    "gemma": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16, **WINDOW},
    "gemma4_text": {"head_dim": 16, **WINDOW},
    "glm": {"head_dim": 16},
    "glm4": {"head_dim": 16},
    "glm4_moe": {"head_dim": 16, "n_routed_experts": 4, **EXPERTS},
    "gpt2": OLD,
    "gpt_bigcode": OLD,
    "gpt_oss": {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, **WINDOW},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "helium": {"head_dim": 16},
    "hunyuan_v1_dense": {"head_dim": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "ministral": {"head_dim": 16, **WINDOW},
    "mistral": WINDOW,
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, **WINDOW},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 2},
    "olmo3": WINDOW,
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "phi3": WINDOW,
    "qwen2": {"use_sliding_window": True, "max_window_layers": 0, **WINDOW},
    "qwen2_moe": {"num_experts": 4, "shared_expert_intermediate_size": 32, **EXPERTS},
    "qwen3": {"head_dim": 16, "use_sliding_window": True, "max_window_layers": 0, **WINDOW},
    "qwen3_moe": {"head_dim": 16, "num_experts": 4, **EXPERTS},
    "seed_oss": {"head_dim": 16},
    "smollm3": {"use_sliding_window": True, "max_window_layers": 0, **WINDOW},
    "starcoder2": WINDOW,
}


def tiny(model_type: str) -> Any:
    """A model of this type with random weights."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = AutoConfig.for_model(model_type, **SIZES | MORE.get(model_type, {}))
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


@pytest.mark.parametrize("model_type", TABLE["exact"])
def test_rows_end_to_end_are_as_alone(model_type: str) -> None:
    model = tiny(model_type)
    assert abs(packing_error(model)) < rounding(torch.float32)  # by the attention that it is loaded with
    model.set_attn_implementation(register())
    assert model.config._attn_implementation == VARLEN
    assert abs(packing_error(model)) < rounding(torch.float32)


@pytest.mark.parametrize("model_type", TABLE["leaking"])
def test_what_is_said_to_leak_does_or_refuses(model_type: str) -> None:
    model = tiny(model_type)
    if "convolutions" in TABLE["leaking"][model_type]:
        with pytest.raises(ValueError, match="can't keep packed sequences apart"):
            packing_error(model)
    else:
        assert packing_error(model) > 2 * rounding(torch.float32)


def test_the_table_names_each_type_once() -> None:
    assert not set(TABLE["exact"]) & set(TABLE["leaking"])
    assert TABLE["exact"] == sorted(set(TABLE["exact"]))
