"""What fits in a device's memory, and what to change when nothing does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..records import Hardware, MemoryEstimate, Remedy
from .memory import Step, estimate

_MOST_ROWS = 1 << 16
_WORTH = 0.01  # a change that saves less of the need isn't named
_LEAST_LENGTH = 512
_STATEFUL = ("adamw_torch", "adamw_torch_fused")

Change = tuple[str, dict[str, str | int | bool], str]


def need(memory: MemoryEstimate) -> int:
    """Bytes of the device that a step takes: what the allocator reserves, and CUDA's context."""
    return memory.reserved + memory.context


def largest_batch(step: Step, memory: int, *, most: int = _MOST_ROWS) -> int:
    """The most rows of `step.length` tokens per micro-batch that `memory` bytes hold, up to `most`; 0 when none."""

    def fits(rows: int) -> bool:
        return need(estimate(step.model_copy(update={"rows": rows}))) <= memory

    if not fits(1):
        return 0
    fitting, rows = 1, 2
    while rows <= most and fits(rows):
        fitting, rows = rows, 2 * rows
    low, high = fitting, min(rows, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def remedies(step: Step, hardware: Hardware) -> list[Remedy]:
    """Changes until the step fits on a device; empty when it fits as it is.

    First what costs nothing, then what costs speed, the cheapest first, then what costs quality. Changes that save next
    to nothing are left out, and what the device can't do. If even the last entry doesn't fit, nothing here helps.
    """
    found: list[Remedy] = []
    memory = hardware.memory
    now = need(estimate(step))
    for propose in _IN_ORDER:
        for change, settings, costs in propose(step, hardware):
            smaller = step.model_copy(update=settings)
            then = need(estimate(smaller))
            if now <= memory or now - then < _WORTH * now:
                continue
            found.append(
                Remedy(change=change, saves=now - then, needs=then, fits=then <= memory, costs=costs, settings=settings)
            )
            step, now = smaller, then
    return found


def _free(step: Step, hardware: Hardware) -> Iterator[Change]:
    """What makes a step faster, or no slower."""
    if not step.fused_loss and step.code == "today":
        yield "TRL's fused loss (loss_type: nll)", {"fused_loss": True}, "nothing: it is faster"
    if step.attention == "eager":
        yield "attn_implementation: sdpa", {"attention": "sdpa"}, "nothing: it is faster"
    if step.optimizer == "adamw_torch":
        yield "optim: adamw_torch_fused", {"optimizer": "adamw_torch_fused"}, "nothing: it is faster"
    if step.adapter != "none" and step.dtype == "float32" and hardware.bf16:
        yield "dtype: bfloat16 for the frozen base", {"dtype": "bfloat16"}, "nothing: it is faster"
    if step.reference == "model":
        yield (
            "precompute_ref_log_probs: true",
            {"reference": "precomputed"},
            "one pass over the rows before training; each step is faster",
        )


def _optimizer(step: Step, hardware: Hardware) -> Iterator[Change]:
    if step.optimizer in _STATEFUL and hardware.device == "cuda":
        yield (
            "optim: adamw_bnb_8bit (needs bitsandbytes)",
            {"optimizer": "adamw_bnb_8bit"},
            "little: 0-3% of a step; results are close to AdamW's",
        )


def _sharding(step: Step, _hardware: Hardware) -> Iterator[Change]:
    if step.devices > 1 and step.sharding in ("none", "ddp"):
        yield f"FSDP over {step.devices} devices", {"sharding": "fsdp"}, "0-15% with fast links, more without"


def _rows(step: Step, hardware: Hardware) -> Iterator[Change]:
    if step.rows > 1:
        fewer = step.model_copy(update={"accumulate": True})
        rows = max(1, largest_batch(fewer, hardware.memory, most=step.rows - 1))
        yield (
            f"per_device_train_batch_size: {rows}, with as many more accumulation steps",
            {"rows": rows, "accumulate": True},
            "0-10% while a micro-batch has some 2,000 tokens, more below",
        )


def _checkpointing(step: Step, hardware: Hardware) -> Iterator[Change]:
    if step.checkpointing == "off" and step.trained:
        yield (
            "gradient_checkpointing: true with gradient_checkpointing_kwargs: {selective: true}",
            {"checkpointing": "selective"},
            "15-25%: blocks are computed twice, attention isn't",
        )
    if step.checkpointing in ("off", "selective"):
        yield (
            "gradient_checkpointing: true" + (", without selective" if step.trained else ""),
            {"checkpointing": "full"},
            "20-30%: blocks are computed twice",
        )
    if hardware.device == "cuda":
        yield (
            "activation_offloading: true with gradient_checkpointing",
            {"checkpointing": "offload"},
            "1-5%, and main memory",
        )


def _precision(step: Step, hardware: Hardware) -> Iterator[Change]:
    time = "no time" if hardware.bf16 else "slower, as this device has no bf16 of its own"
    if step.trained and step.dtype == "float32":
        yield (
            "dtype: bfloat16",
            {"dtype": "bfloat16"},
            f"{time}; but small updates are rounded away below a learning rate of about 1e-4",
        )
    if step.adapter == "lora" and step.dtype == "float32" and not hardware.bf16:
        yield "dtype: bfloat16 for the frozen base", {"dtype": "bfloat16"}, time
    if step.optimizer in (*_STATEFUL, "adamw_bnb_8bit") and step.trained and hardware.device == "cuda":
        yield (
            "optim: paged_adamw_8bit (needs bitsandbytes)",
            {"optimizer": "paged_adamw_8bit"},
            "5-30%: states travel from and to main memory",
        )


def _adapters(step: Step, hardware: Hardware) -> Iterator[Change]:
    selective = step.checkpointing == "selective"  # PEFT's wrapper refuses it (P036)
    plain: dict[str, str | int | bool] = {"optimizer": "adamw_torch_fused"}
    plain |= {"checkpointing": "full"} if selective else {}
    without = ", and gradient checkpointing without selective" if selective else ""
    if step.trained:
        yield (
            "adapter: {kind: lora}" + without,
            {"adapter": "lora", "dtype": "bfloat16" if hardware.bf16 else step.dtype, **plain},
            "no time; it learns less new knowledge than full fine-tuning, and style and tasks as well",
        )
    if step.adapter != "qlora" and not step.model.quantised and hardware.device == "cuda":
        yield (
            "adapter: {kind: qlora}" + without,
            {"adapter": "qlora", "dtype": "bfloat16", **plain},
            "10-40%: weights are unpacked for every product; slightly worse results",
        )


def _offload(step: Step, _hardware: Hardware) -> Iterator[Change]:
    if step.sharding in ("fsdp", "zero2", "zero3"):
        yield "offload of the sharded state to main memory", {"offload": True}, "2-5 times slower"


def _length(step: Step, hardware: Hardware) -> Iterator[Change]:
    lengths = [step.length >> halved for halved in range(1, step.length.bit_length())]
    shorter = [length for length in lengths if length >= _LEAST_LENGTH]
    fitting = (x for x in shorter if need(estimate(step.model_copy(update={"length": x}))) <= hardware.memory)
    if shorter:
        length = next(fitting, shorter[-1])
        yield f"max_length: {length}", {"length": length}, "no time; longer rows are cut, or must be split"


_IN_ORDER: tuple[Callable[[Step, Hardware], Iterator[Change]], ...] = (
    _free,
    _optimizer,
    _sharding,
    _rows,
    _checkpointing,
    _precision,
    _adapters,
    _offload,
    _length,
)
