"""The model of a config.json without its weights, and its adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import UsageError
from .quantised import quantise
from .request import Request, first_line

CPU = "cpu"


def build_model(folder: Path, request: Request) -> Any:
    """The model that is trained, on device meta, quantised where asked.

    Raises:
        UsageError: the config is no model's.
    """
    model = build_base(folder, request)
    if request.adapter == "qlora":
        quantise(model, double=request.double_quant)
        if request.upcast:
            from peft import prepare_model_for_kbit_training

            prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return model


def build_base(folder: Path, request: Request) -> Any:
    """The model of `folder`/config.json on device meta; code from the folder is never run.

    Raises:
        UsageError: the config is no model's.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(str(folder))
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # the weights' format; what is trained is in the request
        text = type(config) in AutoModelForCausalLM._model_mapping
        maker = AutoModelForCausalLM if text else AutoModelForImageTextToText
        # None is sdpa, or eager where the architecture has no other; flash takes what sdpa's flash kernel takes.
        attention = "eager" if request.attention == "eager" else None
        with torch.device("meta"):
            return maker.from_config(config, dtype=getattr(torch, request.dtype), attn_implementation=attention)
    except Exception as error:
        # Every architecture has checks of its own, and raises what it likes.
        raise UsageError(
            "Transformers can't build this model from its config.json.",
            why=f"{type(error).__name__}: {first_line(error)}",
            fix="Check its model_type and sizes; a newer architecture needs a newer Transformers.",
        ) from error


def adapter_config(request: Request) -> Any:
    """What PEFT is to add to the model, None for nothing."""
    if request.adapter == "none":
        return None
    from peft import LoraConfig

    targets = request.targets if isinstance(request.targets, str) else list(request.targets)
    return LoraConfig(
        r=request.rank,
        lora_alpha=2 * request.rank,
        lora_dropout=request.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def materialise(model: nn.Module) -> None:
    """Give every parameter and buffer a storage; to be called under fake tensors. Tied ones stay tied."""
    made: dict[int, Any] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=CPU)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        return made[id(tensor)]

    for module in model.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is not None:
                    kept[name] = fake(tensor)


def convert(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """`module.to(...)` for fake parameters, which can't be swapped as torch would: they change dtype, never device."""
    _, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if (
                parameter is not None
                and dtype is not None
                and parameter.is_floating_point()
                and parameter.dtype != dtype
            ):
                part._parameters[name] = nn.Parameter(parameter.detach().to(dtype), parameter.requires_grad)
    return module
