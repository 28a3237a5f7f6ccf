"""How a plan looks in the terminal: on one screen, and other machines beside it."""

from __future__ import annotations

from ..records import MachineOption, MemoryEstimate, Plan, Range, TimeEstimate
from ..words import counted
from .output import Output

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
_ADAPTERS = {"none": "full", "lora": "LoRA", "qlora": "QLoRA"}
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


def show_options(output: Output, plan: Plan) -> None:
    """The machines and ways to train that were compared, and what fits nowhere."""
    least = _least(plan.options)
    rows: list[tuple[str, ...]] = []
    last = ""
    for one in least:
        rows.append(("" if one.machine == last else one.machine, *_option(one)))
        last = one.machine
    columns = ("machine", "devices", "trains", "peak", "rows", "tokens/s", "hours", "USD")
    output.table("Machines", columns, rows)
    output.show("Likely values; peak in GB on each device; rows of a micro-batch, r: activations are recomputed.")
    for note in dict.fromkeys(one.note for one in least if one.note):
        output.show(f"* {note}.")
    larger = sum(one.fits for one in plan.options) - len(least)
    if larger:
        output.show(f"{counted(larger, 'option')} with more devices of the same kind left out: --json has all.")
    for adapter, name in _ADAPTERS.items():
        small = [one.machine for one in plan.options if one.adapter == adapter and not one.fits]
        if small:
            output.show(f"{name} doesn't fit: {', '.join(dict.fromkeys(small))}.")
    output.show(f"\nRecommended: {plan.recommended}\n")


def _least(options: list[MachineOption]) -> list[MachineOption]:
    """What fits: of a provider's machines that differ in the number of devices, for each adapter the smallest."""
    least: dict[tuple[str, str, str], MachineOption] = {}
    for one in options:
        kind = (one.provider, one.device, one.adapter)
        if one.fits and (kind not in least or one.devices < least[kind].devices):
            least[kind] = one
    machines = dict.fromkeys(one.machine for one in options)
    order = {machine: number for number, machine in enumerate(machines)}
    return sorted(least.values(), key=lambda one: (order[one.machine], list(_ADAPTERS).index(one.adapter)))


def _option(one: MachineOption) -> tuple[str, ...]:
    return (
        f"{one.devices} x {one.device}" if one.devices > 1 else one.device,
        _ADAPTERS[one.adapter] + ("*" if one.note else ""),
        f"{one.peak / 1e9:.0f} of {one.memory / 1e9:.0f}",
        f"{one.rows}{'' if one.checkpointing == 'off' else ' r'}",
        _likely(one.tokens_per_second, ",.0f"),
        _likely(one.hours, ".1f"),
        _likely(one.dollars, ",.2f"),
    )


def _likely(value: Range | None, form: str) -> str:
    return "-" if value is None else f"{value.likely:{form}}"


def _between(value: Range | None, form: str) -> str:
    return "-" if value is None else f"{value.low:{form}}-{value.high:{form}}"


def _lines(plan: Plan) -> list[tuple[str, str]]:
    share = plan.parameters_trained / plan.parameters
    test = plan.test.rows if plan.test else 0
    tokens = f"{plan.train.tokens or 0:,} tokens"
    lines = [
        ("model", f"{plan.model.name} ({plan.model.architecture}, {plan.parameters:,} parameters)"),
        ("trains", f"{_trains(plan)}: {plan.parameters_trained:,} parameters ({share:.1%})"),
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


def _trains(plan: Plan) -> str:
    if plan.lora is None:
        return "all weights"
    return f"{_ADAPTERS[str(plan.recipe['adapter']['kind'])]} r={plan.lora['r']}"


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
