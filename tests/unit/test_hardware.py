"""What the machine is, with an nvidia-smi that is really run and a torch that is really looked up."""

import os
from pathlib import Path

import pytest

from tunesmith.plan.hardware import local_hardware

SMI = """#!/bin/sh
[ "$1" = "--query-gpu=name,memory.total,compute_cap" ] || exit 9
[ "$2" = "--format=csv,noheader,nounits" ] || exit 9
printf '%b' '{answer}'
exit {code}
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH and on sys.path; in it a torch that was built with CUDA."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    install_torch(tmp_path, "2.13.0+cu130")
    return tmp_path


def install_torch(folder: Path, version: str) -> None:
    info = folder / "torch-9.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")


def install_smi(folder: Path, answer: str, *, code: int = 0) -> None:
    path = folder / "nvidia-smi"
    path.write_text(SMI.format(answer=answer, code=code))
    path.chmod(0o755)


def test_gpus(machine: Path) -> None:
    install_smi(machine, "NVIDIA H200, 143771, 9.0\\nNVIDIA H200, 143771, 9.0\\n")
    found = local_hardware()
    assert (found.device, found.name, found.count, found.bf16) == ("cuda", "NVIDIA H200", 2, True)
    assert found.memory == 143771 * 1024 * 1024
    assert found.cores >= 1


@pytest.mark.parametrize(("capability", "bf16"), [("7.5", False), ("8.0", True), ("12.1", True), ("[N/A]", False)])
def test_bf16_came_with_ampere(machine: Path, capability: str, bf16: bool) -> None:
    install_smi(machine, f"GPU, 16384, {capability}\\n")
    assert local_hardware().bf16 is bf16


def test_a_gpu_that_shares_the_main_memory(machine: Path) -> None:
    install_smi(machine, "NVIDIA GB10, [N/A], 12.1\\n")
    found = local_hardware()
    assert (found.device, found.name) == ("cuda", "NVIDIA GB10")
    assert found.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("", 0),
        ("No devices were found\\n", 0),
        ("NVIDIA H200, 143771, 9.0\\n", 9),
        ("a, b\\n", 0),
        ("a, b, c, d\\n", 0),
    ],
)
def test_an_answer_without_a_gpu(machine: Path, answer: str, code: int) -> None:
    install_smi(machine, answer, code=code)
    assert local_hardware().device != "cuda"


@pytest.mark.parametrize("devices", ["", "-1"])
def test_gpus_that_are_hidden(machine: Path, monkeypatch: pytest.MonkeyPatch, devices: str) -> None:
    install_smi(machine, "NVIDIA H200, 143771, 9.0\\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert local_hardware().device != "cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert local_hardware().device == "cuda"


def test_gpus_that_torch_cannot_use(machine: Path) -> None:
    install_smi(machine, "NVIDIA H200, 143771, 9.0\\n")
    install_torch(machine, "2.13.0+cpu")
    assert local_hardware().device != "cuda"


def test_a_machine_without_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = local_hardware()
    assert (found.device, found.name, found.count) == ("cpu", "x86_64", 1)
    assert found.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if hasattr(os, "sched_getaffinity"):
        assert found.cores == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("said", "bf16"),
    [
        ("model name : Xeon\nflags\t\t: fpu avx512_bf16 sse\nbugs : amx_bf16\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("flags\t\t: fpu avx512f\nbugs : amx_bf16\n", False),
        ("Features : fp asimd\n", False),
        (None, False),
    ],
)
def test_processors_that_multiply_in_bf16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, bf16: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("tunesmith.plan.hardware._CPUINFO", tmp_path / "cpuinfo")
    if said is not None:
        (tmp_path / "cpuinfo").write_text(said)
    assert local_hardware().bf16 is bf16


def test_an_apple(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    found = local_hardware()
    assert (found.device, found.name, found.bf16) == ("mps", "Apple GPU", False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert local_hardware().device == "cpu"
