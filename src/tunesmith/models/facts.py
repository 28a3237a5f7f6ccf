"""What a model is, from its config.json and the headers of its weight files; no weights, no torch."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..records import LinearShape, ModelFacts
from .source import Source

_NOT_LINEAR = ("embed", "wte", "wpe", "lm_head", "norm", "ln_")
_MAX_HEADER = 100 << 20  # safetensors' own limit for a header, in bytes
_DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def model_facts(source: Source) -> ModelFacts:
    """The facts of a model.

    Raises:
        UsageError: config.json or the weight files can't be read, or the weights aren't safetensors.
    """
    config = _read_json(source.folder / "config.json")
    text = config.get("text_config", config)
    tensors = dict(_tensors(source))
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
        layers=int(text.get("num_hidden_layers", 0)),
        hidden=int(text.get("hidden_size", 0)),
        intermediate=int(text.get("intermediate_size") or 0),
        vocabulary=int(text.get("vocab_size", 0)),
        context=int(text.get("max_position_embeddings", 0)),
        dtype=_DTYPES.get(dtypes.most_common(1)[0][0], "other"),
        tied=not any(name.startswith("lm_head.") for name in tensors),
        has_template=(source.folder / "chat_template.jinja").exists()
        or (tokenizer.exists() and bool(_read_json(tokenizer).get("chat_template"))),
        stop_ids=_stop_ids(source.folder, config),
        bytes=sum(math.prod(shape) * _size(dtype) for dtype, shape in tensors.values()),
    )


def _stop_ids(folder: Path, config: dict[str, Any]) -> list[int]:
    generation = folder / "generation_config.json"
    stops = (_read_json(generation) if generation.exists() else config).get("eos_token_id")
    return [] if stops is None else [stops] if isinstance(stops, int) else list(stops)


def _size(dtype: str) -> int:
    bits = "".join(character for character in dtype if character.isdigit())[:2]
    return max(1, int(bits or 8) // 8)


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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} can't be read.", why=str(error), fix="Download or save the model again.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} isn't a JSON object.", why="The file is damaged.", fix="Save the model again.")
    return value


def _tensors(source: Source) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    """Name -> (safetensors dtype, shape) of every tensor, from the headers alone."""
    if source.revision is not None:
        yield from _hub_tensors(source)
        return
    files = sorted(source.folder.glob("*.safetensors"))
    if not files:
        raise UsageError(
            f"{source.name} has no *.safetensors files.",
            why="Only safetensors weights are loaded: other formats can run code.",
            fix="Convert the model with save_pretrained in a trusted environment, or take a repository that has them.",
        )
    for file in files:
        for name, entry in _header(file).items():
            if name != "__metadata__":
                yield name, (entry["dtype"], entry["shape"])


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_HEADER:
                raise ValueError("its header is too long")
            header: dict[str, Any] = json.loads(stream.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        if file.stat().st_size < 8 + length + end:
            raise ValueError("it is shorter than its header says")
    except (OSError, struct.error, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{file} isn't a complete safetensors file.", why=str(error), fix="Copy or download the model again."
        ) from None
    return header


def _hub_tensors(source: Source) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    from huggingface_hub import errors, get_safetensors_metadata

    try:
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
