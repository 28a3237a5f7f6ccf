"""From config.json to the sizes of a model and the shapes of its weights, by a table of architectures; no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..records import FusedShape
from .config import Config
from .table import read_table

_UNKNOWN_LIKE = "llama"  # most decoders are built like it


@dataclass(frozen=True)
class Weight:
    """A tensor of a model, or several of one name and shape.

    Attributes:
        name: As in the checkpoint; from the table, without the number of its layer.
        shape: Sizes; of a linear layer, out and in.
        count: How many layers have it.
    """

    name: str
    shape: tuple[int, ...]
    count: int = 1

    @property
    def parameters(self) -> int:
        """Number of parameters, over all layers."""
        return math.prod(self.shape) * self.count


@dataclass(frozen=True)
class Sizes:
    """The sizes of a text model; 0 where config.json is silent.

    Attributes:
        head_dim: Size of an attention head.
        context: Longest sequence, in tokens.
        window: Sliding attention window in tokens.
        windowed: Number of layers whose attention slides.
        sparse: Number of layers with experts.
        expert_active: Experts that one token uses.
        expert_intermediate: Width of an expert.
        shared_intermediate: Width of the shared expert.
    """

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    window: int
    windowed: int
    sparse: int
    expert_count: int
    expert_active: int
    expert_intermediate: int
    shared_intermediate: int

    @property
    def missing(self) -> list[str]:
        """The keys of config.json without which a model has no size."""
        needed = {
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate or self.sparse,
            "vocab_size": self.vocabulary,
        }
        return [key for key, value in needed.items() if not value]


@dataclass(frozen=True)
class Blueprint:
    """What config.json says of a model.

    Attributes:
        known: Whether the table has its architecture; else it is taken for one like Llama.
        vision: Whether it takes images.
        tied: Whether the output head is the embedding, by config.json or the architecture's default.
        sizes: Of its text model.
        weights: Every weight; none where sizes are missing. A tied output head is left out.
        fused: Routers and experts that PEFT adapts.
    """

    known: bool
    vision: bool
    tied: bool
    sizes: Sizes
    weights: tuple[Weight, ...]
    fused: tuple[FusedShape, ...]


def architectures() -> dict[str, dict[str, Any]]:
    """The table: `text` and `vision`, each by model_type."""
    return read_table("architectures")


def blueprint(values: Mapping[str, Any], model: str) -> Blueprint:
    """Read config.json's `values`; `model` is its name, for messages.

    Raises:
        UsageError: a value is absurd.
    """
    whole = Config(values, {}, model)
    tower = architectures()["vision"].get(whole.word("model_type"), {})
    whole = Config(values, tower.get("defaults", {}), model)
    text_type = whole.part("text_config", {}).word("model_type") or tower.get("text") or whole.word("model_type")
    row = architectures()["text"].get(text_type)
    defaults = (row or {}).get("defaults", {})
    text = Config({**values, **whole.part("text_config", {}).values}, defaults, model)
    if row is not None:
        _refuse_absurd(text)
    row = row or architectures()["text"][_UNKNOWN_LIKE]
    sizes = _sizes(text, row)
    vision = whole.says("vision_config")
    tied = (whole if tower or whole.says("tie_word_embeddings") else text).flag("tie_word_embeddings")
    found: list[Weight] = []
    if not sizes.missing:
        found = [weight for weight in _text(text, row, sizes) if not (tied and weight.name.startswith("lm_head."))]
        found += _vision(whole, tower, sizes) if vision and tower else []
    known = text_type in architectures()["text"] and (bool(tower) or not vision)
    known = known and all(weight.parameters for weight in found)  # a size of its parts may be missing, too
    return Blueprint(known, vision, tied, sizes, tuple(found), tuple(_fused(row, sizes)))


def _refuse_absurd(text: Config) -> None:
    """Refuse what the known architectures can't be built with; others may count in another way.

    Raises:
        UsageError: heads that can't share what there is, or no activation.
    """
    heads, groups = text.number("num_attention_heads"), text.number("num_key_value_heads")
    if heads and groups and heads % groups:
        raise text.absurd("num_key_value_heads", f"a divisor of num_attention_heads, {heads}")
    hidden = text.number("hidden_size")
    if heads and hidden % heads and not text.number("head_dim"):
        raise text.absurd("num_attention_heads", f"a divisor of hidden_size, {hidden}")
    if "hidden_act" in text.values and not text.word("hidden_act", "hidden_activation"):
        raise text.absurd("hidden_act", "the name of an activation, such as silu")
    if "max_position_embeddings" in text.values and not text.says("max_position_embeddings"):
        raise text.absurd("max_position_embeddings", "a number of tokens")


def _sizes(text: Config, row: Mapping[str, Any]) -> Sizes:
    layers = text.size("num_hidden_layers", "n_layer")
    heads = text.size("num_attention_heads", "n_head")
    hidden = text.size("hidden_size", "n_embd")
    context = text.number("max_position_embeddings", "n_positions")
    window, windowed = _window(text, row.get("slides"), layers, context)
    sparse = _sparse(text, row, layers)
    intermediate = text.number("intermediate_size", "n_inner")
    return Sizes(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        vocabulary=text.size("vocab_size"),
        heads=heads,
        kv_heads=text.number("num_key_value_heads") or heads,
        head_dim=text.number("head_dim") or (hidden // heads if heads else 0),
        context=context,
        window=window if windowed else 0,
        windowed=windowed,
        sparse=sparse,
        expert_count=text.number("num_local_experts", "num_experts", "n_routed_experts"),
        expert_active=text.number("num_experts_per_tok"),
        expert_intermediate=text.number(row.get("width", "intermediate_size")),
        shared_intermediate=text.number("shared_expert_intermediate_size"),
    )


def _window(text: Config, slides: Any, layers: int, context: int) -> tuple[int, int]:
    """The sliding window, and how many layers have one; a window as long as the context is none."""
    window = text.number("sliding_window")
    if not window or (context and window >= context):
        return 0, 0
    if text.says("layer_types"):
        return window, text.items("layer_types").count("sliding_attention")
    if slides == "all":
        return window, layers
    if slides == "switch":
        first = text.number("max_window_layers")
        return window, max(0, layers - first) if text.flag("use_sliding_window") else 0
    if slides is None:
        return 0, 0
    return window, layers - layers // (text.number("sliding_window_pattern") or slides)


def _sparse(text: Config, row: Mapping[str, Any], layers: int) -> int:
    """Number of layers with experts."""
    if "sparse" not in row:
        return 0
    if "dense" not in row:
        return layers
    plain, step = text.items("mlp_only_layers"), text.number("decoder_sparse_step") or 1
    return sum(layer not in plain and (layer + 1) % step == 0 for layer in range(layers))


def _text(text: Config, row: Mapping[str, Any], sizes: Sizes) -> Iterator[Weight]:
    symbols = {
        "h": sizes.hidden,
        "i": sizes.intermediate,
        "v": sizes.vocabulary,
        "d": sizes.head_dim,
        "q": sizes.heads * sizes.head_dim,
        "k": sizes.kv_heads * sizes.head_dim,
        "heads": sizes.heads,
        "e": sizes.expert_count,
        "m": sizes.expert_intermediate,
        "s": sizes.shared_intermediate,
    }
    counts = {"once": 1, "block": sizes.layers, "sparse": sizes.sparse, "dense": sizes.layers - sizes.sparse}
    for group, count in counts.items():
        yield from _group(row.get(group, {}), symbols, text, count)


def _fused(row: Mapping[str, Any], sizes: Sizes) -> Iterator[FusedShape]:
    """Each expert gets an adapter of its own; gate and up are fused, so that theirs has twice the rank."""
    hidden, width, experts = sizes.hidden, sizes.expert_intermediate, sizes.expert_count * sizes.sparse
    shapes = {
        "gate": (sizes.expert_count, hidden, sizes.sparse),
        "gate_up_proj": (2 * width, hidden, 2 * experts),
        "down_proj": (hidden, width, experts),
    }
    for name, targets in row.get("adapted", {}).items():
        rows, columns, count = shapes[name]
        if count:
            yield FusedShape(name=name, out_features=rows, in_features=columns, count=count, targets=targets)


def _vision(whole: Config, tower: Mapping[str, Any], sizes: Sizes) -> Iterator[Weight]:
    config = whole.part("vision_config", tower["defaults"])
    patch = config.number("patch_size")
    side = config.number("image_size") // patch if patch else 0
    merge = config.number("spatial_merge_size") if "depth" in tower["defaults"] else 0
    symbols = {
        "w": config.number("hidden_size"),
        "t": config.number("intermediate_size"),
        "c": config.number("num_channels", "in_channels"),
        "p": patch,
        "n": config.number("num_position_embeddings") or side**2,
        "g": (merge or whole.number("spatial_merge_size", "scale_factor")) ** 2,
        "o": sizes.hidden,
        "f": config.number("temporal_patch_size"),
    }
    layers = config.number("num_hidden_layers", "depth")
    counts = {"once": 1, "block": layers, "deep": len(config.items("deepstack_visual_indexes"))}
    if config.flag("vision_use_head"):
        counts["head"] = 1
    for group, count in counts.items():
        for weight in _group(tower.get(group, {}), symbols, whole, count):
            yield Weight(f"vision.{weight.name}", weight.shape, weight.count)


def _group(lines: Mapping[str, str], symbols: Mapping[str, int], config: Config, count: int) -> Iterator[Weight]:
    """The weights of some lines of the table, each `count` times."""
    if not count:
        return
    for name, line in lines.items():
        words = str(line).split()
        shape = tuple(_size(word, symbols) for word in words if word != "bare" and not word.startswith("+"))
        bare = "bare" in words
        yield Weight(name if bare else f"{name}.weight", shape, count)
        bias = next((word[1:] for word in words if word.startswith("+")), None)
        if bias == "bias" or (bias and config.flag(bias)):
            yield Weight(f"{name}.bias", shape[:1], count)


def _size(word: str, symbols: Mapping[str, int]) -> int:
    """A sum of products of symbols and numbers."""
    return sum(
        math.prod(symbols[factor] if factor in symbols else int(factor) for factor in term.split("*"))
        for term in word.split("+")
    )
