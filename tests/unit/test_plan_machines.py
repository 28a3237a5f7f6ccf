"""Machines and their prices: the shipped tables, live flavors from an emulated Hub, SkyPilot's catalogue."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hub import flavor, serve
from tests.support.steps import ROWS, make_step
from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.plan import machines as tables
from tunesmith.plan.cost import estimate_cost, price_findings
from tunesmith.plan.machines import (
    can_start,
    devices,
    find_device,
    find_machine,
    machine_here,
    machines,
    processor,
    start_seconds,
)
from tunesmith.plan.offers import live_flavors, sky_machines
from tunesmith.plan.time import Schedule, estimate_time
from tunesmith.records import Hardware

GIB = 1 << 30


def test_the_tables_say_when_and_where_they_were_read() -> None:
    assert datetime.date.fromisoformat(str(tables._read("gpus.yaml")["date"]))
    assert tables._read("gpus.yaml")["sources"]
    for machine in machines():
        assert datetime.date.fromisoformat(machine.price_date)
        assert machine.price_source
        assert machine.per_hour is None or 0 < machine.per_hour < 100


def test_names_and_aliases_are_unique() -> None:
    names = [machine.name.lower() for machine in machines()]
    assert len(names) == len(set(names))
    rows = tables._read("gpus.yaml")["gpus"]
    aliases = [alias for name, row in rows.items() for alias in (name.lower(), *row["aliases"])]
    assert len(aliases) == len(set(aliases))
    assert all(alias == alias.lower() for alias in aliases)


def test_the_flavors_of_jobs_are_those_that_the_client_knows() -> None:
    from huggingface_hub import JobHardware

    assert {machine.name for machine in machines() if machine.provider == "hf-jobs"} == {
        one.value for one in JobHardware
    }


def test_the_tables_hold_every_kind_of_machine() -> None:
    assert {machine.provider for machine in machines()} == {"hf-jobs", "lambda", "runpod", "aws", "azure", "own"}
    assert all((machine.per_hour is None) == (machine.provider == "own") for machine in machines())


@pytest.mark.parametrize(
    ("name", "memory", "device"),
    [
        ("NVIDIA H200", 0, "H200"),
        ("NVIDIA A100-SXM4-80GB", 79 * GIB, "A100-80GB"),
        ("A100", 40 * GIB, "A100-40GB"),
        ("A100", 80 * GIB, "A100-80GB"),
        ("H100", 79 * GIB, "H100"),
        ("H100", 94 * GIB, "H100-NVL"),
        ("H100", 0, "H100"),
        ("L4", 24 * GIB, "L4"),
        ("A10", 22 * GIB, "A10"),
        ("NVIDIA A100-SXM4-40GB", 40 * GIB, "A100-40GB"),
        ("RTX-40", 0, "RTX-4060-Ti-16GB"),
        ("NVIDIA GeForce RTX 4090", 24 * GIB, "RTX-4090"),
        ("Tesla T4", 15 * GIB, "T4"),
        ("L40S", 45 * GIB, "L40S"),
        ("L4", 0, "L4"),
        ("A10G", 0, "A10G"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 0, "RTX-PRO-6000"),
    ],
)
def test_drivers_names_of_accelerators(name: str, memory: int, device: str) -> None:
    found = find_device(name, memory)
    assert found is not None
    assert found.name == device


def test_an_accelerator_that_no_table_knows() -> None:
    assert find_device("TPU-v5") is None
    assert find_device("") is None
    new = Hardware(device="cuda", name="NVIDIA X900", count=2, memory=30 * GIB, cores=8, bf16=True)
    here = machine_here(new)
    assert (here.device.name, here.memory, here.devices) == ("RTX-5090", 30 * GIB, 2)
    assert (here.ram, here.cores) == (0, 8)


def test_rates_are_in_bytes_and_operations_per_second() -> None:
    card = devices()["A100-80GB"]
    assert (card.half, card.full, card.bandwidth, card.link) == (312e12, 19.5e12, 2039e9, 300e9)
    assert card.memory == int(79.1 * GIB)
    core = devices()["CPU core"]
    many = processor(64)
    assert (many.half, many.full) == (64 * core.half, 64 * core.full)
    assert many.bandwidth == 16 * core.bandwidth  # a socket's memory is full long before its cores are


def test_this_machine_has_no_price_and_no_start() -> None:
    cpu = machine_here(Hardware(device="cpu", name="x86_64", count=1, memory=8 * GIB, cores=4, bf16=False))
    assert (cpu.device.family, cpu.per_hour, cpu.starting.high) == ("cpu", None, 0)
    assert cpu.ram == cpu.memory == 8 * GIB
    assert cpu.device.full == 4 * devices()["CPU core"].full
    assert list(price_findings([cpu])) == []
    mac = machine_here(Hardware(device="mps", name="Apple GPU", count=1, memory=16 * GIB, cores=8, bf16=False))
    assert mac.device.family == "apple"


def test_machines_are_found_by_name_whatever_its_case() -> None:
    assert find_machine("A100-large").devices == 1
    assert find_machine("a100x8", "hf-jobs").devices == 8
    assert find_machine("cpu-basic").memory == 16 * 10**9
    large = find_machine("a100-large")
    assert (large.ram, large.disk, large.cores) == (142 * 10**9, 1000 * 10**9, 12)
    assert (large.memory, large.per_hour) == (devices()["A100-80GB"].memory, 2.5)
    assert find_machine("rtx-4090").ram == 0


@pytest.mark.parametrize(
    ("name", "provider", "near"),
    [
        ("h100", "hf-jobs", "h200"),
        ("a100-larg", None, "a100-large"),
        ("l40s", "hf-jobs", "l40sx1"),
        ("rtx4090", None, "rtx-4090"),
    ],
)
def test_a_machine_that_does_not_exist_is_refused_with_near_ones(name: str, provider: str | None, near: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_machine(name, provider)
    assert f"no machine {name}" in refused.value.what
    assert near in refused.value.fix


def test_machines_with_one_device_are_proposed_unless_the_name_asks_for_several() -> None:
    def proposed(name: str) -> str:
        with pytest.raises(UsageError) as refused:
            find_machine(name, "hf-jobs")
        return refused.value.fix.split("?")[0]

    assert proposed("h100") == "Did you mean h200"
    assert proposed("l40s") == "Did you mean l40sx1, l4x1"
    assert "a100x4" in proposed("a100x3")


@pytest.mark.parametrize(
    ("place", "providers"),
    [("hf-jobs", {"hf-jobs"}), ("sky", {"lambda", "runpod", "aws", "azure", "sky:gcp"}), ("local", set())],
)
def test_what_a_place_can_start(place: str, providers: set[str]) -> None:
    known = {*(machine.provider for machine in machines()), "sky:gcp", "here"}
    assert {provider for provider in known if can_start(place, provider)} == providers


@given(st.text(max_size=30))
def test_any_other_name_is_refused_and_never_a_crash(name: str) -> None:
    if name.lower() not in {machine.name.lower() for machine in machines()}:
        with pytest.raises(UsageError):
            find_machine(name)


def test_p035_a_price_list_out_of_date() -> None:
    jobs = [machine for machine in machines() if machine.provider == "hf-jobs"]
    read = datetime.date.fromisoformat(jobs[0].price_date)
    assert list(price_findings(jobs, read + datetime.timedelta(days=90))) == []
    (late,) = price_findings(jobs, read + datetime.timedelta(days=91))
    assert (late.code, late.severity) == ("P035", "warning")
    assert "91 days ago" in late.what
    assert jobs[0].price_source in late.fix


def test_p035_names_each_list_once_and_no_list_without_prices() -> None:
    late = list(price_findings(machines(), datetime.date(2030, 1, 1)))
    assert len(late) == 5
    assert all("no price" not in one.what for one in late)


def test_a_cost_is_hours_times_price_all_stages_counted() -> None:
    machine = find_machine("a100-large")
    time = estimate_time(make_step(), machine, ROWS, Schedule(epochs=3, evaluations=3, eval_rows=10, merged=True))
    cost = estimate_cost(time, machine)
    assert cost is not None
    assert cost.total.likely == pytest.approx(2.5 * time.total.likely / 3600)
    assert (cost.currency, cost.per_hour, cost.price_date) == ("USD", 2.5, machine.price_date)
    assert cost.total.high > 2.5 * (time.start.high + time.train.high + time.evaluate.high) / 3600
    assert estimate_cost(time, find_machine("rtx-4090")) is None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    offers = (
        flavor("cpu-basic", 0.01, "16 GB", None),
        flavor("a100-large", 3.0, "142 GB", ("A100", 1, "80 GB")),
        flavor("a100x4", 12.0, "568 GB", ("A100", 4, "320 GB")),
        flavor("h200x8", 40.0, "2 TB", ("H200", 8, "1128 GB")),
        flavor("inf2x6", 9.0, "192 GB", ("Inferentia 2", 6, "192 GB")),
    )
    with serve({}, hardware=offers) as address:
        _connect(monkeypatch, address)
        yield


def _connect(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """The client reads its address when it is imported, so the imported one is told."""
    from huggingface_hub import hf_api

    monkeypatch.setattr(hf_api.api, "endpoint", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("hub")
def test_live_flavors_have_todays_price() -> None:
    found = {machine.name: machine for machine in live_flavors()}
    assert set(found) == {"cpu-basic", "a100-large", "a100x4", "h200x8"}  # of an unknown chip nothing could be said
    large, four = found["a100-large"], found["a100x4"]
    assert large.per_hour == pytest.approx(3.0)
    assert (large.device.name, four.device.name, four.devices) == ("A100-80GB", "A100-80GB", 4)
    assert large.price_date == datetime.datetime.now(datetime.UTC).date().isoformat()
    assert large.start == start_seconds("hf-jobs")
    assert (large.ram, large.disk) == (142 * 10**9, 200 * 10**9)
    assert found["h200x8"].ram == 2000 * 10**9
    assert found["cpu-basic"].device.family == "cpu"
    assert list(price_findings(found.values())) == []
    assert find_machine("a100-large", among=live_flavors()).per_hour == pytest.approx(3.0)


def test_live_flavors_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    _connect(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(EnvironmentLacksError, match="can't be fetched") as error:
        live_flavors()
    assert "the shipped table" in error.value.fix


def test_live_flavors_of_a_hub_that_answers_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = [flavor("x", 1.0, "16 GB", None) | {"unitLabel": "fortnight"}]
    with serve({}, hardware=strange) as address:
        _connect(monkeypatch, address)
        with pytest.raises(EnvironmentLacksError):
            live_flavors()


CATALOGUE = """\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice
gpu_1x_a10,A10,1.0,30.0,226.0,0.80,us-west-1,"{'Gpus': []}",
gpu_1x_a10,A10,1.0,30.0,226.0,0.75,us-east-1,"{'Gpus': []}",
gpu_8x_a100_80gb,A100-80GB,8.0,240.0,1800.0,22.32,us-east-1,,
cpu_4x,,,4.0,16.0,0.2,us-east-1,,
gpu_odd,TPU-v5,1.0,30.0,226.0,0.10,us-east-1,,
gpu_free,A10,1.0,30.0,226.0,,us-east-1,,
gpu_wrong,A10,1.0,30.0,226.0,cheap,us-east-1,,
,A100,1.0,,,2.93,us-central1,,
"""


def test_skypilot_s_catalogue(tmp_path: Path) -> None:
    (tmp_path / "lambda").mkdir()
    file = tmp_path / "lambda" / "vms.csv"
    file.write_text(CATALOGUE)
    os.utime(file, (1_780_000_000, 1_780_000_000))
    found = {machine.name: machine for machine in sky_machines(tmp_path)}
    assert set(found) == {"gpu_1x_a10", "gpu_8x_a100_80gb"}
    ten = found["gpu_1x_a10"]
    assert (ten.per_hour, ten.provider, ten.price_date) == (0.75, "sky:lambda", "2026-05-28")
    assert (ten.device.name, ten.cores, ten.ram) == ("A10", 30, 226 * GIB)
    assert "us-east-1" in ten.price_source
    eight = found["gpu_8x_a100_80gb"]
    assert (eight.devices, eight.memory) == (8, devices()["A100-80GB"].memory)


def test_without_skypilot_there_is_no_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sky_machines() == ()
    (tmp_path / ".sky/catalogs/v8/lambda").mkdir(parents=True)
    (tmp_path / ".sky/catalogs/v8/lambda/vms.csv").write_text(CATALOGUE)
    assert len(sky_machines()) == 2


@given(st.text(max_size=200))
def test_a_damaged_catalogue_is_no_crash(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x").mkdir()
        (Path(folder) / "x/vms.csv").write_text(CATALOGUE + text, encoding="utf-8")
        assert len(sky_machines(Path(folder))) >= 2
