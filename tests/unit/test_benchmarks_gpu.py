"""The benchmark on a GPU, as far as it runs without one: what it chooses, how it goes on, what it says at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import session
from benchmarks.gpu.checks import CHECKS, can_check, check
from benchmarks.gpu.configurations import LARGE, MIDDLE, SMALL, Configuration, chosen, predict
from benchmarks.gpu.race import RACES, TRIED, Race, chosen_races, operations, race
from benchmarks.gpu.results import Results, table
from benchmarks.gpu.session import LEAST, go_on, head, in_a_process
from benchmarks.gpu.worker import status_of
from tunesmith.plan.machines import find_machine
from tunesmith.plan.memory import estimate
from tunesmith.records import VARLEN, Hardware

ROOT = Path(__file__).parents[2]
H200 = find_machine("h200")
FIRST, SECOND = Configuration(SMALL, "none", 8, 1024), Configuration(LARGE, "lora", 4, 512, padded=True)
SPEED = {"low": 900.0, "likely": 1000.0, "high": 1200.0}
PREDICTED = {"allocated": 10e9, "reserved": 12e9, "context": 5e8, "fits": True, "tokens_per_second": SPEED}
MEASURED = {
    "allocated": 10.5e9,
    "reserved": 11e9,
    "context": 6e8,
    "tokens_per_second": 1100.0,
    "losses": [9.0, 8.9],
    "grad_norms": [1.0, 0.9],
    "trains": True,
}
CASE = {"dtype": "float32", "attention": "sdpa", "way": "padded", "difference": 1e-6, "as_expected": True}
HOLDS = {"status": "measured", "holds": True, "seen": "loss 2 to 1"}
RUN = {"status": "measured", "tokens_per_second": 100.0, "turns": [90.0, 110.0], "mfu": 0.1, "trains": True}
RACED = {
    "status": "measured",
    "equal": True,
    "fixed_spread": 0.001,
    "contestants": {
        "TRL, docs example": RUN | {"tokens_per_second": 50.0},
        "TRL, tuned: packed": {"status": "out of memory", "error": "small"},
        "tunesmith": RUN,
    },
}
PARITY = {"status": "measured", "equal": True, "cases": [CASE]}


def where(**other: Any) -> dict[str, Any]:
    given = {"comparable": True, "device": "NVIDIA H200", "memory": 150, "table_device": "H200", "versions": {}}
    return head(**(given | other))


def expecting(folder: Path, *configurations: Configuration) -> Results:
    results = Results(folder / "gpu.json", where())
    for configuration in configurations or (FIRST, SECOND):
        results.expect(configuration, dict(PREDICTED))
    return results


def answering(**statuses: str) -> tuple[list[str], Callable[[dict[str, Any], float], dict[str, Any]]]:
    """A runner that gives each model's steps a status, and the list of what it was asked."""
    asked: list[str] = []

    def run(job: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert 0 < seconds <= (session.RACE_LIMIT if "race" in job else session.LIMIT)
        if "parity" in job:
            asked.append("parity")
            return PARITY
        if "check" in job or "race" in job:
            asked.append(job.get("check") or Race(**job["race"]).name)
            return dict(HOLDS if "check" in job else RACED)
        size = Configuration(**job["train"]).model.rpartition("-")[2]
        asked.append(size)
        status = statuses.get(f"of_{size.replace('.', '_')}", "measured")
        return {"status": status} | (MEASURED if status == "measured" else {"error": "why"})

    return asked, run


def carry_on(results: Results, run: Any, *, seconds: float = 1000.0) -> bool:
    return go_on(results, time.monotonic() + seconds, tiny=False, run=run, say=lambda line: None)


def test_each_size_and_way_and_two_lengths_are_measured_also_without_4_bits() -> None:
    for four_bits, ways in ((True, {"none", "lora", "qlora"}), (False, {"none", "lora"})):
        configurations = chosen(tiny=False, four_bits=four_bits)
        assert len({one.name for one in configurations}) == len(configurations) >= 8
        assert {one.model for one in configurations} == {SMALL, MIDDLE, LARGE}
        assert {one.adapter for one in configurations} == ways
        assert {one.length for one in configurations} == {1024, 4096}
        assert any(one.padded for one in configurations)


def test_the_name_says_all_that_differs() -> None:
    odd = Configuration(LARGE, "qlora", 2, 4096, dtype="float32", checkpointing="full", padded=True)
    assert odd.name == "Qwen3-8B QLoRA, 2 x 4,096, fp32, recomputed, padded"
    assert FIRST.name == "Qwen3-0.6B full, 8 x 1,024"


def test_rows_of_a_padded_batch_have_two_lengths() -> None:
    assert SECOND.lengths == [512, 256, 512, 256]
    assert FIRST.lengths == [1024] * 8


def test_the_step_is_the_plans_and_the_shapes_are_the_tables() -> None:
    step = Configuration(LARGE, "lora", 2, 1024, checkpointing="full").step()
    assert step.model.parameters == 8_190_735_360
    assert (step.adapter, step.rows, step.length, step.checkpointing, step.dtype) == (
        *("lora", 2, 1024),
        *("full", "bfloat16"),
    )
    assert step.mixed
    assert step.fused_loss


def test_predictions_are_of_the_machine_and_all_but_the_largest_fit_it() -> None:
    predicted = {one.name: predict(one, H200) for one in chosen(tiny=False, four_bits=True)}
    assert all(one["fits"] for one in predicted.values())
    assert all(one["allocated"] < one["reserved"] for one in predicted.values())
    small = predicted[FIRST.name]
    # Weights, gradients and two moments in bf16 are eight bytes for each of 596 M parameters.
    assert small["allocated"] > 8 * 596e6
    assert (small["allocated"], small["reserved"]) == ((of := estimate(FIRST.step())).allocated, of.reserved)
    # The interval is the machine's: no processor comes near.
    assert 5_000 < small["tokens_per_second"]["low"] < small["tokens_per_second"]["high"] < 500_000
    assert not predict(Configuration(LARGE, "none", 8, 4096, dtype="float32"), H200)["fits"]


def test_all_predictions_are_written_before_anything_is_measured(tmp_path: Path) -> None:
    def run(job: dict[str, Any], seconds: float) -> dict[str, Any]:
        written = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
        assert [row["predicted"] for row in written["rows"]] == [PREDICTED, PREDICTED]
        assert [row["status"] for row in written["rows"]] == ["waiting", "waiting"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_on(expecting(tmp_path), run)


def test_a_second_call_does_what_is_left(tmp_path: Path) -> None:
    asked, run = answering(of_8B="out of memory")
    assert carry_on(expecting(tmp_path), run)
    assert asked == ["parity", "0.6B", "8B"]
    again, run = answering()
    results = expecting(tmp_path, FIRST, SECOND, Configuration(MIDDLE, "none", 1, 64))
    assert carry_on(results, run)
    assert again == ["1.7B"]
    assert [row["status"] for row in results.rows] == ["measured", "out of memory", "measured"]


def test_what_failed_is_tried_again_after_what_never_ran(tmp_path: Path) -> None:
    _, run = answering(of_0_6B="failed", of_8B="timed out")
    carry_on(expecting(tmp_path), run)
    asked, run = answering()
    results = expecting(tmp_path, FIRST, SECOND, Configuration(MIDDLE, "none", 1, 64))
    carry_on(results, run)
    assert asked == ["1.7B", "0.6B", "8B"]
    assert {row["status"] for row in results.rows} == {"measured"}
    assert {row["error"] for row in results.rows} == {""}


def test_checks_come_first_then_races_then_memory_and_none_twice(tmp_path: Path) -> None:
    for first in (True, False):
        asked, run = answering()
        results = expecting(tmp_path)
        results.ask(["DPO", "GRPO"], [RACES[0]])
        assert carry_on(results, run)
        assert asked == (["parity", "DPO", "GRPO", "Qwen3-8B LoRA", "0.6B", "8B"] if first else [])
    assert len(results.checks) == 2
    assert len(results.races) == 1


def test_the_table_tells_of_checks_and_races(tmp_path: Path) -> None:
    results = expecting(tmp_path)
    results.ask(["DPO", "GRPO"], [RACES[0]])
    _, run = answering()
    assert "Qwen3-8B LoRA    waiting" in table(results.content)
    carry_on(results, run)
    lines = [" ".join(line.split()) for line in table(results.content).splitlines()]
    assert "DPO holds: loss 2 to 1" in lines
    assert "TRL, docs example 50 0.50 10.0% 90, 110" in lines
    assert "TRL, tuned: packed out of memory" in lines
    assert "tunesmith 100 1.00 10.0% 90, 110" in lines
    results.checks[0]["measured"]["holds"] = False
    results.races[0]["measured"] |= {"equal": False, "contestants": {"tunesmith": RUN | {"trains": False}}}
    said = table(results.content)
    assert "DOES NOT HOLD" in said
    assert "NOT THE SAME LOSS on the fixed batch: they differ by 0.1%" in said
    assert "DID NOT TRAIN" in said
    assert len(list(chosen_races(tiny=False, four_bits=False))) == len(RACES) - 1


def test_utilisation_counts_what_must_be_computed() -> None:
    lora, full = (operations(Race(LARGE, kind)) for kind in ("lora", "none"))
    assert lora == pytest.approx(4 * 7.57e9, rel=0.01)  # all but the table of embeddings
    assert full == 1.5 * lora


@pytest.mark.slow
def test_contestants_train_the_same_tokens_from_the_same_loss() -> None:
    found = race(TRIED[0], "cpu")
    assert found["equal"], found["fixed_spread"]
    assert set(found["contestants"]) == set(TRIED[0].contestants)
    tokens = [one["tokens"] for one in found["contestants"].values()]
    assert min(tokens) > 0.8 * max(tokens)  # packed rows don't divide evenly into steps
    for one in found["contestants"].values():
        assert one["trains"]
        assert len(one["turns"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHECKS if can_check(name)])
def test_checks_hold_on_a_cpu_too(name: str) -> None:
    found = check(name, "cpu", tiny=True)
    assert found["holds"], found["seen"]


def test_a_prediction_stands_once_its_step_was_measured(tmp_path: Path) -> None:
    _, run = answering(of_8B="failed")
    carry_on(expecting(tmp_path), run)
    results = Results(tmp_path / "gpu.json", where())
    for configuration in (FIRST, SECOND):
        results.expect(configuration, PREDICTED | {"allocated": 1})
    assert [row["predicted"]["allocated"] for row in results.rows] == [10e9, 1]


def test_nothing_is_started_that_the_time_left_is_too_short_for(tmp_path: Path) -> None:
    asked, run = answering()
    assert not carry_on(expecting(tmp_path), run, seconds=LEAST - 1)
    assert asked == []
    assert json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parity"] is None


def test_measurements_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    expecting(tmp_path).write()
    with pytest.raises(ValueError, match=r"other device, memory: remove it, or give --output DIR\.$"):
        Results(tmp_path / "gpu.json", where(device="NVIDIA L4", memory=24))
    with pytest.raises(ValueError, match="versions"):
        Results(tmp_path / "gpu.json", where(versions={"torch": "2.11"}))


def test_the_table_has_predictions_measurements_and_errors(tmp_path: Path) -> None:
    results = expecting(tmp_path)
    _, run = answering(of_8B="out of memory")
    carry_on(results, run)
    said = table(results.content)
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert "Qwen3-0.6B full, 8 x 1,024 10.00 10.50 -4.8% 12.00 11.00 +9.1% 900..1,200 1,100" in lines
    assert "out of memory (predicted: fits, reserved 12.00 GB)" in said
    assert "Attention: the same loss alone, padded and packed." in said
    assert "1 of 2 configurations measured on NVIDIA H200." in said
    assert "allocated: median error 4.8%, worst -4.8%, least -4.8%" in said
    assert "reserved: median error 9.1%, worst +9.1%, least +9.1%" in said
    assert "context: predicted 0.50 GB, measured 0.60 GB" in said
    assert "tokens/s: 1 of 1 inside their interval" in said
    assert "DID NOT TRAIN" not in said


def test_the_table_hides_nothing_that_went_wrong(tmp_path: Path) -> None:
    results = expecting(tmp_path, FIRST)
    results.parity = PARITY | {"equal": False, "cases": [CASE | {"as_expected": False}]}
    slow = MEASURED | {"tokens_per_second": 899.0, "trains": False, "grad_norms": [0.0]}
    results.rows[0] |= {"status": "measured", "measured": slow}
    said = table(results.content)
    assert "NOT THE SAME LOSS" in said
    assert "UNEXPECTED" in said
    assert "899 OUTSIDE" in said
    assert "0 of 1 inside" in said
    assert "DID NOT TRAIN: gradient norms [0.0]" in said
    results.parity = {"status": "failed", "error": "no such attention"}
    assert "Attention: failed: no such attention" in table(results.content)


def test_a_trial_on_the_cpu_has_no_errors_in_its_table(tmp_path: Path) -> None:
    results = Results(tmp_path / "gpu.json", where(comparable=False))
    row = results.expect(FIRST, dict(PREDICTED))
    row |= {"status": "measured", "measured": MEASURED | {"reserved": None, "context": None}}
    said = table(results.content)
    assert "Not comparable" in said
    assert "%" not in said
    assert "Attention: not checked" in said


def test_memory_that_runs_out_is_told_from_other_errors() -> None:
    assert status_of(torch.OutOfMemoryError("CUDA")) == "out of memory"
    assert status_of(RuntimeError("CUDA error: out of memory")) == "out of memory"
    assert status_of(RuntimeError("CUDA error: an illegal memory access was encountered")) == "failed"


def test_a_job_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert in_a_process({"parity": SMALL, "tiny": True}, 0.05)["status"] == "timed out"


def test_a_process_without_a_result_says_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no such module
    monkeypatch.delenv("PYTHONPATH", raising=False)
    result = in_a_process({}, 60)
    assert result["status"] == "failed"
    assert "ended with 1 and no result" in result["error"]
    assert "benchmarks" in result["error"]


def test_a_job_sees_one_gpu_and_the_allocator_as_it_is_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}

    def run(*words: Any, env: dict[str, str], **rest: Any) -> subprocess.CompletedProcess[str]:
        given.update(env)
        return subprocess.CompletedProcess([], 0, stdout='noise\n{"status": "measured"}\n', stderr="")

    monkeypatch.setattr(session.subprocess, "run", run)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    for visible, seen in (("2,3", "2"), ("", ""), (None, "0")):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert in_a_process({}, 1) == {"status": "measured"}
        assert given["CUDA_VISIBLE_DEVICES"] == seen
    assert "PYTORCH_CUDA_ALLOC_CONF" not in given
    assert given["HF_HUB_OFFLINE"] == "1"


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.gpu import __main__ as command

    cpu = Hardware(device="cpu", name="x86_64", count=1, memory=1 << 34, cores=2, bf16=False)
    monkeypatch.setattr(command, "local_hardware", lambda: cpu)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="no NVIDIA GPU"):
        command.main()


@pytest.mark.slow
def test_a_tiny_trial_runs_all_of_it_and_a_second_one_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--output", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert found["parity"]["equal"], found["parity"]
    assert {case["attention"] for case in found["parity"]["cases"]} == {"eager", "sdpa", VARLEN}
    assert [row["measured"]["holds"] for row in found["checks"]] == [True]
    assert [row["measured"]["equal"] for row in found["races"]] == [True]
    assert len(found["rows"]) >= 2
    for row in found["rows"]:
        assert row["status"] == "measured", row
        assert row["measured"]["trains"], row
        assert abs(row["measured"]["losses"][0] - 8.3) < 0.5  # of random weights: ln 4096
        assert row["measured"]["tokens_per_second"] > 0
    assert "Not comparable" in done.stdout
    assert "Time is up" not in done.stdout
    began = time.monotonic()
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
    assert ": measured" in done.stderr
    assert ": measured" not in again.stderr
    assert time.monotonic() - began < 90
