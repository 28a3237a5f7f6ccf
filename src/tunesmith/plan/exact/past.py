"""The loss of Transformers before its fused heads, to hold the exact tier against peaks that were measured with it."""

from __future__ import annotations

from typing import Any

import torch


def take_old_loss() -> None:
    """Give models the causal loss of Transformers 4.46 to 4.50, for the rest of this process.

    It widens the logits to float32 and copies them once more to shift them: src/transformers/loss/loss_utils.py of
    v4.48.0, ForCausalLMLoss.
    """
    from transformers.loss import loss_utils

    def loss(logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **rest: Any) -> Any:
        logits = logits.float()
        shifted = logits[..., :-1, :].contiguous().view(-1, vocab_size)
        items = rest.get("num_items_in_batch")
        return loss_utils.fixed_cross_entropy(shifted, labels[..., 1:].contiguous().view(-1), items)

    today = loss_utils.ForCausalLMLoss
    for name, function in loss_utils.LOSS_MAPPING.items():
        if function is today:
            loss_utils.LOSS_MAPPING[name] = loss
