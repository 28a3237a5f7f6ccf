"""The training step that a recipe comes to, and the largest one that a device's memory holds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from ..recipe.schema import Recipe
from ..records import VARLEN, Hardware, ModelFacts
from .documents import Documents
from .fit import need
from .memory import Step, estimate
from .memory.step import Checkpointing, Dtype
from .methods import REFERENCED, effective_batch
from .processes import processes_of
from .rates import Kind
from .rows import GENERATING, Rows

_TINY = 10_000_000
# Tokens of padding in a row, times parameters, that cost a CPU as much as one more forward and backward pass: 3 ms and
# 0.1 ms per token at 0.43M parameters.
_PADDING = 13_000_000
_SMALL = 100_000_000  # parameters up to which the start of a pass shows beside rows that lie end to end


def step_of(recipe: Recipe, model: ModelFacts, hardware: Hardware, training: dict[str, Any], *, length: int) -> Step:
    """The step that trainer arguments make.

    Args:
        recipe: Says what is trained.
        model: The model.
        hardware: Where.
        training: The trainer's arguments, by the names of transformers.TrainingArguments and TRL's config classes;
            `dtype` is that of the loaded weights, and `attention` the one that the plan chose.
        length: Tokens of the longest row that the trainer sees.
    """
    rows, devices = training.get("per_device_train_batch_size", 1), devices_of(recipe, hardware)
    kind = recipe.adapter.kind
    return Step(
        model=model,
        method=recipe.method,
        adapter=kind,
        rank=recipe.adapter.r,
        virtual=recipe.adapter.virtual_tokens,
        dora=recipe.adapter.dora,
        targets=recipe.adapter.targets,
        dropout=recipe.adapter.dropout,
        dtype=training["dtype"],
        mixed=hardware.device == "cuda" and bool(training.get("bf16", hardware.bf16) or training.get("fp16")),
        optimizer=training.get("optim", "adamw_torch_fused"),
        rows=rows,
        length=length,
        padded=rows > 1 and not is_flat(recipe.method, training),
        attention=_attention(str(training.get("attention", "")), hardware),
        accumulate=training.get("gradient_accumulation_steps", 1) > 1,
        checkpointing=_checkpointing(training),
        fused_loss=recipe.method != "sft" or training.get("loss_type") in (None, "nll"),
        devices=devices,
        sharding=processes_of(recipe, hardware).sharding,
        offload=False,
        reference=_reference(recipe, training),
        generate=_generation(training, length),
    )


def is_flat(method: str, training: Mapping[str, Any]) -> bool:
    """Whether the rows of a batch lie end to end; dpo's padding_free is without effect in TRL 1.16."""
    return method in ("sft", "clm") and bool(training.get("packing") or training.get("padding_free"))


def longest_seen(rows: Rows, training: Mapping[str, Any]) -> int:
    """Tokens of the longest sequence that the trainer sees."""
    longest = max(rows.by_length, default=1)
    limit = training.get("max_length")
    if training.get("packing") and limit:
        return int(limit)
    return min(longest + (training.get("max_completion_length") or 0), limit or sys.maxsize)


def _attention(name: str, hardware: Hardware) -> Literal["eager", "sdpa", "flash"]:
    """The attention as memory and time depend on it; on a CPU ours is SDPA, row by row."""
    if name == "eager":
        return "eager"
    return "flash" if hardware.device == "cuda" and (name == VARLEN or name.startswith("flash")) else "sdpa"


def _reference(recipe: Recipe, training: dict[str, Any]) -> Literal["none", "model", "precomputed"]:
    if recipe.method not in REFERENCED and not (recipe.method in GENERATING and training.get("beta")):
        return "none"
    return "precomputed" if training.get("precompute_ref_log_probs") else "model"


def _generation(training: dict[str, Any], length: int) -> tuple[int, int, int] | None:
    """Rows that are generated at once for an update, tokens of the longest prompt, and new tokens at most."""
    new = training.get("max_completion_length")
    if not new:
        return None
    update = training.get("per_device_train_batch_size", 1) * training.get("gradient_accumulation_steps", 1)
    return max(update, training.get("num_generations", 1)), max(1, length - new), new


def devices_of(recipe: Recipe, hardware: Hardware) -> int:
    """Devices that train together: one here, unless the recipe starts more processes; all of a rented machine."""
    return processes_of(recipe, hardware).total


def _checkpointing(training: Mapping[str, Any]) -> Checkpointing:
    if training.get("activation_offloading"):
        return "offload"
    if not training.get("gradient_checkpointing"):
        return "off"
    selective = (training.get("gradient_checkpointing_kwargs") or {}).get("selective")
    return "selective" if selective else "full"


class Sizing(NamedTuple):
    """Rows of a micro-batch and how activations are recomputed, each with its reason."""

    rows: int
    why_rows: str
    how: Checkpointing
    why_recomputes: str


def micro_batch(
    step: Step,
    hardware: Hardware,
    given: Mapping[str, Any] | None = None,
    *,
    flat: bool = False,
    documents: Documents | None = None,
    update: int | None = None,
) -> Sizing:
    """The most rows without recomputing that fit, else the most with some of it; the smallest where none fit.

    On a CPU a row at a time, but of small models as many as their padding allows.

    Args:
        step: The step; its rows and recomputing are what is looked for.
        hardware: Where.
        given: The trainer's arguments that the recipe sets: what it says of rows or recomputing stays, and the other is
            decided for it.
        flat: The rows of a batch lie end to end, without padding.
        documents: Lengths of the rows, where they are known.
        update: Rows of an optimizer step, over all devices; by default the usual number for the method.
    """
    given = given or {}
    update = update or effective_batch(step.method)
    most, why = _most_rows(step, hardware, max(1, update // step.devices), documents, flat=flat)
    rows_given = given.get("per_device_train_batch_size")
    least = 2 if step.method == "kto" else 1
    sizes = [1 << power for power in reversed(range(most.bit_length())) if 1 << power >= least]
    sizes = [rows_given] if rows_given else sizes
    ways = _ways(step, hardware, given)
    for how in ways:
        for rows in sizes:
            accumulation = given.get("gradient_accumulation_steps") or update // (rows * step.devices)
            sized = {"rows": rows, "padded": rows > 1 and not flat, "accumulate": accumulation > 1}
            if need(estimate(step.model_copy(update={**sized, "checkpointing": how}))) <= hardware.memory:
                reason = why if rows == most else ""
                reason = reason or f"the largest that fits with rows of {step.length:,} tokens"
                return Sizing(rows, reason, how, _why_recomputing(how, given))
    return Sizing(
        sizes[-1], "the smallest; even that doesn't fit", ways[-1], "it needs the least; even so the step doesn't fit"
    )


def _most_rows(
    step: Step, hardware: Hardware, update: int, documents: Documents | None, *, flat: bool
) -> tuple[int, str]:
    """The most rows that are worth trying, and why where it isn't memory that decides."""
    if hardware.device == "cuda":
        return update, ""
    if flat and step.model.parameters <= _SMALL:
        return update, "a whole update at once: rows lie end to end, and a pass is started once"
    padding = _padding(documents, update) if documents else 0.0
    if not flat and step.model.parameters <= _TINY and padding * step.model.parameters <= _PADDING:
        return update, "a tiny model: overhead per step outweighs padding"
    if step.method == "kto":
        return 2, "kto compares each row with another of its batch"
    return 1, "on a CPU single rows without padding are fastest"


def _padding(documents: Documents, rows: int) -> float:
    """Tokens of padding in each row of a batch, in the mean."""
    return sum(length * share for length, share in documents.longest_of(rows)) - documents.mean


def _ways(step: Step, hardware: Hardware, given: Mapping[str, Any]) -> list[Checkpointing]:
    """How to recompute activations, what costs least first, unless the recipe has decided.

    Only TRL's SFTTrainer knows selective, and PEFT's wrapper refuses it.
    """
    wished, offloads = given.get("gradient_checkpointing"), given.get("activation_offloading")
    if wished is not None or offloads:
        return [_checkpointing({**given, "gradient_checkpointing": bool(wished)})]
    selective = step.trained and step.method in ("sft", "clm") and step.sharding in ("none", "ddp")
    ways: list[Checkpointing] = ["off", "selective", "full", "offload"]
    return [
        way for way in ways if (way != "selective" or selective) and (way != "offload" or hardware.device == "cuda")
    ]


def _why_recomputing(how: Checkpointing, given: Mapping[str, Any]) -> str:
    if how == "off":
        return "activations fit; recomputing costs a quarter"
    if given.get("activation_offloading"):
        return "activation_offloading moves the blocks' inputs; what follows from these is recomputed"
    return "activations don't fit in memory otherwise"


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
