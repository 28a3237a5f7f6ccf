"""How a plan looks in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.options import option, span
from tests.support.plans import chat_rows, write_rows
from tunesmith import pipeline
from tunesmith.cli.output import Output
from tunesmith.cli.plan_views import show_options, worth_showing
from tunesmith.plan.machines import machines
from tunesmith.recipe import build_recipe
from tunesmith.records import Plan


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plan:
    """A model of eight billion parameters, compared."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("tunesmith.plan.offers._SKY", tmp_path / "sky")
    data = {"train": write_rows(Path("train.jsonl"), chat_rows(240, words=300))}
    keys = {"model": "meta-llama/Llama-3.1-8B-Instruct", "data": data, "launch": {"on": "hf-jobs"}}
    return pipeline.make_plan(build_recipe(keys, folder=Path.cwd()), compare=True)


def test_a_comparison_takes_one_screen_of_80_columns(eight: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    show_options(Output(), eight)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 45
    assert max(len(line) for line in lines) <= 80
    names = {machine.name for machine in machines()}
    shown = {line.split()[0] for line in lines if line and line.split()[0] in names}
    assert len(shown) > 15
    worth = {one.machine for one in worth_showing(eight.options)}
    assert worth - {one.machine for one in eight.options if one.provider == "here"} == shown


def test_no_machine_s_name_is_too_wide_for_its_column(eight: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    wide = [
        one.model_copy(update={"fits": True, "lacks": "", "note": "x", "peak": one.memory}) for one in eight.options
    ]
    everywhere = [one.model_copy(update={"dollars": span(99), "hours": span(99.4)}) for one in wide]
    show_options(Output(), eight.model_copy(update={"options": everywhere}))
    said = capsys.readouterr().out.split()
    for one in worth_showing(everywhere):
        assert one.machine in said


def test_every_machine_is_shown_or_counted(eight: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    show_options(Output(), eight)
    said = " ".join(capsys.readouterr().out.split())
    worth = {(one.provider, one.machine) for one in worth_showing(eight.options)}
    counted = [int(part.split()[0]) for part in said.split("Left out: ")[1:]]
    assert len(counted) == 3
    assert len(worth) + sum(counted) == len({(one.provider, one.machine) for one in eight.options})


def test_signs_of_a_cell(eight: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    ways: list[dict[str, Any]] = [
        {"adapter": "none", "note": "rounded; spread", "peak": 96, "memory": 100},
        {"adapter": "lora", "lacks": "1 GB of disk"},
        {"adapter": "qlora", "dollars": None, "hours": span(12.4), "peak": 10, "memory": 100},
    ]
    show_options(Output(), eight.model_copy(update={"options": [option(**way) for way in ways]}))
    said = capsys.readouterr().out
    assert "5.00 2.0*!  -     own 12" in said
    assert "!: over 95% of the memory." in said
    assert "*: rounded; or spread." in said


@pytest.mark.parametrize(
    ("other", "left"),
    [
        ({"dollars": span(4)}, 1),
        ({"dollars": span(4), "hours": span(2.09)}, 1),
        ({"dollars": span(4), "hours": span(2.11)}, 2),
        ({"dollars": span(4.8), "hours": span(2)}, 1),
        ({"dollars": span(4.8), "hours": span(2.01)}, 2),
        ({"dollars": span(4), "provider": "q"}, 2),
        ({"dollars": span(4), "adapter": "qlora"}, 2),
        ({"dollars": span(4), "note": "rounded"}, 2),
        ({"dollars": None}, 2),
        ({"device": "d", "dollars": span(9)}, 1),
        ({"device": "d", "note": "rounded"}, 2),
        ({"dollars": span(4), "lacks": "disk"}, 1),
        ({"dollars": span(4), "fits": False}, 1),
    ],
)
def test_what_another_machine_of_the_provider_does_as_well_is_left_out(other: dict[str, Any], left: int) -> None:
    one = option(devices=2)
    assert len(worth_showing([one, option(**{"machine": "other", "device": "e", **other})])) == left


def test_details_tell_peak_rows_and_speed_of_each_way_that_is_shown(
    eight: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    show_options(Output(), eight)
    assert "tokens/s" not in capsys.readouterr().out
    show_options(Output(), eight, details=True)
    said = capsys.readouterr().out
    one = next(one for one in eight.options if (one.machine, one.adapter) == ("l40sx1", "qlora"))
    assert one.tokens_per_second is not None
    line = next(line.split() for line in said.splitlines() if line.startswith("l40sx1") and "recomputes" not in line
                and f"{one.peak / 1e9:.1f}" in line)  # fmt: skip
    speed = f"{one.tokens_per_second.low:,.0f}-{one.tokens_per_second.high:,.0f}"
    assert line[1:] == ["QLoRA", f"{one.peak / 1e9:.1f}", "of", f"{one.memory / 1e9:.0f}", str(one.rows), "no", speed]
