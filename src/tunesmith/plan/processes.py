"""The processes that train a run together: how many, what each of them holds, and what the trainer is told of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any, Final

from ..recipe.schema import Recipe
from ..records import Finding, Hardware, MemoryEstimate, ModelFacts, Processes, Sharding
from ..rules import finding
from ..words import counted
from .choices import Choices
from .fit import need

_PLACES: Final = {"cpu": "the CPU", "mps": "Apple's GPU"}
_SPREADING: Final = ("fsdp", "zero2", "zero3")
_SPREADS_WEIGHTS: Final = ("fsdp", "zero3")


def processes_of(recipe: Recipe, hardware: Hardware) -> Processes:
    """Those that the recipe asks for, as far as there are devices for them; all devices of a rented machine."""
    launch = recipe.launch
    whole = launch.on != "local" and launch.processes == 1
    count = hardware.count if whole else min(launch.processes, _most(hardware))
    total = count * launch.nodes
    return Processes(count=count, nodes=launch.nodes, sharding=_sharding(recipe, hardware, total))


def _most(hardware: Hardware) -> int:
    """Processes that the machine has room for: one per device, and on a CPU one per core."""
    return hardware.cores if hardware.device == "cpu" else hardware.count


def _sharding(recipe: Recipe, hardware: Hardware, total: int) -> Sharding:
    if total == 1:
        return "none"
    if recipe.launch.sharding != "auto":
        return recipe.launch.sharding
    return "fsdp" if recipe.adapter.kind == "none" and hardware.device == "cuda" else "ddp"


def choose_processes(choices: Choices, recipe: Recipe, model: ModelFacts, hardware: Hardware) -> None:
    """The trainer's arguments that say how the processes share the work."""
    processes = processes_of(recipe, hardware)
    if processes.sharding == "ddp":
        # Experts that a batch doesn't reach have no gradient in that step.
        unused = bool(model.experts)
        why = "experts without a row in a step" if unused else "every trained weight takes part in each step"
        choices.choose("ddp_find_unused_parameters", unused, why)
    elif processes.sharding == "fsdp":
        spread = f"weights, gradients and optimizer spread over {processes.total} processes (FSDP2)"
        choices.choose("fsdp", True, spread)
        choices.choose("fsdp_config", _FSDP, "a block is gathered while it computes; each process saves its share")
    elif processes.sharding != "none":
        stage = int(processes.sharding[-1])
        what = "weights, gradients and optimizer" if stage == 3 else "gradients and optimizer"
        why = f"{what} spread over {processes.total} processes (DeepSpeed ZeRO {stage})"
        choices.choose("deepspeed", _zero(stage), why)


# Names of transformers.TrainingArguments.fsdp_config. Checkpoints are sharded, so that no process holds the whole
# optimizer; the result is put together at the end.
_FSDP: Final = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "reshard_after_forward": True,
    "state_dict_type": "SHARDED_STATE_DICT",
}


def _zero(stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration; Transformers fills in what is `auto` from the trainer's arguments."""
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
    }


def check_processes(recipe: Recipe, hardware: Hardware, memory: MemoryEstimate) -> Iterator[Finding]:
    """P037 and P070 to P074; P027 for a way to share work that nobody shares."""
    launch, processes = recipe.launch, processes_of(recipe, hardware)
    place = hardware.machine or f"this machine ({hardware.name})"
    if launch.nodes > 1 and launch.on != "local":
        yield finding("P074", "launch.nodes", nodes=launch.nodes, place=launch.on)
    if launch.processes > (most := _most(hardware)):
        devices = counted(most, "core" if hardware.device == "cpu" else "device")
        asked = launch.processes
        yield finding("P037", "launch.processes", processes=asked, machine=place, devices=devices, most=most)
    if processes.total > 1:
        yield from _check_sharding(recipe, hardware, processes.sharding)
        yield from _check_main_memory(hardware, processes, need(memory))
    elif launch.sharding != "auto":
        remedy = "Leave it out, or set `launch: {processes: 2}` or more"
        reason = "one process has nobody to share its work with"
        yield finding("P027", "launch.sharding", keys="launch.sharding", reason=reason, remedy=remedy)


def _check_sharding(recipe: Recipe, hardware: Hardware, sharding: Sharding) -> Iterator[Finding]:
    if sharding in _SPREADING and hardware.device != "cuda":
        yield finding("P070", "launch.sharding", sharding=sharding, device=_PLACES[hardware.device])
    elif sharding in ("zero2", "zero3") and importlib.util.find_spec("deepspeed") is None:
        yield finding("P071", "launch.sharding", sharding=sharding)
    if sharding in _SPREADS_WEIGHTS and recipe.adapter.kind == "qlora":
        yield finding("P073", "launch.sharding", sharding=sharding)


def _check_main_memory(hardware: Hardware, processes: Processes, each: int) -> Iterator[Finding]:
    if hardware.device == "cpu" and each <= hardware.memory < each * processes.count:
        yield finding(
            "P072",
            "launch.processes",
            processes=processes.count,
            need=f"{each * processes.count / 1e9:.1f} GB",
            have=f"{hardware.memory / 1e9:.1f} GB",
            most=max(1, hardware.memory // each),
        )
