"""What is trained: the arguments of the adapter, and the number of parameters."""

from __future__ import annotations

from typing import Any, Final

from ..models.lora import FEEDFORWARD, adapted_layers, target_names
from ..recipe.adapter import LOW_RANK, VIRTUAL, Adapter
from ..records import Finding, LinearShape, ModelFacts, PeftArguments
from ..rules import finding

_CONFIGS: Final = {
    "lora": "LoraConfig",
    "qlora": "LoraConfig",
    "prompt": "PromptTuningConfig",
    "prefix": "PrefixTuningConfig",
    "ia3": "IA3Config",
}
_SCORE = "score"  # the layer that makes the score in Transformers' sequence classifiers of decoders


def peft_arguments(adapter: Adapter, model: ModelFacts, method: str = "sft") -> PeftArguments | None:
    """The adapter as PEFT is told of it; None where all weights are trained."""
    if adapter.kind == "none":
        return None
    arguments: dict[str, Any] = {"task_type": "SEQ_CLS" if method == "reward" else "CAUSAL_LM"}
    if adapter.kind in LOW_RANK:
        arguments |= _low_rank(adapter)
    elif adapter.kind == "ia3":
        # PEFT 0.21 can't load what it saves for all-linear: it writes whole paths, and asks for them in both lists.
        targets = sorted({layer.name for layer in _plain(model, adapter)})
        arguments |= {"target_modules": targets, "feedforward_modules": _feedforward(model, adapter)}
    else:
        arguments["num_virtual_tokens"] = adapter.virtual_tokens
        if adapter.kind == "prompt":
            arguments["prompt_tuning_init"] = "SAMPLE_VOCAB"  # Lester et al. 2021, section 3.2: better than noise
    if model.tokens and adapter.kind in LOW_RANK:
        arguments["trainable_token_indices"] = sorted(model.tokens.values())
    if method == "reward" and adapter.kind not in VIRTUAL:
        arguments["modules_to_save"] = [_SCORE]
    if model.continues:
        earlier = model.earlier[-1]
        return PeftArguments(config=_CONFIGS[adapter.kind], arguments=earlier.settings, start=earlier.path)
    return PeftArguments(config=_CONFIGS[adapter.kind], arguments=arguments)


def _low_rank(adapter: Adapter) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "r": adapter.r,
        "lora_alpha": adapter.alpha or 2 * adapter.r,
        "lora_dropout": adapter.dropout,
        "target_modules": adapter.targets,
    }
    if adapter.dora:
        arguments["use_dora"] = True
    if adapter.rslora:
        arguments["use_rslora"] = True
    if adapter.init != "default":
        arguments["init_lora_weights"] = adapter.init
    return arguments


def _plain(model: ModelFacts, adapter: Adapter) -> list[LinearShape]:
    """The layers that IA3 scales: no experts that Transformers fused into one parameter."""
    return [layer for layer in adapted_layers(model, adapter.targets) if layer in model.linears]


def _feedforward(model: ModelFacts, adapter: Adapter) -> list[str]:
    """Of the layers that IA3 scales, those whose input it scales rather than their output (Liu et al. 2022)."""
    return sorted({layer.name for layer in _plain(model, adapter)}.intersection(FEEDFORWARD))


def quantization_arguments(adapter: Adapter, dtype: str) -> dict[str, Any] | None:
    """Arguments for transformers.BitsAndBytesConfig: NF4 with its scales quantised too (Dettmers et al. 2023)."""
    if adapter.kind != "qlora":
        return None
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }


def trained_parameters(model: ModelFacts, adapter: Adapter, method: str = "sft") -> int:
    """Number of trained parameters.

    All; or of each adapted layer r * (in + out) (LoRA, Hu et al. 2021), with DoRA also its out magnitudes (Liu et al.
    2024); a scale per output, or per input of the MLP's last layer (IA3, Liu et al. 2022); a virtual token's embedding
    (prompt tuning, Lester et al. 2021), or its key and value in every layer (prefix tuning, Li and Liang 2021). A
    reward model's score has a weight per hidden unit, and takes the place of the output head.
    """
    score = model.hidden if method == "reward" else 0
    if adapter.kind == "none":
        return model.parameters + (score - model.parts.head if score else 0)
    if model.continues:
        return model.earlier[-1].parameters
    return _adapter_parameters(model, adapter) + score


def _adapter_parameters(model: ModelFacts, adapter: Adapter) -> int:
    if adapter.kind == "prompt":
        return adapter.virtual_tokens * model.hidden
    if adapter.kind == "prefix":
        return adapter.virtual_tokens * model.layers * 2 * model.kv_heads * model.head_dim
    if adapter.kind == "ia3":
        inputs, plain = _feedforward(model, adapter), _plain(model, adapter)
        return sum((one.in_features if one.name in inputs else one.out_features) * one.count for one in plain)
    layers = adapted_layers(model, adapter.targets)
    magnitudes = sum(layer.out_features * layer.count for layer in layers) if adapter.dora else 0
    tokens = len(model.tokens) * model.hidden * (1 if model.tied else 2)
    return sum(adapter.r * (x.in_features + x.out_features) * x.count for x in layers) + magnitudes + tokens


def unknown_targets(model: ModelFacts, adapter: Adapter) -> list[Finding]:
    """P008 for each target of an adapter that names no linear layer."""
    if adapter.kind not in (*LOW_RANK, "ia3") or isinstance(adapter.targets, str):
        return []
    names = target_names(model)
    return [
        finding("P008", "adapter.targets", target=target, model=model.name, names=", ".join(names))
        for target in adapter.targets
        if target not in names
    ]
