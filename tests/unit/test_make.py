"""Plans of recipes as a user meets them: offline, on rented machines, compared, exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import chat_rows, codes, make_recipe, write_rows
from tunesmith import pipeline
from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.plan.machines import find_machine, machines
from tunesmith.plan.make import hardware_of
from tunesmith.recipe import Recipe, build_recipe
from tunesmith.records import Plan

GB = 10**9


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("tunesmith.plan.offers._SKY", tmp_path / "sky")


def recipe(model: str, **keys: Any) -> Recipe:
    data = {"train": write_rows(Path("train.jsonl"), chat_rows(240, words=60)), "eval": 0.5}
    return build_recipe({"model": model, "data": data, **keys}, folder=Path.cwd())


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03),
        ("Qwen/Qwen3-0.6B", 0.6),
        ("google/gemma-3-12b-it", 12.2),
        ("Qwen/Qwen3-30B-A3B", 30.5),
    ],
)
def test_known_models_are_planned_offline(model: str, billions: float) -> None:
    plan = pipeline.make_plan(recipe(model, launch={"on": "hf-jobs", "flavor": "h200"}))
    assert plan.parameters / 1e9 == pytest.approx(billions, rel=0.01)
    assert plan.model.origin == "table"
    assert {"P033", "P045"} <= set(codes(plan))
    assert plan.hardware.machine == "h200 (hf-jobs)"
    assert plan.memory.allocated > 2 * plan.parameters
    assert plan.time is not None
    assert plan.time.total.low < plan.time.total.likely < plan.time.total.high
    assert plan.cost is not None
    assert plan.cost.total.likely == pytest.approx(plan.time.total.likely / 3600 * plan.cost.per_hour)


def test_an_unknown_model_needs_the_hub() -> None:
    with pytest.raises(EnvironmentLacksError, match="can't be fetched"):
        pipeline.make_plan(recipe("nobody/nothing-7b"))


def test_a_known_model_is_not_trained_from_the_table() -> None:
    with pytest.raises(EnvironmentLacksError):
        pipeline.prepare_run(recipe("Qwen/Qwen3-0.6B"), Path("run"))
    assert not Path("run").exists()


def test_estimated_tokens_widen_the_time() -> None:
    counted = pipeline.make_plan(recipe("builtin:small"))
    assert "P045" not in codes(counted)
    estimated = pipeline.make_plan(recipe("Qwen/Qwen3-0.6B"))
    assert counted.time is not None
    assert estimated.time is not None

    def width(plan: Plan) -> float:
        assert plan.time is not None
        return plan.time.train.high / (plan.time.step_seconds.high * plan.steps)

    assert width(estimated) > 1.2 * width(counted)


def test_a_flavor_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="no machine h100") as caught:
        pipeline.make_plan(recipe("builtin:small", launch={"on": "hf-jobs", "flavor": "h100"}))
    assert "h200" in caught.value.fix


def test_without_a_flavor_the_cheapest_that_fits_is_taken() -> None:
    plan = pipeline.make_plan(recipe("meta-llama/Llama-3.1-8B-Instruct", launch={"on": "hf-jobs"}))
    assert plan.hardware.machine.endswith("(hf-jobs)")
    assert "P006" not in codes(plan)
    chosen = find_machine(plan.hardware.machine.split()[0], "hf-jobs")
    compared = pipeline.make_plan(
        recipe("meta-llama/Llama-3.1-8B-Instruct", launch={"on": "hf-jobs", "flavor": "h200"}), compare=True
    )
    prices = {
        one.machine: one.dollars.likely
        for one in compared.options
        if one.fits and one.dollars and one.provider == "hf-jobs" and one.adapter == "lora"
    }
    assert prices[chosen.name] <= 1.05 * min(prices.values())


def test_compare_names_every_machine_and_one_to_take() -> None:
    plan = pipeline.make_plan(recipe("Qwen/Qwen3-0.6B"), compare=True)
    assert {one.machine for one in plan.options} >= {one.name for one in machines()}
    assert {one.adapter for one in plan.options} == {"none", "lora", "qlora"}
    assert plan.options[0].provider == "here"
    for one in plan.options:
        assert (one.tokens_per_second is not None) == one.fits
        assert one.fits == (one.peak <= one.memory)
    best = plan.recommended.split()[0]
    assert any(one.machine == best and one.fits and one.adapter == "lora" for one in plan.options)
    assert pipeline.make_plan(recipe("Qwen/Qwen3-0.6B")).options == []


def test_on_a_rented_gpu_the_base_of_lora_is_loaded_in_half(tmp_path: Path) -> None:
    here = pipeline.make_plan(recipe("Qwen/Qwen3-0.6B"), compare=True)
    there = pipeline.make_plan(recipe("Qwen/Qwen3-0.6B", launch={"on": "hf-jobs", "flavor": "l4x1"}), compare=True)
    peaks = [[one.peak for one in plan.options if one.machine == "l4x1"] for plan in (here, there)]
    assert peaks[0] == peaks[1]


def test_a_machine_as_hardware() -> None:
    gpu = hardware_of(find_machine("a100x4", "hf-jobs"))
    assert (gpu.device, gpu.count, gpu.bf16, gpu.machine) == ("cuda", 4, True, "a100x4 (hf-jobs)")
    assert 79 * GB < gpu.memory < 86 * GB
    assert hardware_of(find_machine("cpu-basic", "hf-jobs")).device == "cpu"


def test_budget_and_timeout_are_held_against_the_estimate() -> None:
    tight = {"on": "hf-jobs", "flavor": "h200", "timeout": "1m", "budget": "0.01 USD"}
    found = codes(pipeline.make_plan(recipe("Qwen/Qwen3-0.6B", launch=tight)))
    assert {"H014", "P013"} <= set(found)
    wide = {"on": "hf-jobs", "flavor": "h200", "timeout": "20h", "budget": "200 USD"}
    assert not {"H014", "P013"} & set(codes(pipeline.make_plan(recipe("Qwen/Qwen3-0.6B", launch=wide))))


def test_a_disk_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "P014" not in codes(pipeline.make_plan(make_recipe()))
    monkeypatch.setattr("tunesmith.plan.make.free_disk", lambda folder: 1000)
    assert "P014" in codes(pipeline.make_plan(make_recipe()))


def test_a_folder_with_config_json_alone_can_be_planned() -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
    }
    Path("bare").mkdir()
    Path("bare/config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="tokenizer"):
        pipeline.make_plan(recipe(str(Path("bare").absolute())))


@pytest.mark.slow
def test_exact_agrees_with_the_closed_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    launch = {"on": "hf-jobs", "flavor": "h200"}
    closed, exact = (
        pipeline.make_plan(recipe("Qwen/Qwen3-0.6B", launch=launch), exact=which) for which in (False, True)
    )
    assert (closed.memory.tier, exact.memory.tier) == ("closed form", "fake step")
    assert exact.memory.allocated == pytest.approx(closed.memory.allocated, rel=0.08)
