"""The shape of one decoder block, as far as memory depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.lora import adapted_layers
from ...records import LinearShape, ModelFacts
from .step import Step

_ATTENTION_OUT = ("o_proj", "out_proj", "dense", "wo", "attn_out")
_FUSED_QKV = ("qkv_proj", "query_key_value", "c_attn")
_MLP_OUT = ("down_proj", "fc2", "w2", "dense_4h_to_h")
_FP32_NORM_OUTPUT = ("gemma",)  # families whose norm multiplies by its weight in fp32


@dataclass(frozen=True)
class Block:
    """Widths of one decoder block, in elements per token.

    Attributes:
        hidden: Of the residual stream.
        heads: Query heads.
        query: All query heads together.
        keys: All key heads together (values are as wide).
        repeats: Whether keys must be repeated for kernels that know no grouped queries.
        fused: Whether query, keys and values come out of one layer: attention then keeps all its output, and, since
            these models' rotary embedding concatenates, the output projection's input is a copy.
        capped: Whether scores go through tanh, as Gemma 2's do.
        intermediate: Of the dense MLP (of the shared experts, in a mixture).
        up: Projections into the dense MLP: 2 when gated.
        norms: Norms of hidden width.
        fp32_norm: Whether norms keep their fp32 output for the gradient of their weight.
        qk_norm: Whether queries and keys are normed.
        chosen: Routed experts that one token visits; 0 when dense.
        expert: Intermediate width of one routed expert.
        routed: Experts to choose from.
        readers: Linear layers that read a norm's output.
        adapted: Of them, those with LoRA.
        adapted_out: Whether attention's output projection has LoRA.
        adapted_down: Whether the MLP's output projection has LoRA.
        adapted_experts: Whether the fused experts have LoRA.
    """

    hidden: int
    heads: int
    query: int
    keys: int
    repeats: bool
    fused: bool
    capped: bool
    intermediate: int
    up: int
    norms: int
    fp32_norm: bool
    qk_norm: bool
    chosen: int
    expert: int
    routed: int
    readers: int
    adapted: int
    adapted_out: bool
    adapted_down: bool
    adapted_experts: bool


def block_of(step: Step) -> Block:
    """The block of a step's model; sizes that its facts don't state are those of a plain Llama block."""
    model = step.model
    hidden, layers = model.hidden, max(1, model.layers)
    heads = model.heads or max(1, hidden // 128)
    head_dim = model.head_dim or hidden // heads
    kv_heads = model.kv_heads or heads
    chosen = model.expert_active if model.experts else 0
    linears = [linear for linear in text_linears(model) if linear.count >= layers]
    down = [linear for linear in linears if _is_down(linear, model)]
    out = [linear for linear in linears if linear not in down and _is_out(linear, heads * head_dim, hidden)]
    readers = [linear for linear in linears if linear not in down and linear not in out]
    intermediate = (0 if chosen else model.intermediate or 4 * hidden) if not down else down[0].in_features
    norms, qk_norm = _norms(model, head_dim)
    adapted = [] if step.adapter in ("none", "prompt", "prefix") else targeted(step)
    return Block(
        hidden=hidden,
        heads=heads,
        query=heads * head_dim,
        keys=kv_heads * head_dim,
        repeats=1 < kv_heads < heads,
        fused=any(linear.name in _FUSED_QKV for linear in readers),
        capped=model.model_type.startswith("gemma2"),
        intermediate=intermediate,
        up=_ups(readers, intermediate),
        norms=norms,
        fp32_norm=model.model_type.startswith(_FP32_NORM_OUTPUT),
        qk_norm=qk_norm,
        chosen=chosen,
        expert=_expert_width(model),
        routed=model.expert_count if chosen else 0,
        readers=len(readers) or 5,
        adapted=len([linear for linear in readers if linear in adapted]),
        adapted_out=any(linear in adapted for linear in out),
        adapted_down=any(linear in adapted for linear in down),
        adapted_experts=any(shape.count > layers for shape in model.fused if shape in adapted),
    )


def text_linears(model: ModelFacts) -> list[LinearShape]:
    """Linear layers of the text model's blocks; routed experts are fused parameters, not linear layers."""
    plain = model.layers * 2  # a block has at most a dense MLP and a shared expert of the same shape
    fused = model.experts and model.expert_count > 2
    return [linear for linear in model.linears if not linear.vision and not (fused and linear.count > plain)]


def targeted(step: Step) -> list[LinearShape]:
    """Layers that LoRA adapts; in the code of 2024 experts were linear layers like others."""
    model = step.model if step.code == "today" else step.model.model_copy(update={"fused": []})
    targets = step.targets if step.targets == "all-linear" or isinstance(step.targets, list) else [step.targets]
    return adapted_layers(model, targets)


def _is_down(linear: LinearShape, model: ModelFacts) -> bool:
    return linear.name in _MLP_OUT or (
        linear.out_features == model.hidden and linear.in_features == model.intermediate != model.hidden
    )


def _is_out(linear: LinearShape, query: int, hidden: int) -> bool:
    return linear.name in _ATTENTION_OUT or (linear.in_features == query != hidden and linear.out_features == hidden)


def _ups(readers: list[LinearShape], intermediate: int) -> int:
    """How many times the intermediate width the layers into the MLP put out."""
    into = sum(linear.out_features for linear in readers if intermediate and linear.out_features % intermediate == 0)
    return 1 if readers and into < 2 * intermediate else 2


def _norms(model: ModelFacts, head_dim: int) -> tuple[int, bool]:
    """Norms of hidden width in a block, and whether queries and keys have theirs, from the number of norm weights."""
    per_block = (model.parts.norm - model.hidden) / max(1, model.layers)
    if per_block < max(1, model.hidden):
        gemma = model.model_type.startswith(("gemma2", "gemma3"))
        return (4 if gemma else 2), model.model_type.startswith(("qwen3", "gemma3"))
    norms = round(per_block // model.hidden)
    return norms, per_block - norms * model.hidden >= 2 * min(head_dim, model.hidden // 2)


def _expert_width(model: ModelFacts) -> int:
    if not model.experts or not model.expert_count:
        return 0
    matrices = 3 * model.hidden * model.expert_count * max(1, model.layers)
    return model.parts.experts // matrices or model.intermediate
