"""What a model is, from its config.json and the headers of its weight files; no weights, no torch."""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..records import LinearShape, ModelFacts
from .source import Source, hub_errors, read_json

_NOT_LINEAR = ("embed", "wte", "wpe", "lm_head", "norm", "ln_")
_MAX_HEADER = 100 << 20  # safetensors' own limit for a header, in bytes
_DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def model_facts(source: Source) -> ModelFacts:
    """The facts of a model.

    Raises:
        UsageError: config.json or the weight files can't be read, or the weights aren't safetensors.
    """
    config = read_json(source.folder / "config.json")
    text = {**config, **(config.get("text_config") or {})}
    tensors = dict(_tensors(source))
    if not tensors:
        raise UsageError(f"{source.name} holds no weights.", why="Its files are empty.", fix="Save the model again.")
    tokenizer = source.folder / "tokenizer_config.json"
    dtypes = Counter[str]()
    for dtype, shape in tensors.values():
        dtypes[dtype] += math.prod(shape)
    architectures = config.get("architectures") or ["unknown"]
    return ModelFacts(
        name=source.name,
        location=source.location,
        revision=source.revision,
        architecture=architectures[0],
        model_type=str(config.get("model_type", "unknown")),
        parameters=sum(math.prod(shape) for _, shape in tensors.values()),
        linears=_linears(tensors),
        experts=any(".experts." in name for name in tensors),
        layers=_number(text, "num_hidden_layers", "n_layer"),
        hidden=_number(text, "hidden_size", "n_embd"),
        intermediate=_number(text, "intermediate_size", "n_inner"),
        vocabulary=_number(text, "vocab_size"),
        context=_number(text, "max_position_embeddings", "n_positions"),
        dtype=_DTYPES.get(dtypes.most_common(1)[0][0], "other"),
        tied=not any(name.startswith("lm_head.") for name in tensors),
        has_template=(source.folder / "chat_template.jinja").exists()
        or (tokenizer.exists() and bool(read_json(tokenizer).get("chat_template"))),
        stop_ids=stop_ids(source.folder),
        bytes=sum(math.prod(shape) * _size(dtype) for dtype, shape in tensors.values()),
    )


def _number(config: dict[str, Any], *names: str) -> int:
    """The first of `names` that the config has as a number, else 0; GPT-2 and its kin have names of their own."""
    return next((int(config[name]) for name in names if isinstance(config.get(name), int | float)), 0)


def stop_ids(folder: Path) -> list[int]:
    """The tokens at which generation stops, by generation_config.json, or config.json where there is none.

    Raises:
        UsageError: the file can't be read.
    """
    files = [folder / name for name in ("generation_config.json", "config.json")]
    file = next((file for file in files if file.exists()), None)
    stops = read_json(file).get("eos_token_id") if file else None
    return [] if stops is None else [stops] if isinstance(stops, int) else list(stops)


def _size(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)  # F32, BF16, F8_E4M3; BOOL takes a byte
    return max(1, int(bits[0] if bits else 8) // 8)


def _linears(tensors: dict[str, tuple[str, list[int]]]) -> list[LinearShape]:
    shapes = Counter[tuple[str, int, int]]()
    for name, (_, shape) in tensors.items():
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and len(shape) == 2 and not any(part in layer for part in _NOT_LINEAR):
            shapes[layer.rpartition(".")[2], shape[0], shape[1]] += 1
    return [
        LinearShape(name=name, out_features=rows, in_features=columns, count=count)
        for (name, rows, columns), count in shapes.items()
    ]


def _tensors(source: Source) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    """Name -> (safetensors dtype, shape) of every tensor, from the headers alone."""
    if source.revision is not None:
        yield from _hub_tensors(source)
        return
    for file in _weight_files(source):
        yield from _header(file).items()


def _weight_files(source: Source) -> list[Path]:
    """The files that from_pretrained reads: the one file, else those of the index; others may lie beside them."""
    whole, index = source.folder / "model.safetensors", source.folder / "model.safetensors.index.json"
    if whole.exists():
        return [whole]
    if index.exists():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict):
            raise UsageError(f"{index} has no weight_map.", why="The file is damaged.", fix="Save the model again.")
        return sorted({source.folder / str(name) for name in names.values()})
    raise UsageError(
        f"{source.name} has no model.safetensors.",
        why="Only safetensors weights are loaded: other formats can run code.",
        fix="Convert the model with save_pretrained in a trusted environment, or take a repository that has them.",
    )


def _header(file: Path) -> dict[str, tuple[str, list[int]]]:
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_HEADER:
                raise ValueError("its header is too long")
            header = dict(json.loads(stream.read(length)))
        header.pop("__metadata__", None)
        tensors = {
            name: (str(entry["dtype"]), [int(size) for size in entry["shape"]]) for name, entry in header.items()
        }
        if file.stat().st_size < 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0):
            raise ValueError("it is shorter than its header says")
    except (OSError, struct.error, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{file} isn't a complete safetensors file.", why=str(error), fix="Copy or download the model again."
        ) from None
    return tensors


def _hub_tensors(source: Source) -> Iterator[tuple[str, tuple[str, list[int]]]]:
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
            yield name, (tensor.dtype, list(tensor.shape))
