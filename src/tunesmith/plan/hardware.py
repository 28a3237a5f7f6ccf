"""The machine on which training will run, without importing torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from ..records import Hardware

_QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
_MIB = 1 << 20
_CPUINFO = Path("/proc/cpuinfo")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
_BF16_SINCE = 8.0  # compute capability of Ampere, the first with bf16


def local_hardware() -> Hardware:
    """Look at this machine: its NVIDIA GPUs if torch can use them, else Apple's GPU, else the CPU."""
    return _cuda() or _cpu_or_mps()


def _cuda() -> Hardware | None:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or shutil.which("nvidia-smi") is None or _torch_is_cpu_only():
        return None
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    gpus = [[field.strip() for field in line.split(",")] for line in answer.splitlines() if line.count(",") == 2]
    if not gpus:
        return None
    name, mebibytes, capability = gpus[0]
    return Hardware(
        device="cuda",
        name=name,
        count=len(gpus),
        memory=int(mebibytes) * _MIB if mebibytes.isdigit() else _main_memory(),
        cores=_cores(),
        bf16=capability.replace(".", "").isdigit() and float(capability) >= _BF16_SINCE,
    )


def _torch_is_cpu_only() -> bool:
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return True


def _cpu_or_mps() -> Hardware:
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    return Hardware(
        device="mps" if apple else "cpu",
        name="Apple GPU" if apple else platform.processor() or platform.machine(),
        count=1,
        memory=_main_memory(),
        cores=_cores(),
        bf16=not apple and _multiplies_bf16(),
    )


def _multiplies_bf16() -> bool:
    """Whether the processor has instructions for products in bf16, as Linux names them; elsewhere that isn't known."""
    try:
        flags = _CPUINFO.read_text(encoding="utf-8").partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return not _BF16_FLAGS.isdisjoint(flags)


def _main_memory() -> int:
    # GPUs that share it with the processor, as GB10 does, have no memory of their own to report.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
