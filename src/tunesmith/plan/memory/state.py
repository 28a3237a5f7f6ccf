"""What is always there on a device: weights, gradients, the optimizer's state; and what sharding adds and divides."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...records import ModelFacts
from .activations import BYTES, Widths
from .block import targeted, text_linears
from .step import Step

_TABLE = Path(__file__).parents[1] / "tables" / "optimizers.yaml"
_UNKNOWN = {"moments": 2, "step": 1}  # an optimizer that isn't in the table is taken for torch's AdamW
_FP32 = 4
_NF4_BLOCK, _SCALE_BLOCK = 64, 256  # Dettmers et al. 2023, section 3
_GPTQ_GROUP = 128
_ZERO_BUCKET = 200_000_000  # elements; DeepSpeed's allgather_bucket_size and accelerate's default configuration
_ZERO3_LIVE = 1_000_000_000  # elements; stage3_max_live_parameters


@dataclass(frozen=True)
class State:
    """Bytes on one device.

    Attributes:
        weights: Base and adapter.
        gradients: Of all trained parameters.
        optimizer: Its moments, and fp32 copies where a sharding keeps them.
        buckets: Of DDP and ZeRO, there all the time.
        gathered: Layers gathered from all devices, 4-bit weights unpacked for a product; between steps there are none.
        update: Temporaries of the optimizer's step.
    """

    weights: int
    gradients: int
    optimizer: int
    buckets: int
    gathered: int
    update: int


def state_of(step: Step, widths: Widths) -> State:
    """The state of a step on one device."""
    base = base_bytes(step, widths)
    trained = trained_parameters(step)
    width = _trained_width(step, widths)
    adapters = 0 if step.trained else trained * width
    weights = (trained * width if step.trained and step.sharding == "fsdp" else base) + adapters
    gradients = trained * width
    if step.sharding in ("zero2", "zero3") and step.mixed:
        # DeepSpeed keeps an fp32 copy beside its fp32 moments (Rajbhandari et al. 2020).
        optimizer, update = trained * 3 * _FP32, trained * _FP32
    else:
        optimizer = optimizer_bytes(step.optimizer, step.model, trained, width)
        update = round(optimizer_row(step.optimizer)["step"] * trained * width)
    state = State(weights, gradients, optimizer, _buckets(step, widths, gradients), _gathered(step, widths), update)
    return _shard(step, state)


def trained_parameters(step: Step) -> int:
    """Parameters that are trained: all, or r * (in + out) of each linear layer that LoRA adapts (Hu et al. 2021).

    Of virtual tokens a prompt has their embeddings, a prefix their keys and values; IA3 has a scale per output.
    """
    model = step.model
    if step.trained:
        return model.parameters
    if step.adapter == "prompt":
        return step.virtual * model.hidden
    if step.adapter == "prefix":
        return step.virtual * model.layers * 2 * model.kv_heads * model.head_dim
    if step.adapter == "ia3":
        return sum(x.out_features * x.count for x in targeted(step))
    return sum(step.rank * (x.in_features + x.out_features) * x.count for x in targeted(step))


def base_bytes(step: Step, widths: Widths) -> int:
    """Bytes of the model's weights as they are loaded.

    NF4: half a byte per weight, a scale per 64 of them, and, quantised twice, an fp32 scale per 256 scales (Dettmers et
    al. 2023). bitsandbytes quantises linear layers only: not the head, and not experts that Transformers 5 fuses.
    GPTQ: half a byte, and per group of 128 an fp16 scale and a 4-bit zero.
    """
    model = step.model
    if step.adapter != "qlora" and model.quantised not in ("gptq", "awq"):
        return model.parameters * widths.stored
    quantised = quantised_parameters(step)
    if model.quantised in ("gptq", "awq"):
        packed = quantised / 2 + quantised / _GPTQ_GROUP * 2.5
    elif step.double_quant:
        packed = quantised / 2 + quantised / _NF4_BLOCK + quantised / _NF4_BLOCK / _SCALE_BLOCK * 4
    else:
        packed = quantised / 2 + quantised / _NF4_BLOCK * 4
    rest = (model.parameters - quantised) * (_FP32 if step.upcast else BYTES[step.dtype])
    return round(packed) + rest


def quantised_parameters(step: Step) -> int:
    """Weights that a 4-bit base has in four bits."""
    plain = sum(x.in_features * x.out_features * x.count for x in text_linears(step.model))
    fused = step.code == "today" and step.model.quantised not in ("gptq", "awq")
    return plain if fused else plain + step.model.parts.experts


def optimizer_row(name: str) -> dict[str, Any]:
    """What is known of an optimizer."""
    return _optimizers().get(name, _UNKNOWN)


def optimizer_bytes(name: str, model: ModelFacts, trained: int, width: int) -> int:
    """Bytes of an optimizer's state for `trained` parameters of `width` bytes."""
    row = optimizer_row(name)
    fixed = float(row.get("bytes", 0))
    state = trained * (width * int(row.get("moments", 0)) + fixed)
    if row.get("embedding") and trained == model.parameters:
        state += model.vocabulary * model.hidden * int(fixed) * (_FP32 - 1)  # fp32 where the others have a byte
    return round(state)


@functools.cache
def _optimizers() -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    return rows


def _trained_width(step: Step, widths: Widths) -> int:
    if not step.trained:
        return widths.adapter
    return _FP32 if step.sharding == "fsdp" and step.mixed else widths.stored  # accelerate's fsdp2_prepare_model


def _buckets(step: Step, widths: Widths, gradients: int) -> int:
    """Buckets in which gradients travel: DDP's Reducer holds all of them, ZeRO two, one of which fills."""
    if step.devices < 2 or step.sharding not in ("ddp", "zero2", "zero3"):
        return 0
    return gradients if step.sharding == "ddp" else min(2 * _ZERO_BUCKET * widths.compute, 2 * gradients)


def _gathered(step: Step, widths: Widths) -> int:
    """4-bit weights unpacked for a product, and what sharding gathers.

    FSDP: two blocks at a time, one computing and one on its way; the root (embedding, norm, head) until the end of
    backward; and the whole gradient of the block that computes. ZeRO-3: as much as it may keep alive.
    """
    model = step.model
    largest = max((x.in_features * x.out_features for x in text_linears(model)), default=0)
    four_bit = step.adapter == "qlora" or bool(model.quantised)
    unpacked = largest * widths.compute if four_bit else 0
    if step.devices < 2 or step.sharding not in ("fsdp", "zero3"):
        return unpacked
    packed = base_bytes(step, widths) / max(1, model.parameters) if four_bit else widths.compute
    if step.sharding == "zero3":
        return unpacked + round(min(model.parameters, _ZERO3_LIVE) * packed)
    root = model.hidden * model.vocabulary * (1 if model.tied else 2)
    block = max(0, model.parameters - root - model.parts.vision) // max(1, model.layers)
    gradient = block * widths.compute if step.trained else 0
    return unpacked + round(2 * block * packed) + root * widths.compute + gradient


def _shard(step: Step, state: State) -> State:
    """A device's share."""
    count = step.devices if step.sharding in ("fsdp", "zero2", "zero3") else 1
    weights = state.weights if step.sharding == "zero2" else state.weights // count
    optimizer, gradients, update = state.optimizer // count, state.gradients // count, state.update // count
    if step.offload and step.sharding != "none":
        weights = weights if step.sharding == "zero2" else 0
        optimizer = gradients = update = 0
    return State(weights, gradients, optimizer, state.buckets, state.gathered, update)
