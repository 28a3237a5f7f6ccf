"""Models that Transformers builds without weights, to hold facts against."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith.models.architectures import Weight

SMALL_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 1000,
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL_TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "image_size": 56,
    "patch_size": 14,
}
SMALL_QWEN_TOWER: dict[str, Any] = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_heads": 4,
    "out_hidden_size": 64,
}
TOWERS: dict[str, dict[str, Any]] = {
    "gemma3": SMALL_TOWER | {"model_type": "siglip_vision_model"},
    "mistral3": SMALL_TOWER | {"model_type": "pixtral", "head_dim": 8},
    "smolvlm": SMALL_TOWER,
    "idefics3": SMALL_TOWER,
    "qwen2_5_vl": SMALL_QWEN_TOWER,
    "qwen3_vl": SMALL_QWEN_TOWER | {"deepstack_visual_indexes": [0, 2]},
}


def small_vision(model_type: str, text_type: str, **changes: Any) -> dict[str, Any]:
    """The config of a small vision model."""
    text = SMALL_TEXT | {"model_type": text_type}
    return {"model_type": model_type, "text_config": text, "vision_config": TOWERS[model_type]} | changes


def on_meta(values: Mapping[str, Any]) -> Any:
    """The model that Transformers builds from config.json's values, on device meta."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = AutoConfig.for_model(**values)
    causal = values["model_type"] in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    with torch.device("meta"):
        return (AutoModelForCausalLM if causal else AutoModelForImageTextToText).from_config(config)


def real_weights(model: Any) -> Counter[tuple[str, tuple[int, ...]]]:
    """Name and shape of every parameter, layers counted together."""
    return Counter((re.sub(r"\.\d+(?=\.)", "", name), tuple(one.shape)) for name, one in model.named_parameters())


def matched(ours: Iterable[Weight], model: Any) -> Counter[tuple[str, tuple[int, ...]]]:
    """`ours` under the names of `model`'s parameters, as `real_weights` gives them; what isn't there keeps its own."""
    names: dict[tuple[str, tuple[int, ...]], str] = {}
    for name, shape in real_weights(model):
        tower = "vision." if re.search(r"\b(vision_\w+|visual|multi_modal_projector|connector)\.", name) else ""
        for cut in range(name.count(".") + 1):
            names.setdefault((tower + ".".join(name.split(".")[cut:]), shape), name)
    counts = Counter[tuple[str, tuple[int, ...]]]()
    for weight in ours:
        name = re.sub(r"\.\d+(?=\.)", "", weight.name)
        counts[names.get((name, weight.shape), weight.name), weight.shape] += weight.count
    return counts
