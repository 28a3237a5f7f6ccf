"""How many processes a plan has, what each of them holds, and the commands and scripts that start them."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments

from tests.support.plans import CPU, GPU, codes, make_plan, make_recipe, rows_of
from tests.support.runs import small_facts
from tunesmith.errors import EnvironmentLacksError, TunesmithError, UsageError
from tunesmith.files import exclusive
from tunesmith.launch import local
from tunesmith.launch.distributed import command, environment, signal_workers, works_on
from tunesmith.launch.slurm import write_script
from tunesmith.plan.machines import divided, find_machine
from tunesmith.plan.processes import processes_of
from tunesmith.plan.resolve import resolve
from tunesmith.records import RUN_LOCK, Finding, Hardware, ModelFacts, Plan, Processes, RunRecord, Sharding
from tunesmith.track.failures import forget_failures, tell_failure, told_failure

FOUR = GPU.model_copy(update={"count": 4})


def processes(hardware: Hardware = FOUR, adapter: str = "lora", **launch: Any) -> Processes:
    return processes_of(make_recipe(launch=launch, adapter={"kind": adapter}), hardware)


def found(plan: Plan, code: str) -> Finding:
    (one,) = [each for each in plan.findings if each.code == code]
    return one


@pytest.mark.parametrize(
    ("hardware", "launch", "count"),
    [
        (FOUR, {}, 1),
        (FOUR, {"processes": 2}, 2),
        (FOUR, {"processes": 5}, 4),
        (CPU, {"processes": 2}, 2),
        (CPU, {"processes": 3}, 2),
        (CPU.model_copy(update={"device": "mps"}), {"processes": 2}, 1),
        (FOUR, {"on": "hf-jobs"}, 4),
        (FOUR, {"on": "hf-jobs", "processes": 3}, 3),
    ],
)
def test_one_process_a_device_and_on_a_cpu_one_a_core(hardware: Hardware, launch: dict[str, Any], count: int) -> None:
    assert processes(hardware, **launch).count == count


def test_processes_of_several_nodes() -> None:
    made = processes(processes=2, nodes=3)
    assert (made.count, made.nodes, made.total, made.sharding) == (2, 3, 6, "ddp")
    assert processes(nodes=2).sharding == "ddp"


@pytest.mark.parametrize(
    ("adapter", "hardware", "launch", "sharding"),
    [
        ("lora", FOUR, {"processes": 1}, "none"),
        ("lora", FOUR, {"processes": 2}, "ddp"),
        ("none", FOUR, {"processes": 2}, "fsdp"),
        ("none", CPU, {"processes": 2}, "ddp"),
        ("lora", FOUR, {"processes": 2, "sharding": "fsdp"}, "fsdp"),
        ("none", FOUR, {"processes": 2, "sharding": "ddp"}, "ddp"),
        ("none", FOUR, {"processes": 1, "sharding": "fsdp"}, "none"),
    ],
)
def test_an_adapter_is_copied_and_all_weights_are_spread(
    adapter: str, hardware: Hardware, launch: dict[str, Any], sharding: Sharding
) -> None:
    assert processes(hardware, adapter, **launch).sharding == sharding


def planned(hardware: Hardware = FOUR, model: ModelFacts | None = None, **keys: Any) -> Plan:
    return make_plan(make_recipe(**keys), hardware, model)


def test_the_plan_tells_the_trainer_how_the_work_is_shared() -> None:
    full = {"kind": "none"}
    alone, copies = planned().training, planned(launch={"processes": 2}).training
    assert not {"fsdp", "fsdp_config", "deepspeed", "ddp_find_unused_parameters"} & set(alone)
    assert copies["ddp_find_unused_parameters"] is False
    experts = small_facts().model_copy(update={"experts": True})
    assert planned(model=experts, launch={"processes": 2}).training["ddp_find_unused_parameters"] is True
    spread = planned(adapter=full, launch={"processes": 2}).training
    assert spread["fsdp"] is True
    assert "ddp_find_unused_parameters" not in spread
    assert TrainingArguments(use_cpu=True, fsdp=True, fsdp_config=dict(spread["fsdp_config"])).fsdp_plugin_args == {
        "fsdp_version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "cpu_ram_efficient_loading": False,
        "state_dict_type": "SHARDED_STATE_DICT",
        "reshard_after_forward": True,
    }
    for stage in (2, 3):
        zero = planned(adapter=full, launch={"processes": 2, "sharding": f"zero{stage}"}).training["deepspeed"]
        assert zero["zero_optimization"]["stage"] == stage
        assert ("stage3_gather_16bit_weights_on_model_save" in zero["zero_optimization"]) == (stage == 3)
        assert zero["train_batch_size"] == "auto"


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 16), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2]))
def test_the_batch_of_an_update_is_that_of_one_process_as_far_as_it_can_be_divided(
    cores: int, count: int, nodes: int
) -> None:
    hardware = CPU.model_copy(update={"cores": cores})
    recipe = make_recipe([*[{"prompt": f"{n}", "completion": "x"} for n in range(100)]],
                         launch={"processes": count, "nodes": nodes})  # fmt: skip
    plan = resolve(recipe, rows_of(recipe), small_facts(), hardware, run="r").plan
    training, total = plan.training, plan.processes.total
    together = training["per_device_train_batch_size"] * total
    batch = together * training["gradient_accumulation_steps"]
    assert total == min(count, cores) * nodes
    assert (batch == 16) if 16 % total == 0 else (total <= batch < 16 + together)


def test_p037_more_processes_than_devices() -> None:
    many = make_recipe(launch={"processes": 3})
    for hardware, where, has in (
        (CPU, "this machine (cpu)", "2 cores"),
        (GPU.model_copy(update={"machine": "a10g-large (hf-jobs)"}), "a10g", "1 device"),
    ):
        one = found(make_plan(many, hardware), "P037")
        assert (one.severity, one.where) == ("error", "launch.processes")
        assert where in one.what
        assert one.what.endswith(f"has {has}.")
        assert f"processes: {has[0]}" in one.fix
    for hardware, launch in ((CPU, {"processes": 2}), (CPU, {}), (GPU.model_copy(update={"count": 3}), many.launch)):
        assert "P037" not in codes(planned(hardware, launch=dict(launch)))


def test_p070_weights_are_spread_over_gpus_only() -> None:
    mps = CPU.model_copy(update={"device": "mps", "count": 2})
    for hardware, device in ((CPU, "the CPU"), (mps, "Apple's GPU")):
        for sharding in ("fsdp", "zero2", "zero3"):
            one = found(planned(hardware, launch={"processes": 2, "sharding": sharding}), "P070")
            assert (one.severity, one.where) == ("error", "launch.sharding")
            assert device in one.what
    assert "P070" not in codes(planned(CPU, launch={"processes": 2, "sharding": "ddp"}))
    assert "P070" not in codes(planned(FOUR, launch={"processes": 2, "sharding": "fsdp"}))


def test_p071_deepspeed_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"launch": {"processes": 2, "sharding": "zero2"}}
    find = importlib.util.find_spec
    for there in (False, True):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, there=there: there or None if name == "deepspeed" else find(name)
        )
        assert ("P071" in codes(planned(**asked))) == (not there)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "deepspeed" else find(name))
    assert "P071" not in codes(planned(launch={"processes": 2, "sharding": "fsdp"}))


def test_p072_processes_share_the_main_memory() -> None:
    plan = planned(CPU, launch={"processes": 2})
    each = plan.memory.allocated + plan.memory.context
    assert "P072" not in codes(plan)
    tight = CPU.model_copy(update={"memory": round(1.9 * max(each, plan.memory.reserved + plan.memory.context))})
    one = found(planned(tight, launch={"processes": 2}), "P072")
    assert (one.severity, one.where) == ("error", "launch.processes")
    assert "processes: 1" in one.fix
    assert "P072" not in codes(planned(tight))
    assert "P072" not in codes(planned(FOUR, launch={"processes": 2}))


def test_p073_a_base_in_4_bits_is_not_spread() -> None:
    for sharding, refused in (("fsdp", True), ("zero3", True), ("zero2", False), ("ddp", False)):
        plan = planned(adapter={"kind": "qlora"}, launch={"processes": 2, "sharding": sharding})
        assert ("P073" in codes(plan)) == refused, sharding
    assert "P073" not in codes(planned(launch={"processes": 2, "sharding": "fsdp"}))


def test_p074_a_job_is_one_machine() -> None:
    one = found(planned(launch={"on": "hf-jobs", "nodes": 2}), "P074")
    assert (one.severity, one.where) == ("error", "launch.nodes")
    assert "hf-jobs" in one.what
    assert "P074" not in codes(planned(launch={"on": "hf-jobs"}))
    assert "P074" not in codes(planned(launch={"nodes": 2}))


def test_p027_nobody_to_share_the_work_with() -> None:
    assert found(planned(launch={"sharding": "fsdp"}), "P027").where == "launch.sharding"
    assert "P027" not in codes(planned(launch={"sharding": "fsdp", "processes": 2}))
    assert "P027" not in codes(planned())


def test_a_processor_is_shared_and_gpus_are_not() -> None:
    cpu, gpu = find_machine("cpu-xl"), find_machine("l40sx4")
    assert divided(cpu, 1) == cpu
    assert divided(cpu, 4).device.full == cpu.device.full / 4
    assert divided(gpu, 4) == gpu
    alone, two = planned(CPU), planned(CPU, launch={"processes": 2})
    assert alone.time is not None
    assert two.time is not None
    assert two.time.train.likely == pytest.approx(alone.time.train.likely, rel=0.5)


def test_one_process_is_the_worker_itself_and_several_are_started_by_torchrun() -> None:
    run = Path("/runs/one")
    assert command(run, Processes()) == [sys.executable, "-m", "tunesmith.train.worker", "/runs/one"]
    assert command(run, Processes(), anyway=True)[-1] == "--anyway"
    several = command(run, Processes(count=2, sharding="ddp"), anyway=True)
    assert several[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert several[several.index("--nproc-per-node") + 1] == "2"
    assert several[-4:] == ["-m", "tunesmith.train.worker", "/runs/one", "--anyway"]


def test_the_environment_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/space")
    eight = CPU.model_copy(update={"cores": 8})
    alone, three = environment(Processes(), eight), environment(Processes(count=3), eight)
    assert (alone["CUDA_VISIBLE_DEVICES"], three["CUDA_VISIBLE_DEVICES"]) == ("0", "0,1,2")
    assert "OMP_NUM_THREADS" not in alone
    assert three["OMP_NUM_THREADS"] == "2"
    assert int(three["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) > 60
    assert "TRACKIO_SPACE_ID" not in three
    assert "OMP_NUM_THREADS" not in environment(Processes(count=2), FOUR)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    mine = environment(Processes(count=3), eight)
    assert (mine["CUDA_VISIBLE_DEVICES"], mine["OMP_NUM_THREADS"]) == ("5", "7")


def several_nodes(folder: Path, **launch: Any) -> Plan:
    plan = planned(CPU, launch={"processes": 2, "nodes": 2, **launch})
    plan.save(folder)
    RunRecord(id=folder.name, status="prepared", created="2026-11-20T00:00:00+00:00").save(folder)
    return plan


def test_a_run_on_several_nodes_is_handed_to_a_cluster(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    run.mkdir()
    several_nodes(run)
    with pytest.raises(EnvironmentLacksError) as handed:
        local.run_worker(run, lambda event: None)
    assert "2 nodes" in handed.value.what
    assert f"sbatch {run / 'slurm.sh'}" in handed.value.fix
    assert subprocess.run(["bash", "-n", run / "slurm.sh"], check=False).returncode == 0


def test_the_script_asks_for_what_the_plan_has(tmp_path: Path) -> None:
    plan = several_nodes(tmp_path, timeout="2h5s")
    text = write_script(tmp_path, plan).read_text()
    assert "#SBATCH --nodes=2\n" in text
    assert "#SBATCH --time=120:05\n" in text
    assert "gpus-per-node" not in text
    on_gpus = plan.model_copy(update={"hardware": FOUR})
    assert "#SBATCH --gpus-per-node=2\n" in write_script(tmp_path, on_gpus).read_text()
    assert "--time" not in write_script(tmp_path, several_nodes(tmp_path)).read_text()


_NODE = """
import os, sys
print("rank", os.environ["RANK"], "of", os.environ["WORLD_SIZE"], sys.argv[1])
"""


@pytest.mark.slow
def test_the_script_brings_the_nodes_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm is played by two scripts; the rendezvous of the two torchruns is real."""
    run, tools = tmp_path / "a run", tmp_path / "tools"
    for folder in (run, tools):
        folder.mkdir()
    (tools / "node.py").write_text(_NODE)
    monkeypatch.setattr("tunesmith.launch.slurm.WORKER", "node")
    script = write_script(run, several_nodes(run))
    environment = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(tools),
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node[1-2]",
    }  # fmt: skip
    played(tools, "scontrol", 'if [ "$1" = show ]; then echo localhost; else echo "$@" > queued; fi')
    played(tools, "srun", 'shift; "$@" > first & "$@" > second; wait')
    ended = subprocess.run(["bash", script], cwd=tools, env=environment, check=False, timeout=100)
    assert ended.returncode == 0
    assert not (tools / "queued").exists()
    lines = (tools / "first").read_text() + (tools / "second").read_text()
    assert sorted(lines.splitlines()) == [f"rank {number} of 4 {run}" for number in range(4)]


_STOPS = """sed -i 's/"status": *"[a-z]*"/"status": "stopped"/' "${@: -1}/run.json"; exit 7"""
_TIME_IS_UP = "kill -USR1 $PPID; while [ ! -e told ]; do sleep 0.05; done; "


@pytest.mark.parametrize(
    ("before", "srun", "queued"),
    [
        ("running", _TIME_IS_UP + _STOPS, True),
        ("running", _STOPS, False),  # somebody has asked for it
        ("stopped", "exit 7", False),  # in an earlier attempt; this one failed
        ("stopped", _TIME_IS_UP + "exit 7", False),
        ("running", _TIME_IS_UP + "exit 7", False),
    ],
)
def test_a_run_is_queued_again_where_its_time_was_up(before: str, srun: str, queued: bool, tmp_path: Path) -> None:
    run, tools = tmp_path / "a run", tmp_path / "tools"
    for folder in (run, tools):
        folder.mkdir()
    script = write_script(run, several_nodes(run))
    RunRecord.load(run).model_copy(update={"status": before}).save(run)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "12"}
    played(tools, "scontrol", 'if [ "$1" = show ]; then echo localhost; else echo "$@" > queued; fi')
    played(tools, "scancel", 'echo "$@" > told')
    played(tools, "srun", srun)
    ended = subprocess.run(["bash", script], cwd=tools, env=environment, check=False, timeout=60)
    assert ended.returncode == 7
    assert (tools / "queued").exists() == queued
    if queued:
        assert (tools / "queued").read_text() == "requeue 12\n"
        assert (tools / "told").read_text() == "--signal=TERM 12\n"


def test_the_script_gives_the_workers_the_same_environment(tmp_path: Path) -> None:
    run, tools = tmp_path / "run", tmp_path / "tools"
    for folder in (run, tools):
        folder.mkdir()
    plan = several_nodes(run)
    played(tools, "scontrol", "echo localhost")
    played(tools, "srun", "env > seen")
    given = {
        "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "12", "TRACKIO_SPACE_ID": "me/space",
        "TRACKIO_SERVER_URL": "x", "TRACKIO_BUCKET_ID": "y", "OMP_WAIT_POLICY": "active", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    subprocess.run(["bash", write_script(run, plan)], cwd=tools, env=given, check=True, timeout=60)
    seen = dict(line.split("=", 1) for line in (tools / "seen").read_text().splitlines())
    assert not [name for name in seen if name.startswith("TRACKIO")]
    assert seen["OMP_NUM_THREADS"] == str(plan.hardware.cores // 2)
    assert (seen["OMP_WAIT_POLICY"], seen["CUDA_VISIBLE_DEVICES"]) == ("active", "")
    assert (seen["TOKENIZERS_PARALLELISM"], seen["TRANSFORMERS_VERBOSITY"]) == ("true", "warning")
    assert int(seen["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) == 300


def test_a_process_that_is_no_worker_of_the_run_is_left_alone(tmp_path: Path) -> None:
    several_nodes(tmp_path)
    record = RunRecord.load(tmp_path).model_copy(update={"status": "running", "host": socket.gethostname()})
    foreign = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with exclusive(tmp_path / RUN_LOCK):
            for pid in (foreign.pid, 2**22 + 1):
                record.model_copy(update={"pid": pid}).save(tmp_path)
                with pytest.raises(UsageError, match="can't be stopped from here"):
                    local.stop(tmp_path)
        record.model_copy(update={"pid": foreign.pid, "host": "node7"}).save(tmp_path)
        with pytest.raises(UsageError, match="isn't running here") as refused:
            local.stop(tmp_path)
        assert "node7" in refused.value.fix
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_a_worker_is_known_by_its_command_line(tmp_path: Path) -> None:
    waits = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", "tunesmith.train.worker"]
    for folder, at in ((str(tmp_path), "/"), (tmp_path.name, tmp_path.parent)):
        worker = subprocess.Popen([*waits, folder], cwd=at, stdout=subprocess.PIPE)
        try:
            assert worker.stdout is not None
            worker.stdout.readline()
            assert works_on(worker.pid, tmp_path)
            assert not works_on(worker.pid, tmp_path / "other")
        finally:
            worker.kill()
            worker.communicate()
    assert not works_on(os.getpid(), tmp_path)


def played(tools: Path, name: str, body: str) -> None:
    """A command of Slurm."""
    (tools / name).write_text(f"#!/bin/bash\n{body}\n")
    (tools / name).chmod(0o755)


def test_signals_go_to_the_workers_of_torchrun(tmp_path: Path) -> None:
    parent = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "print(child.wait(), flush=True)\n"
    )
    command = [sys.executable, "-c", parent]
    torchrun = subprocess.Popen([*command, "torch.distributed.run"], stdout=subprocess.PIPE, text=True)
    assert torchrun.stdout is not None
    torchrun.stdout.readline()
    signal_workers(torchrun.pid, signal.SIGTERM)
    assert torchrun.stdout.readline() == f"{-signal.SIGTERM}\n"
    assert torchrun.wait(timeout=20) == 0

    alone = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    time.sleep(0.2)
    signal_workers(alone.pid, signal.SIGTERM)
    assert alone.wait(timeout=20) == -signal.SIGTERM
    signal_workers(alone.pid, signal.SIGTERM)  # it is gone: nothing to tell


def test_the_process_that_failed_first_is_the_one_that_is_told_of(tmp_path: Path) -> None:
    assert told_failure(tmp_path) is None
    tell_failure(tmp_path, 3, EnvironmentLacksError("No memory.", why="It ran out.", fix="Buy some."))
    os.utime(tmp_path / "failed-3.json", (1, 1))
    tell_failure(tmp_path, 1, TunesmithError("Lost another.", why="Gone.", fix="None."))
    told = told_failure(tmp_path)
    assert told is not None
    assert (told.what, told.why, told.fix, told.exit_code) == ("Process 3: No memory.", "It ran out.", "Buy some.", 3)
    forget_failures(tmp_path)
    assert told_failure(tmp_path) is None
