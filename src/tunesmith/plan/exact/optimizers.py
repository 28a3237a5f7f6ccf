"""bitsandbytes' optimizers by the memory that they hold, for machines without bitsandbytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Source: bitsandbytes 0.4x, optim/optimizer.py (get_state_buffer and init_state of the optimizers with state).
_BLOCK = 256  # elements per scale of 8-bit state
_SMALL = 4096  # tensors below this keep 32-bit state
_PAGED = 100_000  # tensors below this aren't paged
# Names as transformers.training_args.OptimizerNames spells them: (bits of the state, moments, paged).
_KINDS = {
    "adamw_bnb_8bit": (8, 2, False),
    "adamw_8bit": (8, 2, False),
    "paged_adamw": (32, 2, True),
    "paged_adamw_32bit": (32, 2, True),
    "paged_adamw_8bit": (8, 2, True),
    "lion": (32, 1, False),
    "lion_32bit": (32, 1, False),
    "lion_8bit": (8, 1, False),
    "paged_lion": (32, 1, True),
    "paged_lion_32bit": (32, 1, True),
    "paged_lion_8bit": (8, 1, True),
}


class BlockwiseState(torch.optim.Optimizer):
    """State as bitsandbytes' AdamW or Lion holds it; the update works in place.

    Paged state lies in memory that CUDA moves to the host under pressure, so torch's allocator doesn't count it.
    """

    def __init__(self, params: Any, *, bits: int, moments: int, paged: bool, whole: set[int]) -> None:
        """`whole`: ids of parameters that keep 32-bit state, as Transformers asks for embeddings."""
        super().__init__(params, {"lr": 0.0})
        self._bits, self._moments, self._paged, self._whole = bits, moments, paged, whole

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Make the state of every parameter that has a gradient and none yet."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter not in self.state:
                    self.state[parameter] = {"tensors": self._made(parameter)}

    def _made(self, parameter: torch.Tensor) -> list[torch.Tensor]:
        count, device = parameter.numel(), parameter.device
        if self._paged and count >= _PAGED:
            return []
        if self._bits == 32 or count < _SMALL or id(parameter) in self._whole:
            return [torch.empty(count, dtype=torch.float32, device=device) for _ in range(self._moments)]
        scales = math.ceil(count / _BLOCK)
        values = [torch.empty(count, dtype=torch.uint8, device=device) for _ in range(self._moments)]
        return values + [torch.empty(scales, dtype=torch.float32, device=device) for _ in range(self._moments)]


def stand_in(name: str, model: nn.Module) -> tuple[type[BlockwiseState], dict[str, Any]] | None:
    """Class and arguments in place of one of bitsandbytes' optimizers; None for another optimizer."""
    if name not in _KINDS:
        return None
    bits, moments, paged = _KINDS[name]
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    whole = {id(parameter) for module in embeddings for parameter in module.parameters()} if bits == 8 else set()
    return BlockwiseState, {"bits": bits, "moments": moments, "paged": paged, "whole": whole}
