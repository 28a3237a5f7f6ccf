"""A first estimate of what fits on a GPU. The measured memory plan of three tiers is on the roadmap."""

from __future__ import annotations

from ..records import ModelFacts

_CONTEXT = 500 << 20  # CUDA context and libraries, bytes
_USABLE = 0.85  # the allocator's fragmentation takes the rest


def bytes_per_token(model: ModelFacts, *, checkpointing: bool) -> int:
    """Activation bytes per token of a bf16 training step with a fused loss.

    With checkpointing each layer keeps its input (2 h bytes) and one layer at a time its inside (8.5 * 2 I + 4 * 2 h);
    without, every layer keeps its inside. Source: closed form fitted against fake-tensor runs, November 2026.
    """
    inside = round(8.5 * 2 * (model.intermediate or 4 * model.hidden)) + 4 * 2 * model.hidden
    outside = 2 * model.hidden * model.layers
    return outside + inside if checkpointing else outside + inside * model.layers


def fit_batch(model: ModelFacts, free: int, max_length: int, *, most: int) -> tuple[int, bool, str]:
    """Largest power of two of rows of `max_length` tokens that fits in `free` bytes, and whether to checkpoint."""
    usable = _USABLE * (free - _CONTEXT)
    for checkpointing in (False, True):
        per_row = bytes_per_token(model, checkpointing=checkpointing) * max_length
        size = most
        while size > 1 and size * per_row > usable:
            size //= 2
        if size * per_row <= usable:
            return size, checkpointing, f"the largest that fits by a first estimate ({per_row / 1e9:.2f} GB per row)"
    return 1, True, "the smallest; a first estimate says that even this may not fit"
