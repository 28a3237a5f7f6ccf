"""Plans of recipes as a user meets them: offline, on rented machines, compared, exact."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.methods import method_recipe, method_rows
from tests.support.plans import GPU, chat_rows, codes, make_recipe, write_rows
from tunesmith import pipeline
from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.plan.machines import can_start, find_machine, hardware_of, machines
from tunesmith.recipe import Recipe, build_recipe
from tunesmith.records import MachineOption, Plan

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
        if one.fits and not one.lacks and one.dollars and one.provider == "hf-jobs" and one.adapter == "lora"
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


def says_the_same(option: MachineOption, plan: Plan) -> None:
    """Assert that an option is what the plan of its machine says."""
    assert plan.time is not None
    assert option.fits == ("P006" not in codes(plan))
    assert option.peak == plan.memory.reserved + plan.memory.context
    assert option.rows == plan.training["per_device_train_batch_size"]
    assert (option.checkpointing != "off") == plan.training["gradient_checkpointing"]
    assert (option.dtype, option.sharding) == (plan.model_kwargs["dtype"], plan.processes.sharding)
    assert bool(option.lacks) == bool({"P014", "P015"} & set(codes(plan)))
    if option.fits:
        assert option.tokens_per_second == plan.time.tokens_per_second
        assert option.hours == plan.time.total.times(1 / 3600)
        assert option.dollars == (plan.cost.total if plan.cost else None)


def uneven_rows() -> list[dict[str, Any]]:
    """Rows of very different length, for which padded batches are grouped."""
    return chat_rows(240, words=20) + chat_rows(260, words=900)[240:]


@pytest.mark.parametrize("flavor", ["h200", "a100-large", "l40sx4", "t4-medium", "cpu-xl"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"training": {"gradient_checkpointing": True, "per_device_train_batch_size": 2}},
        {"training": {"packing": False, "padding_free": False}, "speed": {"attention": "sdpa"}},
        {"adapter": {"kind": "none"}},
        {"adapter": {"kind": "qlora", "r": 64}, "model": "meta-llama/Llama-3.1-8B-Instruct"},
        {"adapter": {"kind": "ia3"}, "dtype": "float32"},
        {"method": "dpo"},
        {"method": "kto", "adapter": {"kind": "none"}},
        {"method": "grpo"},
        {"method": "clm"},
    ],
    ids=["lora", "as set", "padded", "full", "qlora", "ia3", "dpo", "kto", "grpo", "clm"],
)
def test_compare_says_of_a_machine_what_its_plan_says(flavor: str, keys: dict[str, Any], tmp_path: Path) -> None:
    how = {"model": "Qwen/Qwen3-0.6B", "launch": {"on": "hf-jobs", "flavor": flavor}, **keys}
    method, kind = how.pop("method", "sft"), how.get("adapter", {}).get("kind", "lora")
    rows = uneven_rows() if method == "sft" else method_rows(method, 96)
    plan = pipeline.make_plan(method_recipe(method, tmp_path, rows=rows, **how), compare=True)
    found = [one for one in plan.options if (one.machine, one.adapter) == (flavor, kind)]
    if kind != "qlora" or plan.hardware.device == "cuda":
        says_the_same(found[0], plan)


@pytest.mark.parametrize("kind", ["none", "lora", "qlora"])
def test_compare_here_says_of_every_job_what_its_plan_would_say(kind: str) -> None:
    data = {"train": write_rows(Path("long.jsonl"), chat_rows(120, words=900)), "eval": 0.1}
    model = "meta-llama/Llama-3.1-8B-Instruct"
    here = pipeline.make_plan(build_recipe({"model": model, "data": data}, folder=Path.cwd()), compare=True)
    packed = set()
    for option in here.options:
        if (option.provider, option.adapter) != ("hf-jobs", kind):
            continue
        launch: dict[str, Any] = {"on": "hf-jobs", "flavor": option.machine}
        launch |= {"sharding": "fsdp"} if kind == "lora" and option.sharding == "fsdp" else {}
        dtype = option.dtype if kind == "none" and "P010" in option.note else "auto"
        keys = {"model": model, "data": data, "adapter": {"kind": kind}, "launch": launch, "dtype": dtype}
        plan = pipeline.make_plan(build_recipe(keys, folder=Path.cwd()))
        says_the_same(option, plan)
        packed.add(plan.training["packing"])
    assert packed == {True, False}


def test_here_a_run_takes_the_devices_that_it_starts_processes_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.plan.make.local_hardware", lambda: GPU.model_copy(update={"count": 4}))
    plan = pipeline.make_plan(recipe("Qwen/Qwen3-0.6B"), compare=True)
    assert (plan.options[0].provider, plan.options[0].devices) == ("here", 1)
    assert plan.time is not None
    assert plan.options[1].tokens_per_second == plan.time.tokens_per_second


def test_the_machine_that_is_taken_has_the_main_memory_and_the_disk_for_the_export() -> None:
    eight = {"adapter": {"kind": "qlora"}, "launch": {"on": "hf-jobs"}}
    plan = pipeline.make_plan(recipe("meta-llama/Llama-3.1-8B-Instruct", **eight), compare=True)
    assert not {"P014", "P015"} & set(codes(plan))
    lacks = {one.machine: one.lacks for one in plan.options if one.adapter == "qlora" and one.fits}
    assert lacks["l4x1"] == "30 GB of main memory"
    assert (lacks["l40sx1"], lacks["rtx-4090"]) == ("", "")
    kept = {"training": {"max_steps": 400, "save_steps": 1, "save_total_limit": 400}}
    small = pipeline.make_plan(recipe("Qwen/Qwen3-0.6B", **kept, launch={"on": "hf-jobs"}), compare=True)
    assert any(one.lacks.endswith("GB of disk") for one in small.options)
    assert "P014" not in codes(small)


def test_recommended_is_what_the_recipe_can_start() -> None:
    model, long = "meta-llama/Llama-3.1-8B-Instruct", {"max_steps": 20_000}
    plan = pipeline.make_plan(recipe(model, training=long, launch={"on": "hf-jobs"}), compare=True)
    assert plan.recommended.startswith(plan.hardware.machine)
    elsewhere = plan.recommended.split("Cheaper elsewhere: ")[1]
    assert "hf-jobs" not in elsewhere
    free = pipeline.make_plan(recipe(model, training=long), compare=True)
    assert free.recommended.startswith(elsewhere.split(",")[0])
    assert "elsewhere" not in free.recommended


def test_the_machine_that_is_taken_is_one_on_which_the_plan_fits() -> None:
    """On eight smaller devices LoRA of 70 billion parameters fits with FSDP only, which the plan doesn't choose."""
    plan = pipeline.make_plan(recipe("meta-llama/Llama-3.3-70B-Instruct", launch={"on": "hf-jobs"}))
    assert not {"P006", "P014", "P015"} & set(codes(plan))


def test_sky_takes_machines_of_clouds_only() -> None:
    plan = pipeline.make_plan(recipe("Qwen/Qwen3-0.6B", launch={"on": "sky"}))
    provider = plan.hardware.machine.split("(")[1].rstrip(")")
    assert can_start("sky", provider)
    for name in ("l4x1", "rtx-4090"):
        with pytest.raises(UsageError, match=f"no machine {name}"):
            pipeline.make_plan(recipe("Qwen/Qwen3-0.6B", launch={"on": "sky", "flavor": name}))


def test_p035_names_each_old_price_list_that_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls(2030, 1, 1, tzinfo=tz)

    monkeypatch.setattr("tunesmith.plan.cost.datetime.datetime", Later)
    launch = {"on": "hf-jobs", "flavor": "h200"}
    assert codes(pipeline.make_plan(recipe("Qwen/Qwen3-0.6B", launch=launch))).count("P035") == 1
    assert codes(pipeline.make_plan(recipe("Qwen/Qwen3-0.6B", launch=launch), compare=True)).count("P035") == 5


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
