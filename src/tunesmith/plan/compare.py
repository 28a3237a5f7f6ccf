"""Machines against ways to train: what fits, how fast, for how much; and the one to take, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from ..recipe.adapter import Kind
from ..records import MemoryEstimate
from ..records.cost import MachineOption, TimeEstimate
from .cost import estimate_cost
from .fit import need
from .machines import Machine

if TYPE_CHECKING:
    from .memory.step import Step

ADAPTERS: Final[tuple[Kind, ...]] = ("none", "lora", "qlora")
TIE: Final = 1.05
"""Options whose likely costs, or times, differ by less than this factor are alike."""
_PATIENCE = 24.0  # hours; a run that takes longer is recommended only when nothing is faster
_HOUR = 3600
_MARGIN = 0.95  # of the memory
_ROUNDED = "weights in bf16: at small learning rates most updates are lost in rounding (P010)"


class Way(NamedTuple):
    """What a plan for a machine comes to.

    Attributes:
        step, memory, time: Of its training, and the whole run's time.
        lacks: What of the machine, beside its devices' memory, doesn't take the run; "" where all does.
    """

    step: Step
    memory: MemoryEstimate
    time: TimeEstimate
    lacks: str = ""


Ways = Callable[[Machine, Kind], Iterable[Way]]
"""The ways to train one kind on a machine, the one to prefer first; at least one."""


def compare(machines: Iterable[Machine], ways: Ways, kinds: Iterable[Kind] = ADAPTERS) -> list[MachineOption]:
    """Each machine with each kind of training, in the machines' order: the first way that fits, or the last."""
    wanted = list(kinds)
    return [
        _option(_first_that_fits(ways(machine, kind), machine), machine)
        for machine in machines
        for kind in wanted
        if kind != "qlora" or machine.device.memory  # bitsandbytes' kernels want a GPU
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
    best = min((one for one in left if _dollars(one) <= cheapest * TIE), key=_hours)
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
    return other if other and (option is None or _dollars(option) > TIE * _dollars(other)) else None


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


def _first_that_fits(ways: Iterable[Way], machine: Machine) -> Way:
    for way in ways:
        if need(way.memory) <= machine.memory:
            break
    return way


def _option(way: Way, machine: Machine) -> MachineOption:
    step, time, peak = way.step, way.time, need(way.memory)
    fits = peak <= machine.memory
    cost = estimate_cost(time, machine) if fits else None
    option = MachineOption(
        machine=machine.name,
        provider=machine.provider,
        device=machine.device.name,
        devices=machine.devices,
        memory=machine.memory,
        adapter=step.adapter,
        fits=fits,
        peak=peak,
        rows=step.rows,
        dtype=step.dtype,
        checkpointing=step.checkpointing,
        sharding=step.sharding,
        tokens_per_second=time.tokens_per_second if fits else None,
        hours=time.total.times(1 / _HOUR) if fits else None,
        dollars=cost.total if cost else None,
        lacks=way.lacks,
    )
    notes = [_ROUNDED] if _rounds(option) else []
    notes += [f"weights spread over {machine.devices} devices (FSDP)"] if step.sharding == "fsdp" else []
    return option.model_copy(update={"note": "; ".join(notes)})
