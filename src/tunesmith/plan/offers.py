"""Machines as they are offered now: flavors of Hugging Face Jobs asked from the Hub, SkyPilot's catalogue of clouds."""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import EnvironmentLacksError
from .machines import Machine, find_device, processor, start_seconds

_SKY = Path("~/.sky/catalogs/v8")
_GIB, _GB = 1 << 30, 10**9
_PER_HOUR = {"second": 3600, "minute": 60, "hour": 1}


def live_flavors() -> tuple[Machine, ...]:
    """The flavors of Hugging Face Jobs with today's prices, asked from the Hub.

    Flavors whose accelerator no table knows are left out: nothing could be said of their speed.

    Raises:
        EnvironmentLacksError: the Hub can't be reached, or doesn't answer as expected.
    """
    from huggingface_hub import errors, list_jobs_hardware

    try:
        listed = list_jobs_hardware()
        found = [_flavor(one) for one in listed]
    except (errors.HTTPError, OSError, KeyError, ValueError, TypeError) as error:
        raise EnvironmentLacksError(
            "The prices of Hugging Face Jobs can't be fetched.",
            why=(str(error).splitlines() or [type(error).__name__])[0],
            fix="Check the network and try again, or leave it: the shipped table has prices with their date.",
        ) from error
    return tuple(one for one in found if one is not None)


def _flavor(listed: Any) -> Machine | None:
    gpu, cores = listed.accelerator, int(_number(listed.cpu))
    count = int(gpu.quantity) if gpu else 1
    ram = int(_number(listed.ram) * _GB)
    device = find_device(gpu.model, int(_number(gpu.vram) * _GB / count)) if gpu else processor(cores)
    if device is None:
        return None
    return Machine(
        name=listed.name,
        provider="hf-jobs",
        device=device,
        devices=count,
        memory=device.memory or ram,
        ram=ram,
        cores=cores,
        disk=int(_number(listed.ephemeral_storage) * _GB),
        start=start_seconds("hf-jobs"),
        per_hour=listed.unit_cost_usd * _PER_HOUR[listed.unit_label],
        price_date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        price_source="huggingface_hub.list_jobs_hardware()",
    )


def _number(text: str) -> float:
    """The number that a text such as "16 GB" or "1.5 TB" starts with, in GB; 0 where there is none."""
    found = re.match(r"\s*([\d.]+)\s*(TB)?", text or "")
    return float(found[1]) * (1000 if found[2] else 1) if found else 0.0


def sky_machines(folder: Path | None = None) -> tuple[Machine, ...]:
    """The machines of SkyPilot's catalogue, each at its cheapest region; none when SkyPilot hasn't fetched one.

    Rows without both an instance type and a known accelerator are passed over (Google Cloud prices these apart).
    """
    cheapest: dict[tuple[str, str], Machine] = {}
    for file in sorted((folder or _SKY).expanduser().glob("*/vms.csv")):
        for machine in _sky_rows(file):
            key = (machine.provider, machine.name)
            if key not in cheapest or (machine.per_hour or 0) < (cheapest[key].per_hour or 0):
                cheapest[key] = machine
    return tuple(cheapest.values())


def _sky_rows(file: Path) -> Iterator[Machine]:
    read = datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).date().isoformat()
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            device = find_device(row.get("AcceleratorName") or "")
            price, count = _positive(row.get("Price")), _positive(row.get("AcceleratorCount"))
            if device is None or not row.get("InstanceType") or not price or count < 1:
                continue
            yield Machine(
                name=row["InstanceType"],
                provider=f"sky:{file.parent.name}",
                device=device,
                devices=int(count),
                memory=device.memory,
                ram=int(_positive(row.get("MemoryGiB")) * _GIB),
                cores=int(_positive(row.get("vCPUs"))) or 1,
                start=start_seconds("lambda"),
                per_hour=price,
                price_date=read,
                price_source=f"SkyPilot's catalogue, {row.get('Region') or file.parent.name}",
            )


def _positive(text: str | None) -> float:
    """The number in a cell of the catalogue, or 0."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if 0 < value < float("inf") else 0.0
