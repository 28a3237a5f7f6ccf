"""Attention over rows of unequal length without padding, for packed and padding-free batches.

Registered with Transformers under a name of its own, so that any model that asks its AttentionInterface can use it. On
a GPU it is torch's own variable-length flash attention (torch.nn.attention.varlen), which needs no flash-attn build; on
a CPU each row goes through scaled_dot_product_attention alone. Both compute what flash_attention_2 computes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import EnvironmentLacksError
from ..records import VARLEN

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Rows(NamedTuple):
    """Where rows lie in a flat batch.

    Attributes:
        ends: 0 and the end of each row, int32, shape (rows + 1,).
        longest: Tokens of the longest row.
    """

    ends: Tensor
    longest: int


Kernel = Callable[[Tensor, Tensor, Tensor, Rows, float | None, int | None], Tensor]
"""Causal attention within rows: queries, keys and values of shape (tokens, heads, width), the rows, the scale of the
scores, and the window in tokens, if there is one. Keys and values may have fewer heads."""


def register() -> str:
    """Make the attention known to Transformers; returns its name. A second call does nothing more."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(VARLEN, attend)
    AttentionMaskInterface.register(VARLEN, _mask)
    return VARLEN


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row, in the shapes of Transformers' AttentionInterface.

    Args:
        module: The attention layer.
        query: Shape (batch, heads, tokens, width).
        key: Shape (batch, key heads, keys, width).
        value: As key.
        attention_mask: None; or 0 where a token is padding, shape (batch, tokens). A mask of four dimensions, as it is
            made for generating with a cache, goes to scaled_dot_product_attention, as does all that isn't causal.
        dropout: Must be 0.
        scaling: Of the scores; 1 / sqrt(width) by default.
        sliding_window: Tokens that a token sees, itself among them; None: all before it.
        is_causal: By default what the layer says.
        kwargs: What the model was called with: `cu_seq_lens_q` and `max_length_q`, or `position_ids`, say where rows
            begin in a batch of one. Without them each row of the batch is a row.

    Returns:
        Shape (batch, tokens, heads, width), and None for the weights.

    Raises:
        ValueError: dropout, capped scores or attention sinks, which this attention doesn't have.
    """
    unknown = [name for name in ("softcap", "s_aux") if kwargs.get(name) is not None]
    if unknown or dropout:
        raise ValueError(f"{VARLEN} has no {', '.join([*unknown, *(['dropout'] if dropout else [])])}.")
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if not causal or query.shape[2] != key.shape[2] or (attention_mask is not None and attention_mask.dim() == 4):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        given = {"scaling": scaling, "is_causal": is_causal, **kwargs}
        seen: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **given)[0]
        return seen, None
    return _within_rows(query, key, value, attention_mask, scaling, sliding_window, kwargs), None


def _within_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
    window: int | None,
    given: dict[str, Any],
) -> Tensor:
    """Shape (batch, tokens, heads, width)."""
    batch, _, tokens, _ = query.shape
    queries, keys, values = (states.transpose(1, 2).flatten(0, 1) for states in _same_dtype(query, key, value))
    kernel = kernel_for(query.device)
    if attention_mask is None:
        rows = rows_of(batch, tokens, query.device, given)
        return kernel(queries, keys, values, rows, scaling, window).unflatten(0, (batch, tokens))
    kept = attention_mask.flatten().nonzero().flatten()
    seen = kernel(queries[kept], keys[kept], values[kept], _padded_rows(attention_mask), scaling, window)
    whole = seen.new_zeros(batch * tokens, *seen.shape[1:])
    return whole.index_copy(0, kept, seen).unflatten(0, (batch, tokens))


def rows_of(batch: int, tokens: int, device: torch.device, given: dict[str, Any]) -> Rows:
    """Where the rows of a batch without padding lie, by what the model was called with."""
    ends, longest = given.get("cu_seq_lens_q"), given.get("max_length_q")
    if ends is not None and longest is not None:
        return Rows(ends, int(longest))
    positions = given.get("position_ids")
    if batch == 1 and positions is not None and positions.numel() == tokens:
        return rows_from_positions(positions.flatten())
    return Rows(torch.arange(batch + 1, dtype=torch.int32, device=device) * tokens, tokens)


def rows_from_positions(positions: Tensor) -> Rows:
    """Rows of a flat batch: a new one begins where a position doesn't follow the one before.

    Args:
        positions: Position of each token in its row, shape (tokens,).
    """
    begins = torch.ones_like(positions, dtype=torch.bool)
    begins[1:] = positions[1:] != positions[:-1] + 1
    ends = functional.pad(begins.nonzero().flatten(), (0, 1), value=len(positions)).to(torch.int32)
    return Rows(ends, int(ends.diff().max()))


def _padded_rows(mask: Tensor) -> Rows:
    lengths = mask.sum(-1, dtype=torch.int32)
    return Rows(functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0)), int(lengths.max()))


def _same_dtype(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All in the dtype of autocast where it is on (rotary embedding gives float32), else in that of the values."""
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _mask(*, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The padding of a batch, or None without any; a whole mask where a cache has more keys than there are queries."""
    from transformers.masking_utils import flash_attention_mask, sdpa_mask

    make = flash_attention_mask if q_length == kv_length else sdpa_mask
    mask: Tensor | None = make(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **kwargs)
    return mask


def kernel_for(device: torch.device) -> Kernel:
    """The kernel of a device.

    Raises:
        EnvironmentLacksError: a GPU without torch's variable-length attention.
    """
    return _flash() if device.type == "cuda" else attend_one_by_one


@functools.cache
def _flash() -> Kernel:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        varlen_attn = None
    known = inspect.signature(varlen_attn).parameters if varlen_attn else {}
    if "window_size" not in known:
        raise EnvironmentLacksError(
            f"torch {torch.__version__} has no variable-length attention with windows.",
            why="The plan chose packing with torch.nn.attention.varlen, which came with torch 2.11.",
            fix="Install a newer torch, or set `training: {packing: false}` in the recipe.",
        )
    # Later versions refuse fewer key heads than query heads unless told; earlier ones take them as they are.
    grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in known else {}

    def flash(query: Tensor, key: Tensor, value: Tensor, rows: Rows, scale: float | None, window: int | None) -> Tensor:
        left = window - 1 if window and window < rows.longest else -1
        each = (rows.ends, rows.ends, rows.longest, rows.longest)
        seen: Tensor = varlen_attn(query, key, value, *each, scale=scale, window_size=(left, 0), **grouped)
        return seen

    return flash


def attend_one_by_one(
    query: Tensor, key: Tensor, value: Tensor, rows: Rows, scale: float | None, window: int | None
) -> Tensor:
    """The kernel of a CPU: each row alone, so that nothing is computed for padding or across rows."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    lengths = rows.ends.diff().tolist()
    parts = [states.transpose(0, 1).split(lengths, dim=1) for states in (query, key, value)]
    triples = zip(*parts, strict=True)
    seen = [_attend_row(one, its_keys, its_values, scale, window) for one, its_keys, its_values in triples]
    return torch.cat(seen, dim=1).transpose(0, 1)


def _attend_row(query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None) -> Tensor:
    """Of one row; all shapes (heads, tokens, width)."""
    tokens = query.shape[1]
    band = None
    if window and window < tokens:
        ones = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device)
        band = ones.tril() & ones.triu(1 - window)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=band, is_causal=band is None, scale=scale
    )


def packing_error(model: PreTrainedModel, *, seed: int = 0) -> float:
    """What a row's predictions change by when it is packed behind another one: mean KL divergence, nats per token.

    Alone it goes through the attention that the model was loaded with as a rule (SDPA or eager), packed through the one
    that is set. Rounding alone gives less than `rounding`; more where rows see each other: positions or lengths don't
    reach the attention, or tokens are mixed outside it (state spaces, convolutions).

    Raises:
        ValueError: the model refuses packed rows.
    """
    generator = torch.Generator().manual_seed(seed)
    words = model.config.get_text_config().vocab_size
    before, row = (torch.randint(words, (length,), generator=generator).to(model.device) for length in (11, 7))
    training, attention = model.training, model.config._attn_implementation
    model.eval()
    try:
        packed = predictions(model, torch.cat([before, row]), _packed(len(before), len(row), model.device))
        model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
        alone = predictions(model, row, {})
    finally:
        model.set_attn_implementation(attention)
        model.train(training)
    return float((alone.exp() * (alone - packed[len(before) :])).sum(-1).mean())


def rounding(dtype: torch.dtype) -> float:
    """What `packing_error` is below when rows don't see each other: 2e-7 and 3e-6 at most over 40 architectures.

    A trained model is surer of itself than those, whose weights were random, and so its rounding shows more.
    """
    return 1e-6 if dtype == torch.float32 else 5e-2


def _packed(first: int, second: int, device: torch.device) -> dict[str, Any]:
    """What TRL's collator says of two rows in one, beside their tokens."""
    ends = torch.tensor([0, first, first + second], dtype=torch.int32, device=device)
    positions = torch.cat([torch.arange(first, device=device), torch.arange(second, device=device)])[None]
    index = torch.repeat_interleave(torch.arange(2, dtype=torch.int32, device=device), ends.diff())[None]
    longest = max(first, second)
    lengths = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
    return {"position_ids": positions, "seq_idx": index, **lengths}


def predictions(model: PreTrainedModel, tokens: Tensor, given: dict[str, Any]) -> Tensor:
    """Log-probabilities after each token, shape (tokens, words), in double precision.

    Args:
        model: The model.
        tokens: Shape (tokens,).
        given: What it is called with besides.
    """
    with torch.no_grad():
        logits: Tensor = model(input_ids=tokens[None], use_cache=False, **given).logits
    return logits[0].double().log_softmax(-1)
