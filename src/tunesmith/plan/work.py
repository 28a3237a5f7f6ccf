"""What a training step computes, moves and starts: operations, bytes and kernels, counted without torch.

`plan/time.py` turns them into seconds. Counts of elementwise bytes and of kernels were taken on Transformers 5.23 and
PEFT 0.21 by a dispatch mode over one and two layers of Llama and Qwen3 (November 2026).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..records import LinearShape, ModelFacts
from .documents import Documents
from .memory import state

if TYPE_CHECKING:
    from .memory.step import Step

_WIDTH = {"float32": 4, "float16": 2, "bfloat16": 2}

# Elementwise bytes per token and layer, forward and backward, as multiples of (hidden, intermediate): norms, rotary
# embedding, residuals, gated activation. Llama 358 and 28, Qwen3 with its norms of q and k 491 and 28; the second pair
# with activations computed again.
_ELEMENTWISE = {False: (400, 28), True: (510, 38)}
# The same for an expert that is used: routing its tokens there and back, and its own activation (Qwen3-MoE).
_ROUTED = {False: (54, 54), True: (65, 70)}
_FP32_HIDDEN = 1.37  # weights in fp32 under autocast keep the residual stream in fp32
# A LoRA layer's bytes per token, as multiples of (in, out): casts to the adapter's fp32 and the sum with the base.
_LORA = {False: (25, 17), True: (33, 28)}
# Bytes per parameter of casting fp32 weights to bf16 under autocast, each time they are used.
_CAST = {False: 12, True: 18}
# NF4: half a byte and a scale are read, two bytes are written, in each pass (bitsandbytes' dequantize kernels).
_DEQUANTISE = 0.5 + 1 / 64 + 2
# Logits: the fused loss writes and reads tiles of two bytes, in forward and backward; the plain one has fp32 copies.
_LOGITS = {True: 2 * 6, False: 2 * 2 + 4 * 8}
# Eager attention's bytes per query-key pair, head and layer: scores, mask, softmax in fp32, and back.
_SCORES = {False: 60, True: 92}
# Kernels of a layer's forward pass (Llama 38, Qwen3 54), of each LoRA layer in it, and how many times as many a whole
# step has, without and with recompute.
_KERNELS, _LORA_KERNELS, _PASSES = 46, 8, {False: 2.6, True: 3.5}
_KERNELS_PER_UPDATE = 600  # clipping and the fused optimizer, over all tensors
# Bytes that the optimizer moves per trained parameter: (times the parameter's width, bytes of its states). AdamW reads
# p, g, m, v and writes p, m, v; clipping reads g twice and writes it once. Unfused, each operation passes on its own.
_OPTIMIZER = {
    "adamw_torch_fused": (10, 0),
    "adamw_torch": (20, 0),
    "adamw_8bit": (6, 4),
    "adamw_bnb_8bit": (6, 4),
    "paged_adamw_8bit": (6, 4),
    "paged_adamw_32bit": (6, 16),
    "sgd": (6, 0),
    "adafactor": (12, 0),
}


@dataclass(frozen=True)
class MicroBatch:
    """What one forward and backward pass of one device sees.

    Attributes:
        tokens: Tokens computed, padding among them.
        useful: Tokens of the data.
        scored: Tokens whose logits are computed.
        squares: Sum over sequences of the attended query-key pairs, for layers that attend to everything.
        windowed: The same for layers with a sliding window.
    """

    tokens: float
    useful: float
    scored: float
    squares: float
    windowed: float


@dataclass(frozen=True)
class Load:
    """The work of one micro-batch, and of one update of the weights.

    Attributes:
        operations: Floating-point operations by part.
        moved: Bytes by part, beside the matrix products.
        kernels: Kernels started.
        update_moved: Bytes that clipping and the optimizer move per update.
        update_kernels: Kernels of an update.
    """

    operations: dict[str, float] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)
    kernels: float = 0.0
    update_moved: float = 0.0
    update_kernels: float = _KERNELS_PER_UPDATE


def body_parameters(model: ModelFacts) -> float:
    """Parameters of the matrix products of the layers that one token goes through; embedding and head left out."""
    parts = model.parts
    if not (parts.attention or parts.mlp or parts.experts):
        return float(sum(shape.in_features * shape.out_features * shape.count for shape in model.linears))
    share = model.expert_active / model.expert_count if model.expert_count else 1.0
    return parts.attention + parts.mlp + parts.router + parts.experts * share


def lora_layers(step: Step) -> list[LinearShape]:
    """The linear layers that get an adapter."""
    if step.adapter in ("none", "prompt", "prefix"):
        return []
    everything = step.targets == "all-linear"
    return [shape for shape in step.model.linears if everything or shape.name in step.targets]


def trained_parameters(step: Step) -> float:
    """All of the model's, or the adapter's."""
    return float(state.trained_parameters(step))


def micro_batch(
    step: Step, documents: Documents, *, packed: bool = False, grouped: bool = False, scored: float = 1.0
) -> MicroBatch:
    """What a pass sees: rows drawn at random and padded to the longest, rows of like length, or packed ones.

    `scored` is the share of the data's tokens that the loss is taken on; the fused loss leaves out the others on a GPU.
    Of preference pairs each row has two sequences, and `documents` are the lengths of one of them.
    """
    sequences = step.tokens // step.length
    if packed:
        tokens = useful = float(step.tokens)
        weights = [(length, share * tokens / documents.mean) for length, share in documents.shares]
        dense = step.attention != "flash"
        if dense:  # a block-diagonal mask is computed in full
            weights = [(step.length, float(sequences))]
    else:
        padded = documents.shares if grouped else documents.longest_of(sequences)
        weights = [(length, share * sequences) for length, share in padded]
        tokens = sum(length * rows for length, rows in weights)
        useful = documents.mean * sequences
        # Without padding there is no mask, and the kernel computes only what is causal.
        dense = step.attention == "eager" or (step.attention == "sdpa" and tokens > 1.001 * useful)
    window = step.model.window
    return MicroBatch(
        tokens=tokens,
        useful=useful,
        scored=useful * scored if step.fused_loss else tokens,
        squares=sum(_pairs(length, 0, dense=dense) * rows for length, rows in weights),
        windowed=sum(_pairs(length, window, dense=dense) * rows for length, rows in weights),
    )


def _pairs(length: int, window: int, *, dense: bool) -> float:
    """Query-key pairs of one sequence: all, the causal half, or those within the window."""
    if dense:
        return float(length * length)
    reach = min(window or length, length)
    return length * reach - reach * reach / 2


def step_load(step: Step, batch: MicroBatch) -> Load:
    """The work of a micro-batch.

    Operations: 2 per parameter and token forward, 2 for the inputs' gradients, 2 for the weights' where they are
    trained, 2 for recompute (Kaplan et al. 2020; Korthikanti et al. 2022). Attention: 4 x width per pair forward, 2.5
    times that backward (Dao 2023), twice for eager. A fused head computes its logits again in the backward pass.
    """
    model = step.model
    again = 0 if step.checkpointing == "off" else 1
    attention_again = 0 if step.checkpointing == "selective" else again  # TRL's selective keeps what attention gave
    backward = 2 if step.trained else 1
    width = (model.heads * model.head_dim) or model.hidden
    attended = (model.layers - model.windowed) * batch.squares + model.windowed * batch.windowed
    adapters = 0.0 if step.trained else trained_parameters(step)
    head = model.vocabulary * model.hidden
    passes = 1 + (2.0 if step.attention == "eager" else 2.5) + attention_again
    operations = {
        "linear": 2 * (1 + backward + again) * body_parameters(model) * batch.tokens,
        "adapters": 2 * (3 + again) * adapters * batch.tokens,
        "attention": 4 * width * attended * passes,
        "head": 2 * (1 + backward + (1 if step.fused_loss else 0)) * head * batch.scored,
    }
    if step.reference == "model":
        operations["reference"] = 2 * (body_parameters(model) + head) * batch.tokens
    return Load(
        operations=operations,
        moved=_moved(step, batch, again=bool(again)),
        kernels=model.layers * (_KERNELS + _LORA_KERNELS * _adapted(step)) * _PASSES[bool(again)],
        update_moved=_update(step),
    )


def forward_load(step: Step, batch: MicroBatch) -> Load:
    """The work of a forward pass alone, as for the held-out loss: a third of the traffic, a kernel each."""
    model = step.model
    width = (model.heads * model.head_dim) or model.hidden
    attended = (model.layers - model.windowed) * batch.squares + model.windowed * batch.windowed
    whole = _moved(step, batch, again=False)
    passes = {"dequantisation": 2, "casts": 2}
    return Load(
        operations={
            "linear": 2 * body_parameters(model) * batch.tokens,
            "attention": 4 * width * attended,
            "head": 2 * model.vocabulary * model.hidden * batch.scored,
        },
        moved={part: size / passes.get(part, 3) for part, size in whole.items()},
        kernels=model.layers * (_KERNELS + _LORA_KERNELS * _adapted(step)),
        update_kernels=0.0,
    )


def _adapted(step: Step) -> float:
    """Adapted linear layers of one block."""
    return sum(shape.count for shape in lora_layers(step)) / max(1, step.model.layers)


def _moved(step: Step, batch: MicroBatch, *, again: bool) -> dict[str, float]:
    model, body = step.model, body_parameters(step.model)
    by_hidden, by_inner = _ELEMENTWISE[again]
    cast = step.mixed and step.dtype == "float32"
    # Widths of the MLPs over all layers: a gated one has three matrices.
    dense = model.parts.mlp / (3 * model.hidden)
    routed = model.parts.experts * model.expert_active / (model.expert_count or 1) / (3 * model.hidden)
    inner = model.intermediate * model.layers if not (dense or routed) else dense
    by_expert, by_its_inner = _ROUTED[again]
    experts = by_expert * model.hidden * model.layers * model.expert_active + by_its_inner * routed
    of_in, of_out = _LORA[again]
    scores = batch.squares * model.heads * model.layers * _SCORES[again] if step.attention == "eager" else 0.0
    return {
        "scores": scores,
        "elementwise": batch.tokens
        * (by_hidden * (_FP32_HIDDEN if cast else 1) * model.hidden * model.layers + by_inner * inner + experts),
        "adapters": batch.tokens
        * sum((of_in * each.in_features + of_out * each.out_features) * each.count for each in lora_layers(step)),
        "logits": batch.scored * model.vocabulary * _LOGITS[step.fused_loss],
        "casts": _CAST[again] * body if cast and step.adapter != "qlora" else 0.0,
        "dequantisation": _DEQUANTISE * body * (2 + again) if step.adapter == "qlora" else 0.0,
    }


def _update(step: Step) -> float:
    width = _WIDTH[step.dtype] if step.trained else 4
    widths, states = _OPTIMIZER.get(step.optimizer, _OPTIMIZER["adamw_torch"])
    shards = step.devices if step.sharding in ("fsdp", "zero2", "zero3") else 1
    return trained_parameters(step) * (widths * width + states) / shards
