"""The table of architectures against the models that Transformers builds."""

from typing import Any

import pytest

from tests.support.models import SMALL_TEXT, matched, on_meta, real_weights, small_vision
from tunesmith.models.architectures import Blueprint, architectures, blueprint

TEXT = [name for name in architectures()["text"] if name not in ("qwen2_5_vl_text", "qwen3_vl_text")]
VISION = [(name, row["text"]) for name, row in architectures()["vision"].items()]


def read(values: dict[str, Any]) -> Blueprint:
    return blueprint(values, "it")


def check(values: dict[str, Any]) -> Blueprint:
    drawn, model = read(values), on_meta(values)
    assert drawn.known
    assert matched(drawn.weights, model) == real_weights(model)
    # Transformers fills every default in; what it then says must give the same as what was silent.
    assert read(model.config.to_dict()) == drawn
    assert drawn.tied == (model.get_output_embeddings().weight is model.get_input_embeddings().weight)
    return drawn


@pytest.mark.parametrize("model_type", TEXT)
def test_every_weight_of_a_text_model(model_type: str) -> None:
    check(SMALL_TEXT | {"model_type": model_type})


@pytest.mark.parametrize("model_type", TEXT)
def test_defaults_of_a_text_model(model_type: str) -> None:
    needed = {name: value for name, value in SMALL_TEXT.items() if name != "num_key_value_heads"}
    check(needed | {"model_type": model_type, "num_attention_heads": 32, "hidden_size": 256})


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"tie_word_embeddings": True, "head_dim": 24}),
        ("granite", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("mistral", {"head_dim": 24}),
        ("qwen3", {"attention_bias": True, "tie_word_embeddings": True, "head_dim": 24}),
        ("qwen3_moe", {"num_experts": 6, "moe_intermediate_size": 40, "mlp_only_layers": [0]}),
        ("qwen3_moe", {"num_experts": 6, "decoder_sparse_step": 2}),
        ("qwen2_moe", {"num_experts": 6, "shared_expert_intermediate_size": 24, "mlp_only_layers": [1, 2]}),
        ("mixtral", {"num_local_experts": 5}),
        ("gemma2", {"attention_bias": True, "tie_word_embeddings": False}),
        ("olmo2", {"attention_bias": True}),
    ],
)
def test_what_a_config_changes(model_type: str, changes: dict[str, Any]) -> None:
    assert check(SMALL_TEXT | {"model_type": model_type} | changes) != read(SMALL_TEXT | {"model_type": model_type})


@pytest.mark.parametrize(("model_type", "text_type"), VISION)
def test_every_weight_of_a_vision_model(model_type: str, text_type: str) -> None:
    drawn = check(small_vision(model_type, text_type))
    assert drawn.vision


def test_what_a_config_changes_in_a_vision_model() -> None:
    plain = small_vision("gemma3", "gemma3_text")
    headless = check(plain | {"vision_config": plain["vision_config"] | {"vision_use_head": False}})
    assert len(headless.weights) < len(read(plain).weights)
    check(small_vision("mistral3", "mistral", multimodal_projector_bias=True, spatial_merge_size=3))
    check(small_vision("smolvlm", "llama", scale_factor=4, tie_word_embeddings=True))


def test_a_vision_config_without_a_text_part_of_its_own() -> None:
    """Qwen2.5-VL's own config.json has the text model's sizes at the top."""
    nested = small_vision("qwen2_5_vl", "qwen2_5_vl_text")
    text = {key: value for key, value in nested.pop("text_config").items() if key != "model_type"}
    assert read(text | nested) == read(small_vision("qwen2_5_vl", "qwen2_5_vl_text"))


def test_which_vision_models_are_causal() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    causal = {name for name, row in architectures()["vision"].items() if row.get("causal")}
    assert causal == set(architectures()["vision"]) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


WINDOWED: list[tuple[str, dict[str, Any]]] = [
    ("mistral", {"sliding_window": 16}),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}),
    ("qwen2", {"sliding_window": 16, "use_sliding_window": False}),
    ("qwen3", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 9}),
    ("gemma2", {"num_hidden_layers": 7, "sliding_window": 16}),
    ("gemma3_text", {"num_hidden_layers": 13, "sliding_window": 16}),
    ("olmo3", {"num_hidden_layers": 9, "sliding_window": 16}),
    ("gpt_oss", {"num_hidden_layers": 5, "sliding_window": 16}),
    ("gemma3_text", {"layer_types": ["full_attention", *["sliding_attention"] * 3], "sliding_window": 16}),
]


@pytest.mark.parametrize(("model_type", "changes"), WINDOWED)
def test_layers_whose_attention_slides(model_type: str, changes: dict[str, Any]) -> None:
    from transformers import AutoConfig

    values = SMALL_TEXT | {"model_type": model_type} | changes
    config = AutoConfig.for_model(**values)
    types = getattr(config, "layer_types", None)
    alike = ["sliding_attention" if config.sliding_window else "full_attention"] * config.num_hidden_layers
    count = (types or alike).count("sliding_attention")
    sizes = read(values).sizes
    assert (sizes.window, sizes.windowed) == ((16, count) if count else (0, 0))


def test_a_window_as_long_as_the_context_is_none() -> None:
    values = SMALL_TEXT | {"model_type": "phi3", "sliding_window": 64}
    values.pop("max_position_embeddings", None)
    assert read(values | {"max_position_embeddings": 65}).sizes.windowed == 4
    assert read(values | {"max_position_embeddings": 64}).sizes.windowed == 0
    assert read(values).sizes.window == 64


def test_an_unknown_architecture_is_taken_for_a_llama() -> None:
    odd, llama = read(SMALL_TEXT | {"model_type": "novel"}), read(SMALL_TEXT | {"model_type": "llama"})
    assert (odd.known, llama.known) == (False, True)
    assert odd.weights == llama.weights
    assert not read(SMALL_TEXT | {"model_type": "novel", "vision_config": {}}).known
    assert not read(SMALL_TEXT | {"model_type": "llama", "vision_config": {}}).known


def test_a_tower_without_a_size_is_not_known() -> None:
    values = small_vision("gemma3", "gemma3_text")
    assert read(values).known
    assert not read(values | {"vision_config": values["vision_config"] | {"hidden_size": None}}).known


def test_without_sizes_there_are_no_weights() -> None:
    values = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 10}
    drawn = read(values)
    assert drawn.weights == ()
    assert drawn.sizes.missing == ["num_attention_heads", "intermediate_size"]
