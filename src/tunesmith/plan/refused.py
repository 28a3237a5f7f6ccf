"""What TRL's trainers refuse or leave out of account, said before a model is loaded rather than after."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..recipe import Recipe
from ..records import Finding, Plan
from ..rules import finding

_SFT_LOSSES: Final = ("nll", "dft", "chunked_nll")
LOSSES: Final = {
    "sft": _SFT_LOSSES,
    "clm": _SFT_LOSSES,
    "kto": ("kto", "apo_zero_unpaired"),
    "dpo": (
        "sigmoid",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sft",
        "sigmoid_norm",
    ),
}
"""Method -> what loss_type can be; TRL 1.16 refuses anything else after the model is loaded, dpo at the first step."""
_OF_DIFFERENCES: Final = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
_SMOOTHED: Final = {"robust", "exo_pair", "aot", "aot_unpaired"}
_TURNS_DROPOUT_OFF: Final = ("dpo", "kto", "reward")
_CLASSES: Final = "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"


def check_refused(plan: Plan, recipe: Recipe) -> Iterator[Finding]:
    """P046 to P049."""
    training = plan.training
    for name, reason, remedy in _refused(plan.method, training, recipe):
        yield finding("P046", f"training.{name}", name=name, value=_value(training, name), reason=reason, remedy=remedy)
    if plan.method == "reward" and plan.model.model_type not in scored_types():
        yield finding("P047", "model", model=plan.model.name, model_type=plan.model.model_type)
    if plan.method in _TURNS_DROPOUT_OFF and recipe.adapter.dropout and training.get("disable_dropout", True):
        yield finding("P048", "adapter.dropout", dropout=recipe.adapter.dropout, method=plan.method)
    if training.get("loss_type") == "dft" and plan.model.kind == "base":
        yield finding("P049", "training.loss_type", model=plan.model.name)


def _value(training: dict[str, Any], name: str) -> Any:
    value = training.get(name)
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _refused(method: str, training: dict[str, Any], recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """An argument, why the trainer refuses its value, and what to do."""
    losses = _losses(training)
    if unknown := losses - set(LOSSES.get(method, losses)):
        yield "loss_type", f"TRL has no {', '.join(sorted(unknown))}", f"Choose among {', '.join(LOSSES[method])}"
    if method == "dpo":
        yield from _of_pairs(training, losses)
    elif method == "kto":
        yield from _neighbours(training)
    if method in ("dpo", "kto") and training.get("sync_ref_model"):
        if recipe.adapter.kind != "none":
            yield "sync_ref_model", "the base under an adapter is the reference, and stays as it is", "Leave it out"
        elif training.get("precompute_ref_log_probs"):
            remedy = "Set `precompute_ref_log_probs: false` beside it"
            yield "sync_ref_model", "the reference speaks before training only", remedy


def _losses(training: dict[str, Any]) -> set[str]:
    given = training.get("loss_type") or []
    return {given} if isinstance(given, str) else set(given)


def _of_pairs(training: dict[str, Any], losses: set[str]) -> Iterator[tuple[str, str, str]]:
    smoothing = training.get("label_smoothing") or 0.0
    if "exo_pair" in losses and not smoothing:
        yield "loss_type", "exo_pair needs a label_smoothing above 0", "Set `label_smoothing: 0.001` beside it"
    if "robust" in losses and smoothing >= 0.5:
        yield "label_smoothing", "robust divides by 1 - 2 label_smoothing", "Set it below 0.5; 0.1 is usual"
    if smoothing and not losses & _SMOOTHED:
        yield "label_smoothing", f"only {', '.join(sorted(_SMOOTHED))} use it", "Leave it out, or take one of these"
    if training.get("use_weighting") and losses & {"aot", "aot_unpaired"}:
        yield "use_weighting", "aot sorts the pairs, and weights would go to others", "Leave it out"
    if training.get("padding_free"):
        yield "padding_free", "TRL 1.16 switches it off and fills rows up after all", "Leave it out"
    rest = (losses & set(LOSSES["dpo"])) - _OF_DIFFERENCES
    if rest and training.get("f_divergence_type", "reverse_kl") != "reverse_kl":
        yield "f_divergence_type", f"it isn't defined for {', '.join(sorted(rest))}", "Leave it out"


def _neighbours(training: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if training.get("loss_type", "kto") != "kto":
        return
    why = "kto pairs each prompt with its neighbour's answer to see how far the model has gone from its reference"
    if training["per_device_train_batch_size"] < 2:
        yield "per_device_train_batch_size", why, "Set it to 2 or more, or take `loss_type: apo_zero_unpaired`"
    if training.get("train_sampling_strategy", "sequential") != "sequential":
        yield "train_sampling_strategy", why, "Leave it out: the rows are shuffled once, before training"


@functools.cache
def scored_types() -> frozenset[str]:
    """The model types that Transformers can give a head with a score, from its source: importing it imports torch."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None  # a dependency
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
    calls = [node for node in ast.parse(source).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    for node in calls:
        name = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if ast.unparse(name) == _CLASSES and isinstance(node.value, ast.Call):
            return frozenset(kind for kind, _ in ast.literal_eval(node.value.args[0]))
    return frozenset()
