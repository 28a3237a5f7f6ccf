"""Seconds that a device needs for a load, given how much of its peak it reaches; and the reverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .machines import Device
from .work import Load, trained_parameters

if TYPE_CHECKING:
    from .memory.step import Step

# Share of its bandwidth that an elementwise kernel reaches (BabelStream on A100 and H100: 0.85 to 0.93).
_STREAM = 0.85
_HOST = 20e9  # bytes per second over PCIe 4.0 x16, as copies from pinned memory reach
_LINKED = 0.8  # share of the link that NCCL reaches on large messages (nccl-tests)
# Bytes per trained parameter that an AdamW on the processor moves, and how fast a server's memory takes them.
_HOST_UPDATE, _HOST_MEMORY = 28, 60e9
_OFFLOADED = 1.02  # activations on their way to main memory cost 1 to 2% (Unsloth)
_WIDTH = {"float32": 4, "float16": 2, "bfloat16": 2}
_NF4 = 0.5 + 1 / 64


@dataclass(frozen=True)
class Pace:
    """What isn't known beforehand.

    Attributes:
        efficiency: Share of the peak rate that matrix products reach.
        kernel: Seconds that the host needs to start one kernel.
        hidden: Share of the communication that runs beside the computation, 0 to 1.
    """

    efficiency: float
    kernel: float
    hidden: float


@dataclass(frozen=True)
class Seconds:
    """Time of one update, by part.

    Attributes:
        micro: One micro-batch: computing, moving, starting kernels, communicating.
        update: Clipping, optimizer and what is communicated once per update.
    """

    micro: float
    update: float


def peak_rate(step: Step, device: Device) -> float:
    """Operations per second at which the step's matrix products could run at best."""
    if step.dtype == "float32" and not step.mixed:
        return device.full
    # Without bf16, autocast is to fp16; bf16 weights are emulated in fp32.
    return device.half if device.bf16 or step.dtype != "bfloat16" else device.full


def moving_seconds(load: Load, device: Device) -> float:
    """Seconds for the bytes that a micro-batch moves."""
    return sum(load.moved.values()) / (device.bandwidth * _STREAM)


def seconds(step: Step, load: Load, device: Device, pace: Pace) -> Seconds:
    """Time of a micro-batch and of an update.

    A GPU takes what is longer, its own work or the host's starting of kernels; a processor does one after the other.
    """
    work = sum(load.operations.values()) / (peak_rate(step, device) * pace.efficiency) + moving_seconds(load, device)
    starting = load.kernels * pace.kernel
    micro = work + starting if device.family == "cpu" else max(work, starting)
    if step.checkpointing == "offload":
        micro *= _OFFLOADED
    per_micro, per_update = communication(step, device)
    update = load.update_moved / (device.bandwidth * _STREAM) + load.update_kernels * pace.kernel
    if step.offload:
        update += trained_parameters(step) / step.devices * _HOST_UPDATE / _HOST_MEMORY
    return Seconds(
        micro=micro + max(per_micro * (1 - pace.hidden), per_micro - micro),
        update=update + max(per_update * (1 - pace.hidden), per_update - micro),
    )


def communication(step: Step, device: Device) -> tuple[float, float]:
    """Seconds between devices and with main memory, per micro-batch and per update.

    Ring collectives send (n - 1) / n of the data: FSDP and ZeRO 3 gather the weights in forward and backward and
    scatter the gradients (Rajbhandari et al. 2020); DDP and ZeRO 2 reduce the gradients once per update, which is two
    of these.
    """
    width = _NF4 if step.adapter == "qlora" else _WIDTH[step.dtype]
    gathered = 2 if step.mixed and step.dtype == "float32" else width
    weights = step.model.parameters * gathered
    host = 3 * weights / step.devices / _HOST if step.offload else 0.0
    if step.devices < 2 or not device.link:
        return host, 0.0
    spread = step.sharding in ("fsdp", "zero3")
    gradients = trained_parameters(step) * (4 if not step.trained else gathered if spread else width)
    rate = device.link * _LINKED * step.devices / (step.devices - 1)
    if spread:
        return host + (2 * weights + gradients) / rate, 0.0
    return host, 2 * gradients / rate


def implied_efficiency(step: Step, load: Load, device: Device, micro: float, pace: Pace) -> float | None:
    """The efficiency at which the micro-batch would take `micro` seconds; None where starting kernels took the time."""
    spent = micro - load.kernels * pace.kernel
    if spent < 0.2 * micro:
        return None
    per_micro, _ = communication(step, device)
    left = micro - moving_seconds(load, device) - per_micro * (1 - pace.hidden)
    return sum(load.operations.values()) / peak_rate(step, device) / left if left > 0 else None
