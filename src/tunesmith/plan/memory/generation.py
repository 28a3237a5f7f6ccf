"""A generation on the training device: the cache of keys and values, and the prompt's forward pass."""

from __future__ import annotations

from .activations import Widths
from .block import Block
from .step import Step

_FP32 = 4


def forward_work(block: Block, widths: Widths) -> int:
    """Bytes per token that a forward pass without gradients has alive at once: the widest half of one block."""
    stream = 2 * widths.stream * block.hidden
    mlp = widths.compute * block.intermediate * (block.up + 1)
    experts = widths.compute * block.chosen * (2 * block.hidden + 3 * block.expert)
    attention = widths.compute * 2 * (block.query + block.keys)
    return stream + _FP32 * block.hidden + max(mlp, experts, attention)


def generation_memory(step: Step, widths: Widths, block: Block) -> tuple[int, int]:
    """Bytes of the cache, and of all that a generation adds to the state.

    The cache holds keys and values of every layer in the compute dtype; layers with a sliding window hold no more than
    the window (transformers/cache_utils.py). Logits are made for the last position only, and sampled in fp32.
    """
    if step.generate is None:
        return 0, 0
    model = step.model
    rows, prompt, new = step.generate
    length = prompt + new
    slid = min(length, model.window) if model.window else length
    positions = model.windowed * slid + (model.layers - model.windowed) * length
    cache = 2 * widths.compute * block.keys * positions * rows
    logits = rows * model.vocabulary * (widths.compute + 3 * _FP32)
    return cache, cache + max(rows * prompt * forward_work(block, widths), logits)
