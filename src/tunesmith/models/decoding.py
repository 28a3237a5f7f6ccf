"""What decoding needs beyond Transformers: a cache with room, and draws by a row's own seed. Heavy: import it late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, LogitsProcessor, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class RoomyLayer(DynamicLayer):
    """A layer's keys and values, (rows, heads, tokens, size): new ones are written behind those that are there.

    `DynamicLayer` copies all of them for every token; for a small model that is most of the time.
    """

    keys: Any
    values: Any

    def __init__(self, room: int) -> None:
        """`room` is the number of tokens that will come to it; more may, and make it grow."""
        super().__init__()
        self._room = room
        self._stored: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add new keys and values; gives all, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._stored is None or after > self._stored[0].shape[-2]:
            self._stored = (self._wider(key_states, self.keys, after), self._wider(value_states, self.values, after))
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            stored[..., before:after, :] = new
        self.keys, self.values = (stored[..., :after, :] for stored in self._stored)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows alone."""
        if self._stored is not None:
            tokens = self.get_seq_length()
            self._stored = (self._stored[0][indices], self._stored[1][indices])
            self.keys, self.values = (stored[..., :tokens, :] for stored in self._stored)

    def _wider(self, new: Tensor, old: Tensor, tokens: int) -> Tensor:
        """A place for `tokens` or more, with the old ones in it."""
        rows, heads, _, size = new.shape
        stored = new.new_empty((rows, heads, max(tokens, self._room), size))
        if old.numel():
            stored[..., : old.shape[-2], :] = old
        return stored


def roomy_cache(config: PreTrainedConfig, room: int) -> Cache | None:
    """An empty cache that rows can be taken out of; None for models that keep anything but keys and values."""
    cache = DynamicCache(config=config)
    if not cache.layers or not {type(layer) for layer in cache.layers} <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return None
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class Drawn(LogitsProcessor):
    """Draws each row's next token by the row's own random numbers, and leaves no other token to the greedy search.

    The draw is by inversion: the first token at which the cumulative probability of softmax(logits / temperature)
    exceeds a uniform number (Devroye 1986, Non-Uniform Random Variate Generation, section II.2).
    """

    def __init__(self, seeds: Sequence[int], tokens: int, temperature: float) -> None:
        """A seed for each row, tokens that will be drawn at most, and what logits are divided by."""
        self._uniform = torch.from_numpy(np.stack([np.random.default_rng(seed).random(tokens) for seed in seeds]))
        self._temperature = temperature
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores, (rows, vocabulary), by which the token drawn is the only one possible."""
        exact = torch.float32 if scores.device.type == "mps" else torch.float64  # mps has nothing longer
        cumulative = (scores.to(exact) / self._temperature).softmax(-1).cumsum(-1)
        uniform = self._uniform[:, self._step, None].to(scores.device, exact)
        self._step += 1
        token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        token = token.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        self._uniform = self._uniform[rows.to(self._uniform.device)]
