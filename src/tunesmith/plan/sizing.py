"""The training step that a recipe comes to, and the largest one that a device's memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from ..recipe.schema import Recipe
from ..records import Finding, Hardware, ModelFacts
from ..rules import finding
from ..words import counted
from .fit import need
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
    here, processes = recipe.launch.on == "local", recipe.launch.processes
    return min(processes, hardware.count) if here or processes > 1 else hardware.count


def check_processes(recipe: Recipe, hardware: Hardware) -> Iterator[Finding]:
    """P037 where the recipe starts more processes than there are devices."""
    if recipe.launch.processes > hardware.count:
        yield finding(
            "P037",
            "launch.processes",
            processes=recipe.launch.processes,
            machine=hardware.machine or f"this machine ({hardware.name})",
            devices=counted(hardware.count, "device"),
            most=hardware.count,
        )


def _checkpointing(training: dict[str, Any]) -> Literal["off", "full", "selective", "offload"]:
    if training.get("activation_offloading"):
        return "offload"
    if not training.get("gradient_checkpointing"):
        return "off"
    selective = (training.get("gradient_checkpointing_kwargs") or {}).get("selective")
    return "selective" if selective else "full"


class Sizing(NamedTuple):
    """Rows of a micro-batch and whether activations are recomputed, each with its reason."""

    rows: int
    why_rows: str
    recomputes: bool
    why_recomputes: str


def micro_batch(step: Step, hardware: Hardware, given: Mapping[str, Any] | None = None) -> Sizing:
    """The most rows without recomputing that fit, else the most with it; the smallest where not even these fit.

    On a CPU a row at a time, but of tiny models an update at once. `given` are the trainer's arguments that the recipe
    sets: what it says of rows or recomputing stays, and the other is decided for it.
    """
    given = given or {}
    most, why = _most_rows(step, hardware)
    rows_given = given.get("per_device_train_batch_size")
    sizes = [rows_given] if rows_given else [1 << power for power in reversed(range(most.bit_length()))]
    ways = _ways(given)
    for recomputes in ways:
        for rows in sizes:
            if need(estimate(_sized(step, rows, given, recomputes=recomputes))) <= hardware.memory:
                reason = why if rows == most else ""
                reason = reason or f"the largest that fits with rows of {step.length:,} tokens"
                return Sizing(rows, reason, recomputes, _why_recomputing(recomputes, given))
    return Sizing(
        sizes[-1], "the smallest; even that doesn't fit", ways[-1], "it needs the least; even so the step doesn't fit"
    )


def _most_rows(step: Step, hardware: Hardware) -> tuple[int, str]:
    """The most rows that are worth trying, and why where it isn't memory that decides."""
    update = max(1, EFFECTIVE_BATCH // step.devices)
    if hardware.device == "cuda":
        return update, ""
    if step.model.parameters <= _TINY:
        return update, "a tiny model: overhead per step outweighs padding"
    return 1, "on a CPU single rows without padding are fastest"


def _ways(given: Mapping[str, Any]) -> list[bool]:
    """Whether to recompute activations: both are tried, unless the recipe has decided."""
    wished = given.get("gradient_checkpointing")
    if wished is not None:
        return [bool(wished)]
    return [True] if given.get("activation_offloading") else [False, True]


def _why_recomputing(recomputes: bool, given: Mapping[str, Any]) -> str:
    if not recomputes:
        return "activations fit; recomputing costs a quarter"
    if given.get("activation_offloading"):
        return "activation_offloading moves the blocks' inputs; what follows from these is recomputed"
    return "activations don't fit in memory otherwise"


def _sized(step: Step, rows: int, given: Mapping[str, Any], *, recomputes: bool) -> Step:
    accumulation = given.get("gradient_accumulation_steps") or EFFECTIVE_BATCH // (rows * step.devices)
    return step.model_copy(
        update={
            "rows": rows,
            "padded": rows > 1,
            "accumulate": accumulation > 1,
            "checkpointing": _checkpointing({**given, "gradient_checkpointing": recomputes}),
        }
    )


def fitting_kinds(step: Step, hardware: Hardware) -> dict[Kind, bool]:
    """What could be trained on the device, a row at a time with recomputing; all weights in float32, as planned.

    4 bits need a GPU (bitsandbytes).
    """
    half: Dtype = "bfloat16" if hardware.bf16 else "float32"
    dtypes: dict[Kind, Dtype] = {"none": "float32", "lora": half, "qlora": half}
    least = {"rows": 1, "padded": False, "checkpointing": "full"}
    return {
        kind: (kind != "qlora" or hardware.device == "cuda")
        and need(estimate(step.model_copy(update={**least, "adapter": kind, "dtype": dtype}))) <= hardware.memory
        for kind, dtype in dtypes.items()
    }
