"""Machines against ways to train: what fits, how fast, for how much; and the one to take, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..records import MemoryEstimate
from ..records.cost import MachineOption, TimeEstimate
from .cost import estimate_cost
from .documents import Documents, worth_grouping
from .fit import need
from .machines import Device, Machine, hardware_of
from .memory import estimate
from .sizing import micro_batch
from .time import Schedule, estimate_time

if TYPE_CHECKING:
    from .memory.step import Dtype, Step

ADAPTERS = ("none", "lora", "qlora")
_TIE = 1.05  # options whose likely cost differs by less are alike: then the faster one is better
_PATIENCE = 24.0  # hours; a run that takes longer is recommended only when nothing is faster
_HOUR = 3600
_MARGIN = 0.95  # of the memory
_ROUNDED = "weights in bf16: at small learning rates most updates are lost in rounding (P010)"

Lacks = Callable[["Step", MemoryEstimate, Machine], str]
"""What of a machine, beside its devices' memory, doesn't take a run of this step; "" where all does."""


def compare(
    step: Step,
    documents: Documents,
    schedule: Schedule,
    machines: Iterable[Machine],
    *,
    given: Mapping[str, Any] | None = None,
    lacks: Lacks | None = None,
    adapters: Iterable[str] = ADAPTERS,
) -> list[MachineOption]:
    """Each machine with full fine-tuning, LoRA and QLoRA, in the machines' order.

    The rows per update stay as `step` and `schedule` have them. The micro-batch, recomputing and grouping are what a
    plan for that machine has; `given` are the trainer's arguments that the recipe sets.
    """
    wanted, given = list(adapters), given or {}
    return [
        _option(_settled(step, documents, schedule, machine, adapter, given), machine, lacks)
        for machine in machines
        for adapter in wanted
        if adapter != "qlora" or machine.device.memory  # bitsandbytes' kernels want a GPU
    ]


def recommend(options: Iterable[MachineOption], adapter: str | None = None) -> tuple[MachineOption | None, str]:
    """The option to take, and why: the cheapest likely total among those that take the run; of equal ones the faster.

    `adapter` narrows the choice to one way of training. Machines without a price are one's own, and aren't compared.
    """
    wanted = (one for one in options if adapter in (None, one.adapter))
    fitting = [one for one in wanted if one.fits and not one.lacks and one.dollars and one.hours]
    fitting = [one for one in fitting if not (_rounds(one) or _spreads(one))] or fitting
    fitting = [one for one in fitting if not is_tight(one)] or fitting
    if not fitting:
        return None, "none of the machines with a price has the memory and the disk for it"
    quick = [one for one in fitting if _hours(one) <= _PATIENCE]
    left = quick or fitting
    cheapest = min(_dollars(one) for one in left)
    best = min((one for one in left if _dollars(one) <= cheapest * _TIE), key=_hours)
    over = f" and end within {_PATIENCE:.0f} hours" if quick and len(quick) < len(fitting) else ""
    alike = "; of those within 5% of it, the fastest" if _dollars(best) > cheapest else ""
    noted = f" ({best.note})" if best.note else ""
    return best, (
        f"the lowest likely cost, ${_dollars(best):.2f} for {_hours(best):.1f} hours, "
        f"of the {len(left)} options that fit{over}{alike}{noted}"
    )


def cheaper(option: MachineOption | None, others: Iterable[MachineOption], adapter: str) -> MachineOption | None:
    """What to take of `others` when that is likely cheaper than the option."""
    other, _ = recommend(others, adapter)
    return other if other and (option is None or _dollars(option) > _TIE * _dollars(other)) else None


def is_tight(option: MachineOption) -> bool:
    """Whether the step takes nearly all of the memory: the estimate may be too low."""
    return option.peak > _MARGIN * option.memory


def _rounds(option: MachineOption) -> bool:
    """Whether all weights are trained in bf16, where most small updates are lost."""
    return option.adapter == "none" and option.dtype == "bfloat16"


def _spreads(option: MachineOption) -> bool:
    """Whether it fits only with FSDP, which a plan takes by itself for full fine-tuning alone."""
    return option.adapter != "none" and option.sharding == "fsdp"


def _dollars(option: MachineOption) -> float:
    return option.dollars.likely if option.dollars else float("inf")


def _hours(option: MachineOption) -> float:
    return option.hours.likely if option.hours else float("inf")


def _settled(
    step: Step, documents: Documents, schedule: Schedule, machine: Machine, adapter: str, given: Mapping[str, Any]
) -> tuple[Step, TimeEstimate | None, MemoryEstimate]:
    """The step on that machine with its time and memory: the first variant that fits; no time where none does."""
    per_update = step.rows * step.devices * schedule.accumulation
    for variant in _variants(step, machine, adapter):
        sizing = micro_batch(variant, hardware_of(machine), given)
        rows = min(sizing.rows, max(1, per_update // machine.devices))
        accumulation = max(1, round(per_update / (rows * machine.devices)))
        how = "off" if not sizing.recomputes else "full" if step.checkpointing == "off" else step.checkpointing
        sized = variant.model_copy(
            update={"rows": rows, "padded": rows > 1, "accumulate": accumulation > 1, "checkpointing": how}
        )
        memory = estimate(sized)
        if need(memory) <= machine.memory:
            sampling = given.get("train_sampling_strategy")
            grouped = sampling == "group_by_length" if sampling else worth_grouping(documents, rows)
            adapted = replace(schedule, accumulation=accumulation, grouped=grouped)
            return sized, estimate_time(sized, machine, documents, adapted), memory
    return sized, None, memory


def _dtypes(step: Step, device: Device, adapter: str) -> list[Dtype]:
    """Dtypes of the weights to try: as planned, else as the plan would choose; full fine-tuning falls back to bf16."""
    if not device.bf16:
        return ["float32"]
    chosen: Dtype = step.dtype if adapter == step.adapter else "float32" if adapter == "none" else "bfloat16"
    return ["float32", "bfloat16"] if (adapter, chosen) == ("none", "float32") else [chosen]


def _variants(step: Step, machine: Machine, adapter: str) -> list[Step]:
    """The step on that machine, the one to prefer first."""
    device = machine.device
    shardings = ["none"] if machine.devices == 1 else ["fsdp"] if adapter == "none" else ["ddp", "fsdp"]
    return [
        step.model_copy(
            update={
                "adapter": adapter,
                "dtype": dtype,
                "mixed": device.bf16,
                "devices": machine.devices,
                "sharding": sharding,
                "offload": False,
            }
        )
        for dtype in _dtypes(step, device, adapter)
        for sharding in shardings
        if not (adapter == "qlora" and sharding == "fsdp")
    ]


def _option(
    settled: tuple[Step, TimeEstimate | None, MemoryEstimate], machine: Machine, lacks: Lacks | None
) -> MachineOption:
    step, time, memory = settled
    cost = estimate_cost(time, machine) if time else None
    option = MachineOption(
        machine=machine.name,
        provider=machine.provider,
        device=machine.device.name,
        devices=machine.devices,
        memory=machine.memory,
        adapter=step.adapter,
        fits=time is not None,
        peak=need(memory),
        rows=step.rows,
        dtype=step.dtype,
        checkpointing=step.checkpointing,
        sharding=step.sharding,
        tokens_per_second=time.tokens_per_second if time else None,
        hours=time.total.times(1 / _HOUR) if time else None,
        dollars=cost.total if cost else None,
        lacks=lacks(step, memory, machine) if lacks else "",
    )
    notes = [_ROUNDED] if _rounds(option) else []
    notes += [f"weights spread over {machine.devices} devices (FSDP)"] if step.sharding == "fsdp" else []
    return option.model_copy(update={"note": "; ".join(notes)})
