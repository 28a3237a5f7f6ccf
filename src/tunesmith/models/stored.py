"""The tensors that a model's safetensors files hold, from their headers alone."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .source import Source, hub_errors, read_json

_MAX_HEADER = 100 << 20  # safetensors' own limit for a header, in bytes
_OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5", "*.gguf", "*.onnx")


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its name, safetensors dtype (BF16, F32, ...) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in the file."""
        bits = re.search(r"\d+", self.dtype)  # F32, BF16, F8_E4M3, F4; BOOL takes a byte
        return self.elements * int(bits[0] if bits else 8) // 8


def stored_tensors(source: Source) -> list[Stored]:
    """Every tensor of a model.

    Raises:
        UsageError: there are no safetensors files, or they can't be read.
        EnvironmentLacksError: they are on the Hub, and it can't be reached.
    """
    files = _weight_files(source)
    if files is None and source.revision is not None:
        return list(_hub_tensors(source))
    if files is None:
        raise UsageError(
            f"{source.name} has no model.safetensors.",
            why="Only safetensors weights are loaded: other formats can run code.",
            fix="Convert the model with save_pretrained in a trusted environment, or take a repository that has them.",
        )
    return [tensor for file in files for tensor in _header(file)]


def lacks_weights(source: Source) -> bool:
    """Whether a local folder holds no weights at all, in whatever format: enough to plan with, not to train."""
    if source.revision is not None or _weight_files(source) is not None:
        return False
    return not any(file for pattern in _OTHER_FORMATS for file in source.folder.glob(pattern))


def _weight_files(source: Source) -> list[Path] | None:
    """The files that from_pretrained reads: the one file, else those of the index; others may lie beside them."""
    whole, index = source.folder / "model.safetensors", source.folder / "model.safetensors.index.json"
    if whole.exists():
        return [whole]
    if not index.exists():
        return None
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict):
        raise UsageError(f"{index} has no weight_map.", why="The file is damaged.", fix="Save the model again.")
    files = sorted({source.folder / str(name) for name in names.values()})
    # Of a Hub model the index is among the small files; the weights are there once something loaded them.
    return files if source.revision is None or all(file.exists() for file in files) else None


def _header(file: Path) -> list[Stored]:
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_HEADER:
                raise ValueError("its header is too long")
            header = dict(json.loads(stream.read(length)))
        header.pop("__metadata__", None)
        tensors = [
            Stored(name, str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
            for name, entry in header.items()
        ]
        if file.stat().st_size < 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0):
            raise ValueError("it is shorter than its header says")
    except (OSError, struct.error, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{file} isn't a complete safetensors file.", why=str(error), fix="Copy or download the model again."
        ) from None
    return tensors


def _hub_tensors(source: Source) -> Iterator[Stored]:
    from huggingface_hub import errors, get_safetensors_metadata

    try:
        with hub_errors(source.name):
            metadata = get_safetensors_metadata(source.location, revision=source.revision)
    except errors.NotASafetensorsRepoError:
        raise UsageError(
            f"{source.name} has no safetensors weights on the Hub.",
            why="Only safetensors weights are loaded: other formats can run code.",
            fix="Take a repository or revision that has them.",
        ) from None
    for file in metadata.files_metadata.values():
        for name, tensor in file.tensors.items():
            yield Stored(name, tensor.dtype, tuple(tensor.shape))
