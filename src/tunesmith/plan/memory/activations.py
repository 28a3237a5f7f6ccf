"""What one block keeps for the backward pass, and what it works with meanwhile: bytes per token.

The terms follow the code of Transformers 5.23 (modeling_llama and its kin, integrations/sdpa_attention,
integrations/moe), PEFT 0.21 (tuners/lora/layer) and PyTorch's derivatives.yaml: an operation keeps an input only if
some gradient needs it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .block import Block
from .step import Step

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FP32 = 4


@dataclass(frozen=True)
class Widths:
    """Bytes of one element.

    Attributes:
        stored: Of the weights.
        stream: Of the residual stream: the embedding's dtype, since autocast doesn't cast it.
        compute: Of what matrix products give.
        adapter: Of LoRA's weights: PEFT makes them fp32, TRL makes QLoRA's bf16.
    """

    stored: int
    stream: int
    compute: int
    adapter: int


@dataclass(frozen=True)
class BlockMemory:
    """Bytes per token of one block.

    Attributes:
        attention: Kept by norms and attention.
        mlp: Kept by the MLP or the experts.
        attention_work: On top while attention's backward runs (the MLP's share is freed by then).
        mlp_work: On top while the MLP's forward or backward runs.
        score: Kept attention output, which selective checkpointing doesn't recompute.
    """

    attention: int
    mlp: int
    attention_work: int
    mlp_work: int
    score: int

    @property
    def kept(self) -> int:
        """Kept by the whole block."""
        return self.attention + self.mlp

    @property
    def work(self) -> int:
        """The most that is alive on top of `kept`."""
        return max(self.mlp_work, self.attention_work - self.mlp)


def widths_of(step: Step) -> Widths:
    """Element sizes of a step."""
    stored = 2 if step.sharding in ("zero2", "zero3") and step.mixed else BYTES[step.dtype]
    compute = 2 if step.mixed else stored
    adapter = 2 if step.code == "today" and (step.adapter == "qlora" or step.sharding == "zero3") else _FP32
    stream = _FP32 if step.upcast else stored
    return Widths(stored, stream, compute, adapter)


def block_memory(step: Step, block: Block) -> BlockMemory:
    """Bytes per token that one block keeps and works with."""
    widths = widths_of(step)
    attention = _norms(step, block, widths) + _inputs(step, block, widths) + _all_attention(step, block, widths)
    mlp, mlp_work = _experts(step, block, widths) if block.chosen else (0, 0)
    if block.intermediate:
        dense, dense_work = _mlp(step, block, widths)
        mlp, mlp_work = mlp + dense, max(mlp_work, dense_work)
    return BlockMemory(
        attention=attention,
        mlp=mlp,
        attention_work=_attention_work(step, block, widths),
        mlp_work=mlp_work,
        score=widths.compute * block.query + _FP32 * block.heads,
    )


def _norms(step: Step, block: Block, widths: Widths) -> int:
    """A norm keeps its input in fp32 (a copy, or the stream itself) and, for its weight's gradient, its product."""
    wide = block.fp32_norm or widths.stream == _FP32
    product = (_FP32 if wide else widths.stream) if step.trained else 0
    kept = block.norms * block.hidden * (_FP32 + product)
    if block.qk_norm:
        product = (_FP32 if block.fp32_norm else widths.compute) if step.trained else 0
        kept += (block.query + block.keys) * (_FP32 + product)
    return kept


def _inputs(step: Step, block: Block, widths: Widths) -> int:
    """Inputs of linear layers, kept for their weights' gradients.

    Autocast casts an fp32 input anew for each layer that reads it, and PEFT casts the input of fp32 adapters anew, so
    each layer keeps a copy of its own; else the two norms' outputs are shared.
    """
    hidden, compute = block.hidden, widths.compute
    copied = compute * block.query * (block.fused and not _unfused(step, block, widths, masked=step.padded))
    if step.trained:
        return copied + hidden * compute * (block.readers if widths.stream != compute else 2)
    copies = widths.stream != compute or widths.adapter != compute or step.dropout
    if not copies:
        shared = hidden * compute * min(2, block.adapted) + copied * block.adapted_out
        return shared + _ranks(step, block, widths)
    width = (compute if step.mixed else widths.adapter) + (1 if step.dropout else 0)  # a byte of the dropout's mask
    return width * (hidden * block.adapted + block.query * block.adapted_out) + _ranks(step, block, widths)


def _ranks(step: Step, block: Block, widths: Widths) -> int:
    return widths.compute * step.rank * (block.adapted + block.adapted_out + block.adapted_down)


def _all_attention(step: Step, block: Block, widths: Widths) -> int:
    """Mean over the blocks: SDPA needs a mask for rows of unequal length, and for a window shorter than the row."""
    sdpa, model = step.attention == "sdpa", step.model
    plain = _attention(step, block, widths, masked=sdpa and step.padded)
    if not sdpa or step.padded or not model.window or step.length <= model.window:
        return plain
    masked = _attention(step, block, widths, masked=True)
    return plain + (masked - plain) * model.windowed // max(1, model.layers)


def _attention(step: Step, block: Block, widths: Widths, *, masked: bool) -> int:
    """Query, keys, values, output and logsumexp; where scores are made, the probabilities instead."""
    if _unfused(step, block, widths, masked=masked):
        scores = _FP32 + (widths.compute if widths.compute != _FP32 else 0) + widths.compute * block.capped
        return widths.compute * 4 * block.query + block.heads * step.length * scores
    repeated = block.repeats and (masked or step.code != "today")
    keys = block.query if repeated and step.attention != "flash" else block.keys
    kept = widths.compute * 2 * (block.query + keys)
    if block.fused:
        kept += widths.compute * (block.query + block.keys)
    return kept + _FP32 * block.heads + (widths.compute * step.length if masked else 0)


def _unfused(step: Step, block: Block, widths: Widths, *, masked: bool) -> bool:
    """Whether scores are made: by eager attention, and by SDPA in fp32 with grouped heads.

    Flash takes half precision only and the memory-efficient kernel no groups, which Transformers asks for where there
    is no mask (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp).
    """
    grouped = block.keys < block.query and not masked and step.code == "today"
    return step.attention == "eager" or (step.attention == "sdpa" and widths.compute == _FP32 and grouped)


def _attention_work(step: Step, block: Block, widths: Widths) -> int:
    """Gradients of output, query, keys and values, and the rotary embedding's products; eager: of the scores too."""
    work = widths.compute * 6 * block.query + widths.stream * block.hidden
    scores = _unfused(step, block, widths, masked=step.padded)
    return work + (_FP32 * block.heads * step.length if scores else 0)


def _mlp(step: Step, block: Block, widths: Widths) -> tuple[int, int]:
    """Kept and working bytes of a dense MLP.

    Kept: what goes into the activation, what comes out, and the input of the output projection where a gradient needs
    it. Working: the gradients of product, activation and gate, or, with an fp32 adapter on the output projection, its
    fp32 input beside the product.
    """
    inner, compute = block.intermediate, widths.compute
    kept = compute * inner * (block.up + 1)
    gradients = compute * inner * (block.up + 1)
    stream = widths.stream * block.hidden
    if step.trained:
        freed = compute * inner if block.up == 2 else 0  # the product dies before the gradients of its factors are born
        return kept + freed, gradients - freed + stream
    if not block.adapted_down:
        return kept, gradients + stream
    width = compute if step.mixed or widths.adapter == compute else widths.adapter
    kept += (width + (1 if step.dropout else 0)) * inner
    if widths.adapter == compute and not step.dropout:
        return kept, gradients - width * inner + stream
    held = widths.adapter * (2 if step.dropout else 1)
    return kept, (compute + held) * inner + 5 * compute * block.hidden


def _experts(step: Step, block: Block, widths: Widths) -> tuple[int, int]:
    """Kept and working bytes of routed experts as grouped products: each chosen expert has its copy of the token."""
    token, inner = widths.compute * block.hidden * block.chosen, widths.compute * block.expert * block.chosen
    router = 3 * _FP32 * block.routed
    if step.trained or block.adapted_experts:
        return 2 * token + 4 * inner + router, 2 * token + inner
    return token + 3 * inner + router, 3 * token
