"""Machines against ways to train: what fits, how fast, for how much; and the one to take, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..records import MemoryEstimate
from ..records.cost import MachineOption, TimeEstimate
from .cost import estimate_cost
from .documents import Documents
from .fit import need
from .machines import Device, Machine
from .time import Schedule, estimate_time

if TYPE_CHECKING:
    from .memory.step import Dtype, Step

ADAPTERS = ("none", "lora", "qlora")
_TIE = 1.05  # options whose likely cost differs by less are alike: then the faster one is better
_PATIENCE = 24.0  # hours; a run that takes longer is recommended only when nothing is faster
_HOUR = 3600
_MARGIN = 0.95  # of the memory, in what is recommended: the estimate may be too low
_ROUNDED = "weights in bf16: at small learning rates most updates are lost in rounding (P010)"

Peak = Callable[["Step"], MemoryEstimate]


def compare(
    step: Step,
    documents: Documents,
    schedule: Schedule,
    machines: Iterable[Machine],
    peak: Peak,
    *,
    adapters: Iterable[str] = ADAPTERS,
) -> list[MachineOption]:
    """Each machine with full fine-tuning, LoRA and QLoRA, in the machines' order.

    The rows per update stay as `step` and `schedule` have them; the micro-batch is the largest that fits, with
    activation checkpointing where that lets the run go faster.
    """
    wanted = list(adapters)
    return [
        _option(step, documents, schedule, machine, adapter, peak)
        for machine in machines
        for adapter in wanted
        if adapter != "qlora" or machine.device.memory  # bitsandbytes' kernels want a GPU
    ]


def recommend(options: Iterable[MachineOption], adapter: str | None = None) -> tuple[MachineOption | None, str]:
    """The option to take, and why: the cheapest likely total among those that fit; of equal ones the faster.

    `adapter` narrows the choice to one way of training. Machines without a price are one's own, and aren't compared.
    """
    fitting = [one for one in options if one.fits and one.dollars and one.hours and adapter in (None, one.adapter)]
    fitting = [one for one in fitting if one.peak <= _MARGIN * one.memory] or fitting
    fitting = [one for one in fitting if not _rounds(one)] or fitting
    if not fitting:
        return None, "none of the machines with a price has the memory for it"
    quick = [one for one in fitting if _hours(one) <= _PATIENCE]
    left = quick or fitting
    cheapest = min(_dollars(one) for one in left)
    best = min((one for one in left if _dollars(one) <= cheapest * _TIE), key=_hours)
    over = f" and end within {_PATIENCE:.0f} hours" if quick and len(quick) < len(fitting) else ""
    alike = "; of those within 5% of it, the fastest" if _dollars(best) > cheapest else ""
    return best, (
        f"the lowest likely cost, ${_dollars(best):.2f} for {_hours(best):.1f} hours, "
        f"of the {len(left)} options that fit{over}{alike}"
    )


def _rounds(option: MachineOption) -> bool:
    """Whether all weights are trained in bf16, where most small updates are lost."""
    return option.adapter == "none" and option.dtype == "bfloat16"


def _dollars(option: MachineOption) -> float:
    return option.dollars.likely if option.dollars else float("inf")


def _hours(option: MachineOption) -> float:
    return option.hours.likely if option.hours else float("inf")


def _option(
    step: Step, documents: Documents, schedule: Schedule, machine: Machine, adapter: str, peak: Peak
) -> MachineOption:
    per_update = step.rows * step.devices * schedule.accumulation
    most = max(1, per_update // machine.devices)
    best: tuple[Step, TimeEstimate] | None = None
    variants = _variants(step, machine, adapter)
    for variant in variants:
        for checkpointing in ("off", "full"):
            tried = variant.model_copy(update={"checkpointing": checkpointing})
            rows = _largest(tried, machine.memory, most, peak)
            if not rows:
                continue
            sized = _sized(tried, rows, most)
            accumulation = max(1, round(per_update / (rows * machine.devices)))
            # As the plan does: several rows in a batch are of like length.
            adapted = replace(schedule, accumulation=accumulation, grouped=schedule.grouped or rows > 1)
            time = estimate_time(sized, machine, documents, adapted)
            if best is None or time.train.likely < best[1].train.likely:
                best = sized, time
        if best is not None:
            break
    if best is None:
        least = _sized(variants[-1].model_copy(update={"checkpointing": "full"}), 1, most)
        return _row(machine, adapter, least, None, need(peak(least)))
    return _row(machine, adapter, best[0], best[1], need(peak(best[0])))


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


def _largest(step: Step, memory: int, most: int, peak: Peak) -> int:
    """Largest power of two of rows, which divides an update, that fits; 0 when one row doesn't."""

    def fits(rows: int) -> bool:
        return need(peak(_sized(step, rows, most))) <= memory

    if not fits(1):
        return 0
    rows = 1
    while rows * 2 <= most and fits(rows * 2):
        rows *= 2
    return rows


def _sized(step: Step, rows: int, most: int) -> Step:
    """The step with so many rows, padded where they are several, of the `most` in an update on each device."""
    return step.model_copy(update={"rows": rows, "padded": rows > 1, "accumulate": rows < most})


def _row(machine: Machine, adapter: str, step: Step, time: TimeEstimate | None, peak: int) -> MachineOption:
    cost = estimate_cost(time, machine) if time else None
    option = MachineOption(
        machine=machine.name,
        provider=machine.provider,
        device=machine.device.name,
        devices=machine.devices,
        memory=machine.memory,
        adapter=adapter,
        fits=time is not None,
        peak=peak,
        rows=step.rows,
        dtype=step.dtype,
        checkpointing=step.checkpointing,
        tokens_per_second=time.tokens_per_second if time else None,
        hours=time.total.times(1 / _HOUR) if time else None,
        dollars=cost.total if cost else None,
    )
    notes = [_ROUNDED] if _rounds(option) else []
    notes += [f"weights spread over {machine.devices} devices (FSDP)"] if step.sharding == "fsdp" else []
    return option.model_copy(update={"note": "; ".join(notes)})
