"""What a model is, from its config.json and the headers of its weight files; no weights, no torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import EnvironmentLacksError, UsageError
from ..records import ModelFacts, ParameterParts
from .architectures import Blueprint, Weight, blueprint
from .config import Config
from .families import find_known, kind_of
from .parts import count_parts, linear_shapes, part_of
from .source import Source, read_json
from .stored import Stored, lacks_weights, stored_tensors
from .table import read_table
from .tokens import widened

_DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_QUANTISED_BITS = {"fp8": 8, "fbgemm_fp8": 8}  # by quant_method, where the config doesn't say


def model_facts(source: Source, *, planning: bool = False) -> ModelFacts:
    """The facts of a model.

    Parameters are counted in the headers of its safetensors files. With `planning`, config.json alone will do where
    there are no weights or the Hub can't be reached; then the table of architectures gives the shapes.

    Raises:
        UsageError: config.json or the weight files can't be read or are absurd, or the weights aren't safetensors.
        EnvironmentLacksError: the weights are on the Hub, and it can't be reached.
    """
    config = read_json(source.folder / "config.json")
    drawn = blueprint(config, source.name)
    stored = _stored(source, planning=planning)
    quantised = _quantised(config, source.name)
    tied = _tied(stored, config) if stored else drawn.tied
    weights = _weights(stored, drawn, source.name, tied=tied, quantised=bool(quantised))
    parts = count_parts(weights)
    parameters = sum(weight.parameters for weight in weights)
    dtype = _dtype(stored, config, quantised=bool(quantised))
    sizes, known = drawn.sizes, find_known(source.name)
    facts = ModelFacts(
        name=source.name,
        location=source.location,
        revision=source.revision,
        architecture=_architecture(config),
        model_type=str(config.get("model_type", "unknown")),
        parameters=parameters,
        parts=parts,
        active=_active(parameters, parts, sizes.expert_count, sizes.expert_active),
        linears=linear_shapes(weights),
        fused=list(drawn.fused),
        experts=parts.experts > 0,
        expert_count=sizes.expert_count,
        expert_active=sizes.expert_active,
        layers=sizes.layers,
        hidden=sizes.hidden,
        intermediate=sizes.intermediate,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        vocabulary=sizes.vocabulary,
        context=sizes.context,
        window=sizes.window,
        windowed=sizes.windowed,
        attention_dropout=_attention_dropout(config, source.name),
        dtype=dtype,
        tied=tied,
        quantised=quantised,
        vision=drawn.vision,
        other_task=_other_task(config, source.name),
        has_template=known.has_template if known and source.as_of else _has_template(source.tokenizer_folder),
        stop_ids=stop_ids(source.folder),
        kind=known.kind if known else kind_of(source.name),
        gated=known.gated if known else None,
        licence=known.licence if known else "",
        bytes=sum(tensor.bytes for tensor in stored) or _bytes(weights, dtype, config, quantised),
        rough=not drawn.known or bool(sizes.missing),
        from_headers=bool(stored),
        missing=_missing(parts, drawn),
        origin="table" if source.as_of else "files",
        as_of=source.as_of,
        tokenizer=str(source.tokenizer or ""),
        earlier=list(source.earlier),
    )
    return widened(facts, source.embeddings)


def stop_ids(folder: Path) -> list[int]:
    """The tokens at which generation stops, by generation_config.json, or config.json where there is none.

    Raises:
        UsageError: the file can't be read.
    """
    files = [folder / name for name in ("generation_config.json", "config.json")]
    file = next((file for file in files if file.exists()), None)
    stops = read_json(file).get("eos_token_id") if file else None
    return [stop for stop in (stops if isinstance(stops, list) else [stops]) if isinstance(stop, int)]


def _stored(source: Source, *, planning: bool) -> list[Stored]:
    """The tensors of its files; none where a plan has to do without."""
    if planning and (source.as_of or lacks_weights(source)):
        return []
    try:
        stored = stored_tensors(source)
    except EnvironmentLacksError:
        if planning:
            return []
        raise
    if not stored:
        raise UsageError(f"{source.name} holds no weights.", why="Its files are empty.", fix="Save the model again.")
    return stored


def _weights(stored: Sequence[Stored], drawn: Blueprint, name: str, *, tied: bool, quantised: bool) -> Sequence[Weight]:
    """What the model's parameters are once loaded: as stored, or as the table draws them."""
    # Quantised files hold packed numbers, whose shapes aren't the weights'.
    if stored and not (quantised and drawn.weights):
        return [Weight(tensor.name, tensor.shape) for tensor in stored if not (tied and part_of(tensor.name) == "head")]
    if not drawn.weights:
        raise UsageError(
            f"config.json of {name} doesn't say {', '.join(drawn.sizes.missing)}.",
            why="Without weight files nothing else tells how large the model is.",
            fix="Download the model's own config.json again, or give a folder that holds the weights too.",
        )
    return drawn.weights


def _tied(stored: Sequence[Stored], config: Mapping[str, Any]) -> bool:
    """Whether the output head is the embedding: some models store it all the same, as Qwen3-0.6B does."""
    return config.get("tie_word_embeddings") is True or not any(part_of(tensor.name) == "head" for tensor in stored)


def _missing(parts: ParameterParts, drawn: Blueprint) -> int:
    """What the files lack, part by part: Transformers fills it with random numbers, and only warns."""
    if not drawn.known:
        return 0
    held = parts.model_dump()
    return sum(max(0, count - held[part]) for part, count in count_parts(drawn.weights).model_dump().items())


def _active(parameters: int, parts: ParameterParts, count: int, chosen: int) -> int:
    idle = parts.experts * (count - chosen) // count if 0 < chosen <= count else 0
    return parameters - idle


def _attention_dropout(values: Mapping[str, Any], name: str) -> float:
    """Under any of the names that architectures have for it."""
    text = Config(values, {}, name).part("text_config", {}).values
    whole = {**values, **text}
    silent = read_table("packing")["dropout"].get(Config(whole, {}, name).word("model_type"), 0.0)
    defaults = {"attention_dropout": silent}
    return Config(whole, defaults, name).share("attn_pdrop", "attention_probs_dropout_prob", "attention_dropout")


def _quantised(config: Mapping[str, Any], name: str) -> str:
    part = Config(config, {}, name).part("quantization_config", {})
    return part.word("quant_method", "quant_algo") or ("unknown" if part.values else "")


def _dtype(stored: Sequence[Stored], config: Mapping[str, Any], *, quantised: bool) -> str:
    """The dtype of most parameters; of quantised ones, that in which they compute."""
    if stored and not quantised:
        counts = Counter[str]()
        for tensor in stored:
            counts[tensor.dtype] += tensor.elements
        return _DTYPES.get(counts.most_common(1)[0][0], "other")
    whole = Config(config, {}, "")
    said = [place.word("dtype", "torch_dtype") for place in (whole, whole.part("text_config", {}))]
    return next((dtype for dtype in said if dtype in _BYTES), "float32")


def _bytes(weights: Sequence[Weight], dtype: str, config: Mapping[str, Any], quantised: str) -> int:
    """Size of the weight files by dtype and, of quantised ones, by the bits of their linear layers."""
    parameters = sum(weight.parameters for weight in weights)
    width = _BYTES[dtype]
    if not quantised:
        return parameters * width
    part = Config(config.get("quantization_config") or {}, {}, "")
    bits = part.number("bits") or _QUANTISED_BITS.get(quantised, 8 if part.flag("load_in_8bit") else 4)
    packed = sum(one.out_features * one.in_features * one.count for one in linear_shapes(weights))
    packed += count_parts(weights).experts
    return (parameters - packed) * width + packed * bits // 8


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "unknown"


def _other_task(values: Mapping[str, Any], name: str) -> str:
    """What a model was built for other than writing text from left to right; empty where nothing says so."""
    config, architecture = Config(values, {}, name), _architecture(values)
    many = any(key in values for key in ("text_config", "vision_config", "audio_config"))  # judged by its type (P041)
    if config.flag("is_encoder_decoder") or (architecture.endswith("ForConditionalGeneration") and not many):
        return "an encoder and a decoder"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")) or config.flag("is_decoder") or many:
        return ""
    head = re.search(r"For[A-Z]\w*$", architecture)
    if "bert" in config.word("model_type") or architecture.endswith("EncoderModel"):
        return "an encoder, which sees what follows a word as well"
    return f"made for another task ({architecture})" if head else ""


def _has_template(folder: Path) -> bool:
    tokenizer = folder / "tokenizer_config.json"
    if (folder / "chat_template.jinja").exists():
        return True
    return tokenizer.exists() and bool(read_json(tokenizer).get("chat_template"))
