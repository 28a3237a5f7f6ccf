"""What a GPU does otherwise than a CPU, so that a step faked on the CPU takes the memory that it takes there.

Fake tensors on device "cuda" can't go backward without a CUDA build of torch, so the step runs on device "cpu", and the
places where torch, Transformers and TRL ask for the device are answered as CUDA would. All of it is for a process of
its own: it changes these libraries for good.
"""

from __future__ import annotations

import math
import types
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

from ...errors import EnvironmentLacksError
from .storages import Kernel, Scratch

aten = torch.ops.aten
WORKSPACE = 2 * 8320 * 1024
"""Bytes of cuBLAS's workspaces, one for each of the threads of forward and backward: aten/src/ATen/cuda/
CublasHandlePool.cpp. On compute capability 9.0 it takes 48 MiB more."""
_HALF = (torch.bfloat16, torch.float16)
_FLASH_HEAD = 256  # largest head of the flash kernels
# Operators that CUDA's autocast computes in float32 and the CPU's doesn't: AT_FORALL_FP32 of
# aten/src/ATen/autocast_mode.h, those that language models use.
_FLOAT32 = (
    "exp", "expm1", "log", "log1p", "reciprocal", "rsqrt", "softplus", "layer_norm", "group_norm", "logsumexp",
    "pow.Tensor_Scalar", "pow.Tensor_Tensor",
)  # fmt: skip
_FLOAT32_OUT = ("softmax.int", "log_softmax.int", "cumsum", "cumprod", "sum", "sum.dim_IntList")


def act_like_cuda(*, padded: bool) -> None:
    """Change torch, Transformers and TRL for the rest of this process.

    `padded`: rows differ in length, so that the attention needs a mask; fake tensors can't say.
    """
    _autocast()
    functional.scaled_dot_product_attention = _attention
    functional.dropout = _dropout
    _fused_head()
    _masks(padded)


def _autocast() -> None:
    library = torch.library.Library("aten", "IMPL")
    for name in (*_FLOAT32, *_FLOAT32_OUT):
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "AutocastCPU"):
            continue
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(aten, packet), overload or "default")
        library.impl(name, _in_float32(operator) if name in _FLOAT32 else _to_float32(operator), "AutocastCPU")
    _KEPT.append(library)  # its registrations go when it does


_KEPT: list[Any] = []


def _in_float32(operator: Any) -> Any:
    def compute(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return operator(*(_widened(arg) for arg in args), **kwargs)

    return compute


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in _HALF else value


def _to_float32(operator: Any) -> Any:
    place = [argument.name for argument in operator._schema.arguments].index("dtype")

    def compute(*args: Any, **kwargs: Any) -> Any:
        given = args[place] if len(args) > place else kwargs.get("dtype")
        if given is None and args[0].dtype in _HALF:
            args, kwargs = args[:place], kwargs | {"dtype": torch.float32}
        with torch.autocast("cpu", enabled=False):
            return operator(*args, **kwargs)

    return compute


_sdpa = functional.scaled_dot_product_attention


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Scaled dot-product attention by the kernel that CUDA takes: flash, memory-efficient, or plain.

    Rules: aten/src/ATen/native/transformers/cuda/sdp_utils.cpp. Flash takes half precision without a mask; the
    memory-efficient kernel takes any dtype and a mask, but no grouped heads.
    """
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    grouped = query.shape[1] != key.shape[1]
    fits = query.shape[-1] == value.shape[-1] <= _FLASH_HEAD
    if attn_mask is None and query.dtype in _HALF and fits:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
    if query.dim() != 4 or grouped:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return _sdpa(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    bias = _bias(attn_mask, query, key) if attn_mask is not None else None
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, dropout_p, is_causal, scale=scale
    )[0]


def _bias(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """The mask as the memory-efficient kernel wants it: in the query's dtype, its rows padded to 16, for all heads."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), -math.inf)
    mask = mask.to(query.dtype)
    length = key.shape[-2]
    if length % 16:
        mask = functional.pad(mask, (0, 16 - length % 16))[..., :length]
    return mask.expand(query.shape[0], query.shape[1], query.shape[-2], length)


def _dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, _inplace: bool = False) -> torch.Tensor:
    """Dropout by CUDA's fused kernel, which keeps a mask of a byte per element; the CPU's keeps it in x's dtype."""
    return aten.native_dropout(x, p, True)[0] if training and 0 < p < 1 else x


class _Kernel:
    """A Triton kernel that works in place and allocates nothing."""

    def __getitem__(self, _grid: Any) -> Any:
        return lambda *_args, **_kwargs: None


def _fused_head() -> None:
    """TRL's fused head takes its Triton kernels."""
    from trl.kernels import chunked_logprob as kernels
    from trl.trainer import utils

    def add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
        if left.dtype not in _HALF:  # CUDA adds half products to a float32 total without widening them
            total.addmm_(left, right)

    for module in (kernels, utils):
        replace(module, "_use_triton", lambda _device: True)
    replace(kernels, "_forward_kernel", _Kernel())
    replace(kernels, "_backward_kernel", _Kernel())
    replace(kernels, "_addmm_fp32", add_product)
    if not hasattr(kernels, "triton"):
        kernels.triton = types.SimpleNamespace(cdiv=lambda size, block: -(-size // block))


def _masks(padded: bool) -> None:
    """Transformers decides about the causal mask as it does for real tensors; for fake ones it always builds it."""
    from transformers import masking_utils

    replace(masking_utils, "is_tracing", lambda _tensor=None: False)
    replace(masking_utils, "fast_all", lambda _mask: not padded)


def replace(module: Any, name: str, value: Any) -> None:
    """Put `value` in the place of a library's `name`.

    Raises:
        EnvironmentLacksError: there is no such name in the installed version.
    """
    if not hasattr(module, name):
        raise EnvironmentLacksError(
            "The exact memory estimate doesn't know the installed libraries.",
            why=f"{module.__name__} has no {name} any more, which differs between CPU and GPU.",
            fix="Plan without --exact, or install the versions of constraints.txt.",
        )
    setattr(module, name, value)


def _scalar(tensor: torch.Tensor) -> Any:
    """What `.item()` gives: fake tensors have no values, and any will do; one keeps divisions and conditions alive."""
    if not isinstance(tensor, FakeTensor):
        return tensor.item()
    if tensor.constant is not None:
        return aten._local_scalar_dense.default(tensor)
    return True if tensor.dtype == torch.bool else 1.0 if tensor.is_floating_point() else 1


def _nonzero(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty((tensor.numel(), tensor.dim()), dtype=torch.int64, device=tensor.device)


def _index(tensor: torch.Tensor, indices: Any) -> torch.Tensor:
    """Indexing; a boolean mask keeps everything, which is the most that it can."""
    if not any(index is not None and index.dtype == torch.bool for index in indices):
        return aten.index.Tensor(tensor, indices)
    at, mask = next((place, index) for place, index in enumerate(indices) if index is not None)
    return tensor.new_empty((*tensor.shape[:at], mask.numel(), *tensor.shape[at + mask.dim() :]))


def _accumulate(gradient: torch.Tensor, other: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
    """Addition; where autograd sums the gradients of a value that is used twice, into the first of them.

    Torch does so for plain tensors, and not for subclasses as fake ones are: torch/csrc/autograd/input_buffer.cpp.
    """
    engine = torch._C._current_autograd_node() is not None and not torch.is_grad_enabled() and not rest and not named
    alike = isinstance(other, torch.Tensor) and gradient.shape == other.shape and gradient.dtype == other.dtype
    if engine and alike and gradient.untyped_storage().nbytes() == gradient.nbytes:
        return gradient
    return aten.add.Tensor(gradient, other, *rest, **named)


KERNELS: dict[Any, Kernel] = {
    aten.add.Tensor: _accumulate,
    aten._local_scalar_dense.default: _scalar,
    aten.nonzero.default: _nonzero,
    aten.index.Tensor: _index,
}


def _round(size: int, to: int) -> int:
    return -(-size // to) * to


def _flash_scratch(_gradient: Any, query: torch.Tensor, key: torch.Tensor, *_rest: Any, **_named: Any) -> int:
    """Bytes that flash attention's backward takes and frees: the query's gradient in float32, a float32 row sum, and
    under grouped heads the keys' and values' gradients for every head.

    Source: mha_bwd of aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp.
    """
    batch, heads, length, size = query.shape
    rows = batch * _round(length, 128) * heads
    head = _round(size, 32 if size <= 128 else 64)
    grouped = 2 * batch * key.shape[2] * heads * size * query.element_size() if key.shape[1] != heads else 0
    return int(rows * head * 4 + rows * 4 + grouped)


def _efficient_scratch(_gradient: Any, query: torch.Tensor, key: torch.Tensor, *_rest: Any, **_named: Any) -> int:
    """The same of memory-efficient attention: a float32 row sum; in half precision the query's gradient in float32.

    Heads beyond 128 don't fit in registers: then the keys' and values' gradients are summed in float32 too.
    Source: aten/src/ATen/native/transformers/cuda/attention_backward.cu and mem_eff_attention/kernel_backward.h.
    """
    batch, heads, length, size = query.shape
    rows, head = batch * heads * _round(length, 64), _round(size, 32)
    widened = rows * head * 4 if query.dtype in _HALF else 0
    beside = 2 * batch * heads * _round(key.shape[2], 64) * head * 4 if widened and size > 128 else 0
    return int(rows * 4 + widened + beside)


SCRATCH: dict[Any, Scratch] = {
    aten._scaled_dot_product_flash_attention_backward.default: _flash_scratch,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_scratch,
}
