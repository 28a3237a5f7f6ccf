"""Counting the bytes of every live tensor storage, as CUDA's caching allocator would count them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

ROUNDING = 512
"""Bytes to which CUDA's allocator rounds each allocation up: kMinBlockSize in c10/cuda/CUDACachingAllocator.h."""

Kernel = Callable[..., Any]
Scratch = Callable[..., int]


class StorageTracker(TorchDispatchMode):
    """The bytes of all storages that live, and their peak in each phase.

    Works on what each operator returns: memory that a kernel takes and frees inside itself doesn't show, so `scratch`
    says it for the operators where it counts. `kernels` replaces operators whose result depends on data, which fake
    tensors don't have.
    """

    def __init__(self, kernels: dict[Any, Kernel] | None = None, scratch: dict[Any, Scratch] | None = None) -> None:
        super().__init__()
        self.current = 0
        self.peaks: dict[str, int] = {}
        self.phase = ""
        self._kernels = kernels or {}
        self._scratch = scratch or {}
        self._live: dict[int, tuple[int, weakref.ref[Any]]] = {}

    def enter(self, phase: str) -> None:
        """Count what follows to `phase`."""
        self.phase = phase
        self._touch(0)

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage from now until it dies; once, however many tensors view it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        size = -(-storage.nbytes() // ROUNDING) * ROUNDING
        self._live[key] = size, weakref.ref(storage, lambda _dead: self._free(key))
        self.current += size
        self._touch(0)

    def _free(self, key: int) -> None:
        self.current -= self._live.pop(key)[0]

    def _touch(self, scratch: int) -> None:
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), self.current + scratch)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = self._kernels.get(func, func)(*args, **kwargs)
        for leaf in (out,) if isinstance(out, torch.Tensor) else tree_iter(out):
            if isinstance(leaf, FakeTensor):
                self.add(leaf)
        if func in self._scratch:
            self._touch(self._scratch[func](*args, **kwargs))
        return out
