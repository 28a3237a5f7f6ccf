"""What a run takes, against what it may take."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.plans import make_plan, make_recipe
from tests.support.runs import SMALL
from tunesmith.plan import limits
from tunesmith.plan.limits import (
    advised_timeout,
    check_cost,
    check_disk,
    check_merge,
    check_time,
    disk_needs,
    free_disk,
    merge_memory,
)
from tunesmith.recipe import Recipe, build_recipe
from tunesmith.records import MemoryEstimate, Plan
from tunesmith.records.cost import CostEstimate, Range, TimeEstimate

NOTHING = Range(low=0, likely=0, high=0)


def recipe(**launch: Any) -> Recipe:
    return build_recipe({"model": "m", "data": {"train": "a"}, "launch": launch})


def time(low: float, likely: float, high: float) -> TimeEstimate:
    total = Range(low=low, likely=likely, high=high)
    rest = dict.fromkeys(("start", "evaluate", "export", "tokens_per_second", "step_seconds", "efficiency"), NOTHING)
    return TimeEstimate(train=total, total=total, basis="test", **rest)


def cost(low: float, likely: float, high: float, per_hour: float = 2.5) -> CostEstimate:
    total = Range(low=low, likely=likely, high=high)
    return CostEstimate(per_hour=per_hour, total=total, price_date="2026-11-20", price_source="test")


def plan(**changes: Any) -> Plan:
    made = make_plan(make_recipe(adapter=changes.pop("adapter", {"kind": "lora"})))
    training = made.training | changes.pop("training", {})
    return made.model_copy(update={"training": training, **changes})


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(60, "5m"), (3600, "80m"), (7200, "160m"), (13_846, "300m"), (14_400, "5.5h"), (86_400, "31.5h")],
)
def test_the_advised_timeout(seconds: float, said: str) -> None:
    assert advised_timeout(seconds) == said


@given(st.floats(1, 1e7))
def test_an_advised_timeout_has_its_buffer_and_reads_back(seconds: float) -> None:
    read = recipe(timeout=advised_timeout(seconds)).launch.timeout
    assert read is not None
    assert 1.3 * seconds - 1e-3 <= read <= 1.3 * seconds + 1800


@pytest.mark.parametrize(
    ("launch", "estimate", "severity"),
    [
        ({"on": "hf-jobs", "timeout": "1h"}, (3000, 3601, 5000), "error"),
        ({"on": "hf-jobs", "timeout": "1h"}, (1000, 3000, 3601), "warning"),
        ({"on": "hf-jobs", "timeout": "1h"}, (1000, 3600, 3601), "warning"),
        ({"on": "hf-jobs", "timeout": "1h"}, (1000, 3000, 3600), None),
        ({"on": "hf-jobs"}, (1000, 1801, 2000), "error"),
        ({"on": "hf-jobs"}, (1000, 1500, 1801), "warning"),
        ({"on": "hf-jobs"}, (1000, 1500, 1800), None),
        ({"on": "sky"}, (10_000, 20_000, 30_000), None),
        ({"on": "sky", "timeout": "1h"}, (10_000, 20_000, 30_000), "error"),
        ({}, (10_000, 20_000, 30_000), None),
        ({"timeout": "1h"}, (10_000, 20_000, 30_000), "warning"),
        ({"timeout": "1h"}, (1000, 3000, 3600), None),
    ],
)
def test_h014_the_timeout(launch: dict[str, Any], estimate: tuple[float, float, float], severity: str | None) -> None:
    found = list(check_time(recipe(**launch), time(*estimate)))
    assert [one.severity for one in found] == ([severity] if severity else [])
    assert all((one.code, one.where) == ("H014", "launch.timeout") for one in found)


def test_h014_says_what_to_set() -> None:
    (one,) = check_time(recipe(on="hf-jobs"), time(3600, 7200, 10_800))
    assert one.what == "The run may take 3.0 h (likely 2.0 h), and without a timeout a job ends after 30 min."
    assert "timeout: 235m" in one.fix
    (one,) = check_time(recipe(on="hf-jobs", timeout="60s"), time(10, 70, 80))
    assert one.what == "The run may take 80 s (likely 70 s), and its timeout is 60 s."


@pytest.mark.parametrize(
    ("budget", "severity"), [("9 USD", "error"), ("9.99 USD", "error"), (10, "warning"), (11.99, "warning"), (12, None)]
)
def test_p013_the_budget(budget: object, severity: str | None) -> None:
    found = [one for one in check_cost(recipe(budget=budget), cost(8, 10, 12)) if one.code == "P013"]
    assert [one.severity for one in found] == ([severity] if severity else [])
    if severity:
        assert found[0].what.startswith("The run may cost 12.00 USD (likely 10.00), and the budget is ")
    assert list(check_cost(recipe(), cost(8, 10, 12))) == []


def test_h016_a_timeout_that_allows_more_than_the_budget() -> None:
    (one,) = check_cost(recipe(on="hf-jobs", budget=20, timeout="12h"), cost(8, 10, 12))
    assert (one.code, one.severity) == ("H016", "warning")
    assert one.what == "Until its timeout of 12.0 h the job can cost 30.00 USD, and the budget is 20.00 USD."
    assert "at most 480m" in one.fix
    assert list(check_cost(recipe(on="hf-jobs", budget=20, timeout="8h"), cost(8, 10, 12))) == []
    assert list(check_cost(recipe(on="hf-jobs", timeout="12h"), cost(8, 10, 12))) == []
    beyond = check_cost(recipe(on="hf-jobs", budget=5, timeout="12h"), cost(8, 10, 12))
    assert [one.code for one in beyond] == ["P013"]


def test_what_a_lora_run_writes() -> None:
    made = plan(parameters=1000, parameters_trained=10, steps=50)
    made = made.model_copy(update={"memory": MemoryEstimate(weights=0, gradients=0, optimizer=80, state=80)})
    model = made.model.model_copy(update={"dtype": "bfloat16"})
    made = made.model_copy(
        update={"model": model, "training": made.training | {"save_steps": 10, "save_total_limit": 2}}
    )
    assert disk_needs(made) == {
        "checkpoints": 3 * (40 + 80), "result": 40, "merged model": 2000, "GGUF": 2000 + round(1000 * 34 / 32)
    }  # fmt: skip


def test_what_a_full_run_writes() -> None:
    made = plan(adapter={"kind": "none"})
    needs, count = disk_needs(made), made.parameters
    assert needs["result"] == count * 4
    assert needs["merged model"] == 0
    assert needs["checkpoints"] == 3 * (count * 4 + made.memory.optimizer)


@pytest.mark.parametrize(
    ("training", "kept"),
    [
        ({"save_steps": 10, "save_total_limit": 2}, 3),
        ({"save_steps": 10, "save_total_limit": None}, 5),
        ({"save_steps": 25, "save_total_limit": 2}, 2),
        ({"save_steps": 0.1, "save_total_limit": None}, 10),
        ({"save_steps": 1, "save_total_limit": None}, 50),
        ({"save_steps": 2, "save_total_limit": None}, 25),
        ({"save_steps": 500, "save_total_limit": 2}, 1),
        ({"save_strategy": "epoch", "save_total_limit": None}, 4),
        ({"save_strategy": "no"}, 0),
    ],
)
def test_how_many_checkpoints_lie_there_at_a_time(training: dict[str, Any], kept: int) -> None:
    made = plan(training=training, steps=50, epochs=3.5)
    one = made.parameters_trained * 4 + made.memory.optimizer
    assert disk_needs(made)["checkpoints"] == kept * one


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_all_weights_are_saved_in_their_dtype_and_an_adapter_in_float32(dtype: str, width: int) -> None:
    made = plan(adapter={"kind": "none"}, model_kwargs={"dtype": dtype})
    assert disk_needs(made)["result"] == made.parameters * width
    made = plan(model_kwargs={"dtype": dtype})
    assert disk_needs(made)["result"] == made.parameters_trained * 4


@pytest.mark.parametrize(("stored", "width"), [("float32", 4), ("bfloat16", 2), ("int8", 4)])
def test_a_merged_model_has_the_base_s_dtype(stored: str, width: int) -> None:
    made = plan()
    made = made.model_copy(update={"model": made.model.model_copy(update={"dtype": stored})})
    assert disk_needs(made)["merged model"] == made.parameters * width


@pytest.mark.parametrize(
    ("seconds", "said"), [(89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (7200, "2.0 h")]
)
def test_spans_of_time_in_words(seconds: int, said: str) -> None:
    (one,) = check_time(recipe(timeout=1), time(1, 2, seconds))
    assert f"may take {said} (likely 2 s)" in one.what


def test_the_estimated_disk_is_what_a_real_model_takes() -> None:
    made = plan(adapter={"kind": "none"})
    assert disk_needs(made)["result"] == pytest.approx((SMALL / "model.safetensors").stat().st_size, rel=0.02)


def test_p014_the_disk() -> None:
    made = plan()
    need = sum(disk_needs(made).values())
    (one,) = check_disk(made, need - 1, "/somewhere")
    assert (one.code, one.severity) == ("P014", "error")
    assert "/somewhere has 6.8 MB free" in one.what
    assert re.search(r"checkpoints .* MB, result .* MB, merged model .* MB, GGUF", one.what)
    assert list(check_disk(made, need, "/somewhere")) == []


def test_free_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "a" / "b" / "c") == pytest.approx(free_disk(tmp_path), rel=0.05)
    assert free_disk(tmp_path) > 0


@pytest.mark.parametrize(("place", "severity"), [("hf-jobs", "error"), ("local", "warning"), ("sky", "warning")])
def test_p015_main_memory_for_the_export(place: str, severity: str) -> None:
    made = plan(parameters=8_000_000_000, parameters_trained=40_000_000)
    made = made.model_copy(update={"recipe": made.recipe | {"launch": {"on": place}}})
    need = 4 * 8_040_000_000 + limits._PROCESS
    assert merge_memory(made) == need
    (one,) = check_merge(made, 15 * 10**9, "a10g-small")
    assert (one.code, one.severity) == ("P015", severity)
    assert "take 33.2 GB of main memory, and a10g-small has 15.0 GB" in one.what
    assert list(check_merge(made, need, "a10g-large")) == []
    assert list(check_merge(made, 0, "unknown")) == []
    whole = plan(adapter={"kind": "none"})
    assert merge_memory(whole) == 4 * whole.parameters + limits._PROCESS


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_virtual_tokens_are_neither_merged_nor_written_as_gguf(kind: str) -> None:
    made = plan(adapter={"kind": kind})
    assert {what for what, size in disk_needs(made).items() if size} == {"checkpoints", "result"}
    assert merge_memory(made) == 0
    assert disk_needs(plan())["GGUF"] > 0
