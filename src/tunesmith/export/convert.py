"""Writing a model folder as one GGUF file, a tensor at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..files import disk_errors
from ..progress import Progress, silent
from ..rules import FindingsError, finding
from .architectures import Architecture, extra_tensors, look_up, transform, write_hyperparameters
from .tokenizer import Vocabulary, write_vocabulary

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Kind = Literal["f16", "q8_0"]

F16_MAX: Final = 65504.0
LARGEST: Final[dict[Kind, float]] = {"f16": F16_MAX, "q8_0": F16_MAX * 127}
"""Largest magnitude a type can hold; q8_0 stores each block's largest value over 127 as an f16 scale."""


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        tensors: Number of tensors of the checkpoint.
        coarse: Names of those that had to be stored as f16, as their rows can't be cut into blocks.
    """

    tensors: int
    coarse: tuple[str, ...]


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the checkpoint and how it is written; `read` loads it, so that only one is in memory at a time."""

    source: str
    target: str
    shape: tuple[int, ...]
    kind: Kind | Literal["f32"]
    read: Callable[[], Tensor]


def convert(
    source: Path, target: Path, kind: Kind, config: Any, vocabulary: Vocabulary, *, progress: Progress = silent
) -> Converted:
    """Write the safetensors of `source`, a model with the Transformers `config`, as the GGUF file `target`.

    The file appears under its name only when it is complete.

    Raises:
        FindingsError: X006, the architecture or one of its tensors is not in the table; X011, the weights overflow.
        EnvironmentLacksError: the disk is full or not writable.
    """
    partial = target.with_name(f".{target.name}.partial")
    with disk_errors(target):
        try:
            converted = _write(source, partial, kind, config, vocabulary, progress)
            partial.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
    return converted


def _write(source: Path, path: Path, kind: Kind, config: Any, vocabulary: Vocabulary, progress: Progress) -> Converted:
    import gguf

    entry = look_up(config)
    tensors = list(_tensors(source, kind, entry, config))
    extra = extra_tensors(config)
    writer = gguf.GGUFWriter(str(path), entry.gguf)
    writer.add_type("model")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    write_hyperparameters(writer, config)
    write_vocabulary(writer, vocabulary)
    for name, array in extra.items():
        writer.add_tensor_info(name, array.shape, array.dtype, array.nbytes)
    for tensor in tensors:
        _announce(writer, tensor)
    with contextlib.closing(writer), _short_writes_are_full_disks():
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for array in extra.values():
            writer.write_tensor_data(array)
        for done, tensor in enumerate(tensors):
            progress(f"writing {kind}", done, len(tensors))
            writer.write_tensor_data(_encode(tensor, path))
    progress(f"writing {kind}", len(tensors), len(tensors))
    coarse = tuple(tensor.source for tensor in tensors if kind == "q8_0" and tensor.kind == "f16")
    return Converted(len(tensors), coarse)


def _tensors(source: Path, kind: Kind, entry: Architecture, config: Any) -> Iterator[_Tensor]:
    import gguf

    architecture = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[entry.gguf]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, file in _stored(source):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            supported = "the tensors of its architecture as Transformers saves them"
            reason = f"its tensor {name} has no place in GGUF"
            details = {"architecture": config.architectures[0], "reason": reason, "supported": supported}
            raise FindingsError([finding("X006", "export", **details)])
        shape = tuple(file.get_slice(name).get_shape())
        change = transform(entry, config, name)
        yield _Tensor(name, target, shape, _kind_for(shape, kind), _reader(file, name, change))


def _reader(file: Any, name: str, change: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
    return lambda: change(file.get_tensor(name).float())


def _stored(source: Path) -> Iterator[tuple[str, Any]]:
    """Each tensor's name with the opened safetensors file that holds it."""
    from safetensors import safe_open

    index = source / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    for name in files:
        file: Any = safe_open(source / name, "pt")
        for key in file.keys():  # noqa: SIM118 -- not a dict
            yield key, file


def _kind_for(shape: tuple[int, ...], kind: Kind) -> Kind | Literal["f32"]:
    """Vectors (norms and biases) stay f32; rows that can't be cut into q8_0's blocks of 32 are stored as f16."""
    import gguf

    if len(shape) == 1:
        return "f32"
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0]
    return "f16" if shape[-1] % block else kind


def _announce(writer: Any, tensor: _Tensor) -> None:
    import gguf
    import numpy as np

    quantization = gguf.GGMLQuantizationType[tensor.kind.upper()]
    stored = gguf.quant_shape_to_byte_shape(tensor.shape, quantization)
    if tensor.kind == "q8_0":
        size = int(np.prod(stored))
        writer.add_tensor_info(tensor.target, stored, np.dtype(np.uint8), size, raw_dtype=quantization)
    else:
        dtype = np.dtype(np.float32 if tensor.kind == "f32" else np.float16)
        writer.add_tensor_info(tensor.target, tensor.shape, dtype, int(np.prod(stored)))


def _encode(tensor: _Tensor, path: Path) -> np.ndarray:
    import gguf

    values = tensor.read()
    if tensor.kind != "f32":
        largest = float(values.abs().max())
        if not largest <= LARGEST[tensor.kind]:
            where = path.name.removeprefix(".").removesuffix(".partial")
            raise FindingsError([finding("X011", f"export/{where}", tensor=tensor.source, value=largest)])
    encoded: np.ndarray = gguf.quants.quantize(
        values.contiguous().numpy(), gguf.GGMLQuantizationType[tensor.kind.upper()]
    )
    return encoded


@contextlib.contextmanager
def _short_writes_are_full_disks() -> Iterator[None]:
    """numpy reports a write that was cut short without the system's error number."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise
