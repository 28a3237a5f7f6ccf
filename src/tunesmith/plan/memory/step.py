"""What one training step is, as far as its memory depends on it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...records import ModelFacts, Part

Dtype = Literal["float32", "bfloat16", "float16"]
Checkpointing = Literal["off", "full", "selective", "offload"]
Sharding = Literal["none", "ddp", "fsdp", "zero2", "zero3"]


class Step(Part):
    """One step of training on each device, or of one method's rollout."""

    model: ModelFacts
    method: str = Field(default="sft", description="As TRL names it: sft, dpo, grpo, rloo, kto, reward, clm")
    adapter: Literal["none", "lora", "qlora", "prompt", "prefix", "ia3"] = "none"
    rank: int = Field(default=16, description="Of LoRA")
    virtual: int = Field(default=20, description="Virtual tokens of prompt and prefix tuning")
    dora: bool = Field(default=False, description="LoRA with the lengths of the columns")
    dropout: float = Field(default=0.0, description="LoRA's dropout on its inputs")
    targets: str | list[str] = Field(default="all-linear", description="Layers that LoRA adapts")
    dtype: Dtype = Field(default="float32", description="Dtype in which the weights are loaded")
    mixed: bool = Field(default=True, description="Computes under bf16 (or fp16) autocast")
    optimizer: str = Field(default="adamw_torch_fused", description="A name of transformers' OptimizerNames")
    rows: int = Field(default=1, description="Rows of one micro-batch on one device (pairs, for DPO)")
    length: int = Field(default=1024, description="Tokens of a row, padding included")
    padded: bool = Field(default=False, description="Rows of unequal length: SDPA then keeps a mask and repeated keys")
    accumulate: bool = Field(default=False, description="Gradients of earlier micro-batches are kept meanwhile")
    checkpointing: Checkpointing = Field(
        default="off", description="offload: full, with the blocks' inputs kept in main memory"
    )
    attention: Literal["eager", "sdpa", "flash"] = "sdpa"
    fused_loss: bool = Field(default=True, description="TRL's chunked output head: the logits never exist")
    devices: int = 1
    sharding: Sharding = "none"
    offload: bool = Field(default=False, description="Sharded state is kept in main memory")
    reference: Literal["none", "model", "precomputed"] = Field(default="none", description="DPO's reference model")
    generate: tuple[int, int, int] | None = Field(
        default=None, description="Rows, prompt tokens and new tokens of a generation on the same device"
    )
    double_quant: bool = Field(default=True, description="QLoRA: the scales of the 4-bit blocks are quantised too")
    upcast: bool = Field(default=False, description="PEFT's k-bit preparation, which keeps the hidden states in fp32")
    code: Literal["today", "4.4x"] = Field(
        default="today", description="4.4x: Transformers and TRL of 2024/25, whose loss makes full logits"
    )

    @property
    def tokens(self) -> int:
        """Tokens of one forward pass: a preference pair counts twice."""
        length = self.length + (self.virtual if self.adapter == "prompt" else 0)
        return self.rows * length * (2 if self.method in ("dpo", "reward") else 1)

    @property
    def trained(self) -> bool:
        """Whether the model's own weights are trained."""
        return self.adapter == "none"

    @property
    def measured(self) -> bool:
        """Whether steps with such an adapter are among those that the estimate was held against."""
        return self.adapter == "none" or (self.adapter in ("lora", "qlora") and not self.dora)
