"""QLoRA's base without bitsandbytes: modules that hold what its NF4 layers hold and allocate what they allocate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

BLOCK, NESTED_BLOCK = 64, 256
"""Weights per scale, and scales per scale of scales: bitsandbytes' defaults (QLoRA: Dettmers et al. 2023)."""


class _Product(torch.autograd.Function):
    """x W^T with W dequantised for the product alone, forward and backward: bitsandbytes' MatMul4Bit."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, layer: NF4Linear) -> torch.Tensor:
        context.layer = layer
        return functional.linear(x, layer.dequantised().to(x.dtype), layer.bias)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.matmul(gradient, context.layer.dequantised().to(gradient.dtype)), None


class NF4Linear(nn.Linear):
    """A linear layer with its weight in 4 bits: P/2 bytes, and P/64 * 4 bytes of scales.

    With double quantisation the scales take P/64 + P/64/256 * 4 bytes.
    """

    def __init__(self, layer: nn.Linear, *, double: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        count = layer.weight.numel()
        self.dtype = layer.weight.dtype
        scales = math.ceil(count / BLOCK)
        device = layer.weight.device
        self.weight = nn.Parameter(
            torch.empty((count + 1) // 2, 1, dtype=torch.uint8, device=device), requires_grad=False
        )
        self.bias = layer.bias
        self.register_buffer(
            "absmax", torch.empty(scales, dtype=torch.uint8 if double else torch.float32, device=device)
        )
        self.register_buffer("code", torch.empty(16, dtype=torch.float32, device=device))
        if double:
            nested = torch.empty(math.ceil(scales / NESTED_BLOCK), dtype=torch.float32, device=device)
            self.register_buffer("nested_absmax", nested)
            self.register_buffer("nested_code", torch.empty(256, dtype=torch.float32, device=device))

    def dequantised(self) -> torch.Tensor:
        """The weight in its own dtype; its scales are first widened to float32."""
        _scales = self.absmax.float()
        return torch.empty(self.out_features, self.in_features, dtype=self.dtype, device=self.weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product in the weight's dtype, the result in the input's."""
        # PEFT's 4-bit LoRA layer clones what its base gives.
        return _Product.apply(x.to(self.dtype), self).to(x.dtype).clone()


def quantise(model: nn.Module, *, double: bool) -> None:
    """Put every linear layer but the output head into 4 bits, as Transformers' bitsandbytes quantiser does."""
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child is not head:
                setattr(parent, name, NF4Linear(child, double=double))
    model.is_loaded_in_4bit = True
