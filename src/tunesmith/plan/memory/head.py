"""What the output head and the loss need.

Fused: TRL 1.16's ChunkedLogProbFunction (trl/kernels/chunked_logprob.py), which works on one tile of the logits. Not
fused: the loss functions of Transformers, which make logits, their fp32 copy, log-probabilities and two gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

from .activations import Widths
from .step import Step

_TILE_TOKENS = 4096  # TOKEN_CHUNK_SIZE
_TILE_VOCABULARY = 32768  # _CHUNKED_LOGPROB_CHUNK_SIZE
_PER_TOKEN = 40  # running statistics, targets and log-probabilities, bytes
_FP32 = 4


@dataclass(frozen=True)
class HeadMemory:
    """Bytes at the output head.

    Attributes:
        kept: The last norm's share, kept from forward to backward.
        forward: On top while the loss is computed.
        backward: On top while the head's backward runs, its gradient included.
        gradient: The gradient of the head's weight, which stays.
    """

    kept: int
    forward: int
    backward: int
    gradient: int


def head_memory(step: Step, widths: Widths) -> HeadMemory:
    """Bytes that the output head needs."""
    model, tokens = step.model, step.tokens
    hidden, weight = model.hidden, model.hidden * model.vocabulary
    norm = _FP32 + (widths.stream if step.trained else 0)
    kept = tokens * hidden * norm
    gradient = weight * widths.stored if step.trained else 0
    if step.method == "reward":
        return HeadMemory(kept, tokens * hidden * widths.stream, tokens * hidden * widths.stream, 0)
    if not step.fused_loss or step.code != "today":
        return _full_logits(step, widths, kept, gradient)
    stream = widths.stream * hidden
    tile = widths.compute * min(tokens, _TILE_TOKENS) * _TILE_VOCABULARY
    if widths.stored != widths.compute:
        tile += widths.compute * min(model.vocabulary, _TILE_VOCABULARY) * hidden
    in_fp32 = weight * _FP32 if step.trained else 0
    cast = gradient if widths.stored != _FP32 else 0
    cast_hidden = stream if widths.stream != _FP32 else 0
    forward = tokens * (2 * stream + _PER_TOKEN) + tile
    backward = tokens * (stream + _FP32 * hidden + cast_hidden + _PER_TOKEN) + in_fp32 + cast + tile
    return HeadMemory(kept, forward, backward, gradient)


def _full_logits(step: Step, widths: Widths, kept: int, gradient: int) -> HeadMemory:
    """Logits, fp32 logits, in old code a shifted copy, and log-probabilities; backward: these and two gradients."""
    vocabulary = step.model.vocabulary
    copies = 1 + (widths.compute != _FP32) + (step.code != "today")
    forward = widths.compute + _FP32 * copies
    hidden = widths.stream * step.model.hidden
    return HeadMemory(
        kept, step.tokens * (forward * vocabulary + hidden), step.tokens * 3 * _FP32 * vocabulary, gradient
    )
