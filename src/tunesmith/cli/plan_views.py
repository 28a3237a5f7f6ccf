"""How a plan looks in the terminal: on one screen, and other machines beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator

from ..plan.compare import TIE, is_tight
from ..records import MachineOption, MemoryEstimate, Plan, Range, TimeEstimate
from ..words import counted
from .output import Output, safe

_KEY_CHOICES = (
    "model.dtype",
    "max_length",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "packing",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "save_steps",
    "eval_steps",
)
_ADAPTERS = {"none": "full", "lora": "LoRA", "qlora": "QLoRA", "prompt": "prompt", "prefix": "prefix", "ia3": "IA3"}
_Ways = dict[tuple[str, str], list[MachineOption]]  # by provider and machine
_STAGES = ("start", "train", "evaluate", "export")
_PARTS = ("weights", "gradients", "optimizer", "activations", "loss", "reference", "cache", "buffers")


def show_plan(output: Output, plan: Plan, *, every_choice: bool = False) -> None:
    """What will run, where, how long, for how much, what was decided and why; by default only what matters most."""
    output.table("Plan", ("", ""), _lines(plan))
    if plan.remedies:
        rows = [
            (one.change, _gigabytes(one.saves), _gigabytes(one.needs), "yes" if one.fits else "no", one.costs)
            for one in plan.remedies
        ]
        output.table("To make it fit, in this order", ("change", "saves", "needs", "fits", "costs"), rows)
    if plan.advice:
        output.table("Advice", ("name", "value", "reason"), [(c.name, _short(c.value), c.reason) for c in plan.advice])
    shown = [choice for choice in plan.choices if every_choice or choice.name in _KEY_CHOICES]
    output.table("Choices", ("name", "value", "reason"), [(c.name, _short(c.value), c.reason) for c in shown])
    if left := len(plan.choices) - len(shown):
        output.show(f"{counted(left, 'choice')} more: --all\n")


def show_options(output: Output, plan: Plan, *, details: bool = False) -> None:
    """The machines worth comparing, by provider, with the likely cost and hours of each way to train.

    With `details` also the peak, the rows of a micro-batch and the speed of each.
    """
    machines: dict[tuple[str, str], list[MachineOption]] = {}
    for one in plan.options:
        machines.setdefault((one.provider, one.machine), []).append(one)
    worth = worth_showing(plan.options)
    shown = {key: ways for key, ways in machines.items() if any(one in worth for one in ways)}
    kinds = [kind for kind in _ADAPTERS if any(one.adapter == kind for one in plan.options)]
    rows: list[tuple[str, ...]] = []
    last = ""
    for (provider, machine), ways in shown.items():
        if provider != last:
            rows.append((f"{provider}:", "", *("" for _ in kinds)))
        last = provider
        devices = f"{ways[0].devices}x {ways[0].device}" if ways[0].devices > 1 else ways[0].device
        cells = {one.adapter: _cell(one) for one in ways}
        rows.append((machine, devices, *(cells.get(adapter, "-") for adapter in kinds)))
    output.table("Machines: likely USD and hours", ("machine", "devices", *map(_ADAPTERS.__getitem__, kinds)), rows)
    if details:
        ways_shown = [one for ways in shown.values() for one in ways if _runs(one)]
        columns = ("machine", "trains", "peak, GB", "rows", "recomputes", "tokens/s")
        output.table("Each way to train", columns, map(_detail, ways_shown))
    signs = _legend([one for ways in shown.values() for one in ways])
    for line in (*signs, *_left_out(machines, shown), "", f"Recommended: {plan.recommended}."):
        wrapped = textwrap.wrap(line, output.data.width, break_long_words=False, break_on_hyphens=False)
        output.show(safe("\n".join(wrapped)))
    output.show()


def _left_out(machines: _Ways, shown: _Ways) -> Iterator[str]:
    """How many machines aren't in the table, and why."""
    fits = [any(one.fits for one in ways) for ways in machines.values()]
    runs = [any(_runs(one) for one in ways) for ways in machines.values()]
    if none := len(machines) - sum(fits):
        yield f"Left out: {counted(none, 'machine')} with too little memory on the devices."
    if poor := sum(fits) - sum(runs):
        yield f"Left out: {counted(poor, 'machine')} with too little main memory or disk for the export."
    if beaten := sum(runs) - len(shown):
        others = "another of the provider is about as fast for less, or has fewer of the same devices"
        yield f"Left out: {counted(beaten, 'machine')}, since {others}. --json has all."


def _runs(one: MachineOption) -> bool:
    return one.fits and not one.lacks


def worth_showing(options: list[MachineOption]) -> list[MachineOption]:
    """What takes the run: of a provider's machines of one kind those with the fewest devices, and of these the best.

    The best are those that no other beats in cost without taking longer; a little longer, where it costs less by more
    than that.
    """
    smallest = _unbeaten([one for one in options if _runs(one)], _is_smaller)
    return _unbeaten(smallest, _is_better)


def _unbeaten(
    options: list[MachineOption], beats: Callable[[MachineOption, MachineOption], bool]
) -> list[MachineOption]:
    """Options that none of the same provider beats in the same way to train; one with a drawback beats none without."""
    alike: dict[tuple[str, str], list[MachineOption]] = {}
    for one in options:
        alike.setdefault((one.provider, one.adapter), []).append(one)

    def beaten(one: MachineOption) -> bool:
        rivals = (other for other in alike[one.provider, one.adapter] if one.note or not other.note)
        return any(beats(other, one) for other in rivals)

    return [one for one in options if not beaten(one)]


def _is_smaller(other: MachineOption, one: MachineOption) -> bool:
    return other.device == one.device and other.devices < one.devices


def _is_better(other: MachineOption, one: MachineOption) -> bool:
    if not (other.dollars and one.dollars and other.hours and one.hours):
        return False
    slower = TIE if TIE * other.dollars.likely < one.dollars.likely else 1.0
    return other.dollars.likely < one.dollars.likely and other.hours.likely <= slower * one.hours.likely


def _cell(one: MachineOption) -> str:
    """USD and hours; with signs that the legend explains."""
    if not _runs(one) or one.hours is None:
        return "-"
    signs = ("*" if one.note else "") + ("!" if is_tight(one) else "")
    return f"{_figure(one.dollars.likely, 2) if one.dollars else 'own'} {_figure(one.hours.likely, 1)}{signs}"


def _detail(one: MachineOption) -> tuple[str, ...]:
    return (
        one.machine,
        _ADAPTERS[one.adapter],
        f"{one.peak / 1e9:.1f} of {one.memory / 1e9:.0f}",
        str(one.rows),
        "no" if one.checkpointing == "off" else one.checkpointing,
        _between(one.tokens_per_second, ",.0f"),
    )


def _figure(value: float, digits: int) -> str:
    """A number of at most four characters below 1,000."""
    return f"{value:.{digits}f}" if value < 10 else f"{value:.1f}" if digits > 1 and value < 100 else f"{value:,.0f}"


def _legend(options: list[MachineOption]) -> Iterator[str]:
    """What the signs in the table mean."""
    runs = [one for one in options if _runs(one)]
    notes = dict.fromkeys(part for one in runs for part in one.note.split("; ") if part)
    yield "-: doesn't fit." + (" !: over 95% of the memory." if any(is_tight(one) for one in runs) else "")
    if notes:
        yield f"*: {'; or '.join(notes)}."


def _between(value: Range | None, form: str) -> str:
    return "-" if value is None else f"{value.low:{form}}-{value.high:{form}}"


def _lines(plan: Plan) -> list[tuple[str, str]]:
    share = plan.parameters_trained / plan.parameters
    test = plan.test.rows if plan.test else 0
    tokens = f"{plan.train.tokens or 0:,} tokens"
    lines = [
        ("model", f"{plan.model.name} ({plan.model.architecture}, {plan.parameters:,} parameters)"),
        ("trains", f"{plan.trained}: {plan.parameters_trained:,} parameters ({share:.1%})"),
        ("data", f"{counted(plan.train.rows, 'row')} to train, {tokens}, {test:,} to compare; loss on {plan.loss_on}"),
        ("steps", f"{plan.steps:,} ({plan.epochs:.3g} epochs, {plan.tokens_per_step:,} tokens per step)"),
        ("machine", _machine(plan)),
        ("memory", _memory(plan.memory, plan.hardware.memory)),
    ]
    if plan.time:
        lines.append(("time", _time(plan.time)))
    if plan.cost:
        cost = plan.cost
        price = f"{cost.per_hour:,.2f} an hour ({cost.price_source}, {cost.price_date})"
        lines.append(("cost", f"{cost.total.likely:,.2f} USD, {_between(cost.total, ',.2f')}; {price}"))
    return lines


def _machine(plan: Plan) -> str:
    hardware = plan.hardware
    many = f"{hardware.count} x " if hardware.count > 1 else ""
    place = f"{hardware.machine}: " if hardware.machine else f"{hardware.device}, "
    return f"{place}{many}{hardware.name}, {hardware.memory / 1e9:.0f} GB, {counted(hardware.cores, 'core')}"


def _memory(memory: MemoryEstimate, have: int) -> str:
    parts = ", ".join(f"{name} {_gigabytes(size)}" for name in _PARTS if (size := getattr(memory, name)))
    basis = "" if memory.tier == "closed form" else f", by {memory.tier}"
    return (
        f"{_gigabytes(memory.allocated)} at the peak (give or take {memory.allocated_error:.0%}{basis}), "
        f"{_gigabytes(memory.reserved + memory.context)} of the device's {have / 1e9:.0f} GB in use: {parts}"
    )


def _time(time: TimeEstimate) -> str:
    stages = ", ".join(f"{stage} {_span(getattr(time, stage).likely)}" for stage in _STAGES)
    speed = f"{_between(time.tokens_per_second, ',.0f')} tokens/s"
    return f"{_span(time.total.likely)}, {_span(time.total.low)} to {_span(time.total.high)} ({stages}); {speed}"


def _span(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
