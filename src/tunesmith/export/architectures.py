"""The table of architectures that can be written as GGUF, and what each needs beside a tensor's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..rules import FindingsError, finding

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Architecture:
    """How one Transformers architecture is written.

    Attributes:
        gguf: Name of the architecture in llama.cpp.
        permute: Whether llama.cpp rotates neighbouring pairs (2i, 2i+1) of a head, where Transformers rotates
            (i, i + head size / 2), so that the rows of the q and k projections change places.
        ropes: Rope types that are written faithfully.
    """

    gguf: str
    permute: bool
    ropes: tuple[str, ...] = ("default",)


ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", permute=True, ropes=("default", "llama3")),
    "MistralForCausalLM": Architecture("llama", permute=True),
    "Qwen2ForCausalLM": Architecture("qwen2", permute=False),
    "Qwen3ForCausalLM": Architecture("qwen3", permute=False),
}


def look_up(config: Any) -> Architecture:
    """The table's entry for a model's Transformers config.

    Raises:
        FindingsError: X006, the architecture is not in the table, or uses something that its entry doesn't cover.
    """
    name = (config.architectures or ["The architecture"])[0]
    entry = ARCHITECTURES.get(name)
    if entry is None:
        raise _refusal(name, "it isn't in the table")
    if (rope := config.rope_parameters["rope_type"]) not in entry.ropes:
        raise _refusal(name, f"its rope type {rope} isn't covered")
    window = getattr(config, "sliding_window", None)
    if window is not None and window < config.max_position_embeddings:
        raise _refusal(name, f"its sliding window of {window} tokens isn't covered")
    if config.hidden_act not in ("silu", "swish"):
        raise _refusal(name, f"its activation {config.hidden_act} isn't covered")
    return entry


def _refusal(name: str, reason: str) -> FindingsError:
    supported = ", ".join(ARCHITECTURES)
    return FindingsError([finding("X006", "export", architecture=name, reason=reason, supported=supported)])


def head_size(config: Any) -> int:
    """Numbers per attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def write_hyperparameters(writer: Any, config: Any) -> None:
    """Write what llama.cpp needs to build the graph: sizes, heads, norm and rope."""
    size = head_size(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def extra_tensors(config: Any) -> dict[str, np.ndarray]:
    """Tensors that GGUF wants and no checkpoint holds, by their GGUF name."""
    if config.rope_parameters["rope_type"] == "llama3":
        return {"rope_freqs.weight": llama3_factors(config)}
    return {}


def llama3_factors(config: Any) -> np.ndarray:
    """What llama.cpp divides each rope frequency by, [head size / 2], so that it gets Transformers' frequencies."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    size = head_size(config)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    exponents = torch.arange(0, size, 2, dtype=torch.float64) / size
    plain = config.rope_parameters["rope_theta"] ** -exponents
    factors: np.ndarray = (plain / scaled.double()).float().numpy()
    return factors


def transform(entry: Architecture, config: Any, name: str) -> Callable[[Tensor], Tensor]:
    """What to do with the tensor that the checkpoint calls `name` before it is written."""
    parts = name.split(".")
    projection = parts[-2] if len(parts) > 1 else ""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    if entry.permute and projection in heads:
        return lambda tensor: interleave(tensor, heads[projection])
    return lambda tensor: tensor


def interleave(rows: Tensor, heads: int) -> Tensor:
    """Reorder the rows of each head from halves (0 1 2 3) to pairs (0 2 1 3); `rows` is [heads * head size, ...]."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)
