"""Machines to train on: this one, and those of the shipped tables."""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError
from ..records import Hardware
from ..records.cost import Range

_TABLES = Path(__file__).parent / "tables"
_GIB, _GB, _TERA = 1 << 30, 10**9, 1e12
_OWN_START = (0.0, 0.0, 0.0)
_SEVERAL = re.compile(r"x[2-9]|[2-9]x")  # several devices, in the names of machines


@dataclass(frozen=True)
class Device:
    """An accelerator, or all cores of a processor.

    Attributes:
        name: Its name in tables/gpus.yaml.
        family: What the prior of its efficiency goes by: ampere, hopper, ..., apple, cpu.
        memory: Bytes; 0 when it shares the main memory.
        half: Operations per second on 16-bit numbers, summed in fp32.
        full: Operations per second on fp32.
        bandwidth: Bytes per second to its memory.
        link: Bytes per second of one direction to the other devices of the machine.
        bf16: Whether it computes with bfloat16.
    """

    name: str
    family: str
    memory: int
    half: float
    full: float
    bandwidth: float
    link: float
    bf16: bool


@dataclass(frozen=True)
class Machine:
    """A machine with one or several equal devices.

    Attributes:
        name: As the provider calls it: a flavor, an instance type.
        provider: Key of tables/machines.yaml, `sky:<cloud>`, or `here`.
        memory: Bytes of one device (of the main memory where it is shared).
        ram, disk: Bytes; 0 where unknown.
        start: Seconds until the program's first line.
        per_hour: USD; None where there is no price.
        price_date: Day on which the price was read, ISO.
    """

    name: str
    provider: str
    device: Device
    devices: int
    memory: int
    ram: int = 0
    cores: int = 1
    disk: int = 0
    start: tuple[float, float, float] = _OWN_START
    per_hour: float | None = None
    price_date: str = ""
    price_source: str = ""

    @property
    def starting(self) -> Range:
        """Seconds until the program's first line."""
        return Range(low=self.start[0], likely=self.start[1], high=self.start[2])


def divided(machine: Machine, processes: int) -> Machine:
    """The machine as each of several processes has it: a GPU is its own, of a processor it has a share."""
    if machine.device.family != "cpu":
        return machine
    device = machine.device
    share = {name: getattr(device, name) / processes for name in ("half", "full", "bandwidth")}
    return replace(machine, device=replace(device, **share))


@functools.cache
def _read(name: str) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    table: dict[str, Any] = yaml.load((_TABLES / name).read_text(encoding="utf-8"), Loader=loader)
    return table


@functools.cache
def devices() -> dict[str, Device]:
    """The accelerators of tables/gpus.yaml, by name."""
    return {name: _device(name, row) for name, row in _read("gpus.yaml")["gpus"].items()}


def _device(name: str, row: dict[str, Any]) -> Device:
    return Device(
        name=name,
        family=row["family"],
        memory=int(row["memory"] * _GIB),
        half=row["half"] * _TERA,
        full=row["full"] * _TERA,
        bandwidth=row["bandwidth"] * _GB,
        link=row["link"] * _GB,
        bf16=row["bf16"],
    )


@functools.cache
def _aliases() -> dict[str, str]:
    rows = _read("gpus.yaml")["gpus"]
    return {alias: name for name, row in rows.items() for alias in (name.lower(), *row["aliases"])}


def find_device(name: str, memory: int = 0) -> Device | None:
    """The accelerator that a driver or a catalogue calls `name`; `memory` in bytes tells variants of one name apart."""
    key = name.lower().removeprefix("nvidia ").strip()
    exact = _aliases().get(name.lower()) or _aliases().get(key)
    # One name, several sizes: A100 has 40 and 80 GB.
    like = [one for one in devices().values() if key and one.name.lower().startswith(key)]
    if memory and like:
        return min(like, key=lambda one: abs(one.memory - memory))
    return devices()[exact] if exact else next(iter(like), None)


def processor(cores: int) -> Device:
    """All cores of a processor as one device."""
    core = devices()["CPU core"]
    return replace(
        core, name="CPU", half=core.half * cores, full=core.full * cores, bandwidth=core.bandwidth * min(cores, 16)
    )


def machine_here(hardware: Hardware) -> Machine:
    """The machine that runs this; a GPU that no table knows is taken for the known one nearest in memory."""
    if hardware.device == "cuda":
        device = find_device(hardware.name, hardware.memory) or min(
            (one for one in devices().values() if one.memory), key=lambda one: abs(one.memory - hardware.memory)
        )
    else:
        device = devices()["Apple GPU"] if hardware.device == "mps" else processor(hardware.cores)
    return Machine(
        name=hardware.name,
        provider="here",
        device=device,
        devices=hardware.count,
        memory=hardware.memory,
        ram=0 if hardware.device == "cuda" else hardware.memory,
        cores=hardware.cores,
    )


def hardware_of(machine: Machine) -> Hardware:
    """A rented machine as a plan has it."""
    return Hardware(
        device="cuda" if machine.device.memory else "cpu",
        name=machine.device.name,
        count=machine.devices,
        memory=machine.memory,
        cores=machine.cores,
        bf16=machine.device.bf16,
        machine=f"{machine.name} ({machine.provider})",
    )


@functools.cache
def start_seconds(provider: str) -> tuple[float, float, float]:
    """Seconds from ordering a machine of this provider to the program's first line: low, likely, high."""
    low, likely, high = _read("machines.yaml")["providers"][provider]["start"]
    return low, likely, high


def can_start(place: str, provider: str) -> bool:
    """Whether a recipe with `launch: {on: place}` can be run on this provider's machines."""
    if provider.startswith("sky:"):
        return place == "sky"
    return bool(_read("machines.yaml")["providers"].get(provider, {}).get("started_by") == place)


@functools.cache
def machines() -> tuple[Machine, ...]:
    """The machines of tables/machines.yaml."""
    return tuple(
        _machine(name, row, key, provider)
        for key, provider in _read("machines.yaml")["providers"].items()
        for name, row in provider["machines"].items()
    )


def _machine(name: str, row: dict[str, Any], key: str, provider: dict[str, Any]) -> Machine:
    device = devices()[row["gpu"]] if "gpu" in row else processor(row["cores"])
    return Machine(
        name=name,
        provider=key,
        device=device,
        devices=row.get("count", 1),
        memory=device.memory or row["ram"] * _GB,
        ram=row.get("ram", 0) * _GB,
        cores=row.get("cores", 1),
        disk=row.get("disk", 0) * _GB,
        start=start_seconds(key),
        per_hour=row.get("per_hour"),
        price_date=str(provider["date"]),
        price_source=provider["source"],
    )


def find_machine(name: str, provider: str | None = None, among: tuple[Machine, ...] | None = None) -> Machine:
    """The machine of that name, of one provider if given; `among` others than the shipped ones, such as live flavors.

    Raises:
        UsageError: there is none; the near names are in the error.
    """
    known = [one for one in (machines() if among is None else among) if provider in (None, one.provider)]
    for one in known:
        if one.name.lower() == name.lower():
            return one
    near = _near(name, known)
    raise UsageError(
        f"There is no machine {name}{f' at {provider}' if provider else ''}.",
        why="A job on a machine that doesn't exist is refused, or waits for ever.",
        fix=f"Did you mean {', '.join(near)}? `tunesmith plan RECIPE --compare` lists all with their prices."
        if near
        else "`tunesmith plan RECIPE --compare` lists all with their prices.",
    )


def _near(name: str, known: list[Machine]) -> list[str]:
    """Names of machines with an accelerator of the same generation, then those that are spelt alike.

    Machines with one device come alone, unless the name asks for several, as `a100x3` does, or only such are alike.
    """
    wanted, several = find_device(name), _SEVERAL.search(name.lower())
    alike = [one for one in known if wanted and one.device.family == wanted.family and one.devices == 1]
    alike = sorted(alike, key=lambda one: one.device != wanted)[:2]
    names = {one.name.lower(): one for one in known}
    spelt = [names[key] for key in difflib.get_close_matches(name.lower(), names, n=8)]
    single = [] if several else [*alike, *(one for one in spelt if one.devices == 1)]
    return list(dict.fromkeys(one.name for one in single or [*alike, *spelt]))[:4]
