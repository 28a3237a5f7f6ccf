"""The training step that a recipe comes to, and the largest one that a device's memory holds."""

from __future__ import annotations

from typing import Any, Literal

from ..recipe.schema import Recipe
from ..records import Hardware, ModelFacts
from .fit import largest_batch, need
from .memory import Step, estimate
from .memory.step import Dtype
from .rates import Kind

EFFECTIVE_BATCH = 16
"""Rows of an optimizer step."""
_TINY = 10_000_000


def step_of(recipe: Recipe, model: ModelFacts, hardware: Hardware, training: dict[str, Any], *, length: int) -> Step:
    """The step that trainer arguments make.

    Args:
        recipe: Says what is trained.
        model: The model.
        hardware: Where.
        training: The trainer's arguments, by the names of transformers.TrainingArguments and TRL's config classes;
            `dtype` is that of the loaded weights.
        length: Tokens of the longest row that the trainer sees.
    """
    rows, devices = training.get("per_device_train_batch_size", 1), devices_of(recipe, hardware)
    kind = recipe.adapter.kind
    return Step(
        model=model,
        method=recipe.method,
        adapter=kind,
        rank=recipe.adapter.r,
        targets=recipe.adapter.targets,
        dropout=recipe.adapter.dropout,
        dtype=training["dtype"],
        mixed=hardware.device == "cuda" and bool(training.get("bf16", hardware.bf16) or training.get("fp16")),
        optimizer=training.get("optim", "adamw_torch_fused"),
        rows=rows,
        length=length,
        padded=rows > 1,
        accumulate=training.get("gradient_accumulation_steps", 1) > 1,
        checkpointing=_checkpointing(training),
        fused_loss=training.get("loss_type") in (None, "nll"),
        devices=devices,
        sharding="none" if devices == 1 else "fsdp" if kind == "none" else "ddp",
        offload=False,
    )


def devices_of(recipe: Recipe, hardware: Hardware) -> int:
    """Devices that train together: one here, unless the recipe starts more processes; all of a rented machine."""
    here = recipe.launch.on == "local"
    return recipe.launch.processes if here or recipe.launch.processes > 1 else hardware.count


def _checkpointing(training: dict[str, Any]) -> Literal["off", "full", "selective", "offload"]:
    if training.get("activation_offloading"):
        return "offload"
    if not training.get("gradient_checkpointing"):
        return "off"
    selective = (training.get("gradient_checkpointing_kwargs") or {}).get("selective")
    return "selective" if selective else "full"


def micro_batch(step: Step, hardware: Hardware) -> tuple[int, bool, str]:
    """Rows of a micro-batch, whether to recompute activations, and why.

    On a GPU the most rows without recomputing that fit, else the most with it; 1 where not even that fits.
    """
    if hardware.device != "cuda" and step.model.parameters <= _TINY:
        return EFFECTIVE_BATCH, False, "a tiny model: overhead per step outweighs padding"
    if hardware.device != "cuda":
        return 1, False, "on a CPU single rows without padding are fastest"
    most = max(1, EFFECTIVE_BATCH // step.devices)
    for checkpointing in ("off", "full"):
        tried = step.model_copy(update={"checkpointing": checkpointing, "padded": True, "accumulate": True})
        rows = largest_batch(tried, hardware.memory, most=most)
        if rows:
            fitting = 1 << (rows.bit_length() - 1)
            return fitting, checkpointing == "full", f"the largest that fits with rows of {step.length:,} tokens"
    return 1, True, "the smallest; even that doesn't fit"


def fitting_kinds(step: Step, hardware: Hardware) -> dict[Kind, bool]:
    """What could be trained in the memory, a row at a time with recomputing; all weights in float32, as planned."""
    half: Dtype = "bfloat16" if hardware.bf16 else "float32"
    dtypes: dict[Kind, Dtype] = {"none": "float32", "lora": half, "qlora": half}
    least = {"rows": 1, "padded": False, "checkpointing": "full"}
    return {
        kind: need(estimate(step.model_copy(update={**least, "adapter": kind, "dtype": dtype}))) <= hardware.memory
        for kind, dtype in dtypes.items()
        if kind != "qlora" or hardware.device == "cuda"
    }
