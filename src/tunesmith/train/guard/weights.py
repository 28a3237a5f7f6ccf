"""Whether training moves the weights, by a sample of each trained tensor."""

from __future__ import annotations

from typing import Any, Final

import torch

from ..ranks import anywhere, local_part

_VALUES: Final = 64  # of each tensor: some KB in all, where a copy of the model would be GB


class Moved:
    """Remembers a sample of the trained weights and says whether any of it has changed."""

    def __init__(self, model: Any) -> None:
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._before = [_sample(parameter) for parameter in self._trained]

    @property
    def count(self) -> int:
        """Trained tensors."""
        return len(self._trained)

    def changed(self) -> bool:
        """Whether anything has changed, in any process. All of them have to call it."""
        pairs = zip(self._before, self._trained, strict=True)
        return anywhere(any(not torch.equal(before, _sample(now)) for before, now in pairs))[0]


def _sample(parameter: torch.Tensor) -> torch.Tensor:
    values = local_part(parameter).detach().reshape(-1)
    return values[:: max(1, values.numel() // _VALUES)].clone()
