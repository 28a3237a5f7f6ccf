"""Which layers of a model LoRA adapts, as the installed PEFT finds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..records import LinearShape, ModelFacts

FEEDFORWARD = ("down_proj", "fc2", "w2", "dense_4h_to_h", "fc_out")
"""Names of the layer that ends an MLP, by architecture."""

Targets = Literal["all-linear"] | Sequence[str]


def adapted_layers(model: ModelFacts, targets: Targets) -> list[LinearShape]:
    """The layers that get an adapter: r * (in_features + out_features) * count parameters each (Hu et al. 2021).

    In some mixtures of experts the names of dense layers stand for the routers and fused experts alone.
    """
    taken = {name for fused in model.fused for name in fused.targets}
    linears = [linear for linear in model.linears if linear.name not in taken]
    if targets == "all-linear":
        return [*linears, *model.fused]
    return [linear for linear in linears if linear.name in targets] + [
        fused for fused in model.fused if any(name in targets for name in fused.targets)
    ]


def target_names(model: ModelFacts) -> list[str]:
    """Every name that a LoRA target of this model can have, sorted."""
    return sorted({linear.name for linear in model.linears} | {name for one in model.fused for name in one.targets})


def halved_targets(model: ModelFacts, targets: Targets) -> list[tuple[str, str]]:
    """Targets that PEFT refuses without another, since both are fused into one parameter: (given, missing)."""
    return [
        (given, missing)
        for fused in model.fused
        for given in fused.targets
        for missing in fused.targets
        if targets != "all-linear" and given in targets and missing not in targets
    ]
