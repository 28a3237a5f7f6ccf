"""What the weights of a model do, by their names: parameters by part, and the linear layers that LoRA can target."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from ..records import LinearShape, ParameterParts
from .architectures import Weight

# The first pattern found in a name tells what the weight is part of.
_PARTS = {
    "vision": r"(^|\.)(vision\w*|visual|multi_modal_projector|connector|image_newline)\.",
    "norm": r"norm|(^|\.)ln_",
    "experts": r"(^|\.)(experts|block_sparse_moe\.(in|out)put_linear)\.",
    "router": r"(^|\.)(mlp|block_sparse_moe|feed_forward)\.(gate|router)\.",
    "head": r"(^|\.)(lm_head|embed_out)\.",
    "embedding": r"embed|(^|\.)w[tp]e\.",
    "attention": r"attn|attention",
    "mlp": r"mlp|feed_forward|ffn",
}
_WITHOUT_LINEARS = {"norm", "experts", "router", "head", "embedding"}  # routers and experts are bare parameters by now
_NOT_LINEAR = re.compile(r"embed|norm")  # within a vision tower


def part_of(name: str) -> str:
    """The field of ParameterParts that a weight of this name belongs to."""
    return next((part for part, pattern in _PARTS.items() if re.search(pattern, name)), "other")


def count_parts(weights: Iterable[Weight]) -> ParameterParts:
    """Parameters by what they do."""
    counts = Counter[str]()
    for weight in weights:
        counts[part_of(weight.name)] += weight.parameters
    return ParameterParts(**counts)


def linear_shapes(weights: Iterable[Weight]) -> list[LinearShape]:
    """The linear layers that PEFT finds, by name and shape, in the order in which they come."""
    counts = Counter[tuple[str, int, int, bool]]()
    for weight in weights:
        layer, _, kind = weight.name.rpartition(".")
        part = part_of(weight.name)
        if kind != "weight" or len(weight.shape) != 2 or part in _WITHOUT_LINEARS or _NOT_LINEAR.search(layer):
            continue
        counts[layer.rpartition(".")[2], *weight.shape, part == "vision"] += weight.count
    return [
        LinearShape(name=name, out_features=rows, in_features=columns, count=count, vision=vision)
        for (name, rows, columns, vision), count in counts.items()
    ]
