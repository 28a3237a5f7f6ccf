"""Which evaluation is the best, when to stop, what the plan says of it, and the chart of a run."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerState

from tests.support.methods import METHODS
from tests.support.plans import codes, make_plan, make_recipe
from tests.support.runs import SMALL
from tunesmith.cli import main
from tunesmith.cli.curves import ASCII, HEIGHT, UNICODE, chart, sample_lines, sample_rows
from tunesmith.models.load import load_tokenizer
from tunesmith.plan.preflight import OWNED
from tunesmith.plan.watching import higher_is_better
from tunesmith.recipe import build_recipe
from tunesmith.records import Event
from tunesmith.track.events import EventLog, read_events
from tunesmith.train.watch.best import Choosing
from tunesmith.train.watch.samples import prompts
from tunesmith.train.watch.system import SystemCallback

NUMBERS = st.one_of(st.floats(-10, 10), st.just(math.nan))


def log(values: list[float], metric: str = "eval_loss") -> list[dict[str, Any]]:
    """A trainer's log: an evaluation at every tenth step, training in between."""
    return [
        entry
        for number, value in enumerate(values, start=1)
        for entry in ({"step": 10 * number, "loss": 1.0}, {"step": 10 * number, metric: value})
    ]


@pytest.mark.parametrize(
    ("values", "waited", "since"),
    [
        ([], 0, 0),
        ([3.0], 0, 10),
        ([3.0, 2.0, 1.0], 0, 30),
        ([1.0, 2.0, 3.0], 2, 10),
        ([2.0, 1.0, 1.0], 1, 20),  # as good is no better
        ([2.0, 1.0, 1.5, 0.5, 0.6], 1, 40),
        ([math.nan, 2.0, math.nan], 1, 20),
        ([math.nan, math.nan], 2, 0),
    ],
)
def test_evaluations_without_a_better_one(values: list[float], waited: int, since: int) -> None:
    choosing = Choosing("loss", higher=False, patience=2)
    assert choosing.waited(log(values)) == (waited, since)
    assert choosing.ends(log(values)) is (waited >= 2)
    assert Choosing("loss", higher=False).ends(log(values)) is False
    mirrored = log([-value for value in values], "eval_reward")
    assert Choosing("reward", higher=True).waited(mirrored) == (waited, since)


def test_a_gain_has_to_be_large_enough() -> None:
    values = [1.0, 0.96, 0.92, 0.88]
    assert Choosing("loss", higher=False, least=0.05).waited(log(values)) == (1, 30)
    assert Choosing("loss", higher=False, least=0.0).waited(log(values)) == (0, 40)
    assert Choosing("loss", higher=False, least=0.2).waited(log(values)) == (3, 10)


@given(values=st.lists(NUMBERS, max_size=12), higher=st.booleans())
def test_the_best_is_the_first_that_none_exceeds(values: list[float], higher: bool) -> None:
    best = Choosing("m", higher=higher).best(log(values, "eval_m"))
    numbers = [value for value in values if not math.isnan(value)]
    if best is None:
        assert not numbers
        return
    assert best.value == (max if higher else min)(numbers)
    assert values[best.step // 10 - 1] == best.value
    assert best.value not in values[: best.step // 10 - 1]


@given(values=st.lists(NUMBERS, max_size=12), higher=st.booleans())
def test_without_a_least_gain_waiting_counts_from_the_best(values: list[float], higher: bool) -> None:
    choosing = Choosing("m", higher=higher)
    waited, since = choosing.waited(log(values, "eval_m"))
    best = choosing.best(log(values, "eval_m"))
    assert since == (best.step if best else 0)
    assert waited == len(values) - since // 10


def test_the_plan_leaves_the_last_step_unless_asked() -> None:
    plan = make_plan(make_recipe())
    assert "load_best_model_at_end" not in plan.training
    assert not {"P065", "P066", "P067", "P068", "P069"} & set(codes(plan))


@pytest.mark.parametrize("watch", [{"best": True}, {"early_stopping": 3}])
def test_the_plan_says_what_chooses_the_result(watch: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    plan = make_plan(make_recipe(watch=watch, data={"test": "test.jsonl"}))
    assert plan.training["load_best_model_at_end"] is True
    assert plan.training["metric_for_best_model"] == "loss"
    assert plan.training["greater_is_better"] is False
    assert not {"P065", "P066", "P067", "P068", "P069"} & set(codes(plan))
    assert "P067" in codes(make_plan(make_recipe(watch=watch)))
    assert "P065" in codes(make_plan(make_recipe(watch=watch, data={"eval": 0})))


def test_the_metric_is_one_that_is_measured() -> None:
    plan = make_plan(make_recipe(watch={"best": True, "metric": "mean_token_accuracy"}))
    assert plan.training["greater_is_better"] is True
    assert "P066" not in codes(plan)
    recipe = make_recipe(watch={"best": True, "metric": "mean_token_acuracy"})
    (found,) = [found for found in make_plan(recipe).findings if found.code == "P066"]
    assert "mean_token_accuracy?" in found.fix
    assert higher_is_better("grpo", "rewards/closeness/mean") is True
    assert higher_is_better("grpo", "loss") is None
    assert {
        method: higher_is_better(method, "loss") for method in METHODS if higher_is_better(method, "loss") is None
    } == {
        "grpo": None,
        "rloo": None,
    }


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"save_steps": 3, "eval_steps": 2}, True),
        ({"save_steps": 4, "eval_steps": 2}, False),
        ({"save_strategy": "no"}, True),
        ({"save_strategy": "epoch"}, True),
        ({"save_strategy": "epoch", "eval_strategy": "epoch"}, False),
    ],
)
def test_evaluations_need_their_checkpoints(training: dict[str, Any], said: bool) -> None:
    assert ("P068" in codes(make_plan(make_recipe(watch={"best": True}, training=training)))) is said
    assert "P068" not in codes(make_plan(make_recipe(training=training)))


def test_own_callbacks_are_looked_for_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("raise SystemExit\n\nclass Mine: ...\nfrom a import Theirs as Ours\nmade = object\n")
    for name, said in (("Mine", ""), ("Ours", ""), ("made", ""), ("Theirs", "no Theirs")):
        plan = make_plan(make_recipe(watch={"callbacks": f"mine.py:{name}"}))
        assert ("P069" in codes(plan)) is bool(said)
        assert any(said in found.what for found in plan.findings) or not said
    file.write_text("class Mine(:\n")
    for reference, said in (("mine.py:Mine", "is no Python"), ("absent.py:Mine", "no such file")):
        (found,) = [
            found for found in make_plan(make_recipe(watch={"callbacks": reference})).findings if found.code == "P069"
        ]
        assert said in found.what


def test_p027_guard_actions_on_rules_that_the_method_does_not_have() -> None:
    def idle(code: str, **keys: Any) -> list[str]:
        plan = make_plan(make_recipe(guard={"actions": {code: "warn"}}, **keys))
        return [found.what for found in plan.findings if found.code == "P027"]

    assert idle("R018") == ["guard.actions.R018 changes nothing: sft has no R018."]
    assert idle("R009") == idle("R018", method="grpo", rewards=["exact_match"]) == []
    assert idle("R009", method="grpo", rewards=["exact_match"]) != []


def test_p027_samples_of_several_processes() -> None:
    def idle(watch: dict[str, Any], processes: int) -> bool:
        plan = make_plan(make_recipe(watch=watch, launch={"processes": processes}))
        return any(found.code == "P027" and found.where == "watch.samples" for found in plan.findings)

    assert idle({"samples": 4}, 2)
    assert not idle({"samples": 4}, 1)
    assert not idle({}, 2)
    assert not idle({"samples": 0}, 2)


def test_what_the_watch_owns_cannot_be_set_otherwise() -> None:
    for name, value in {
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
        "enable_jit_checkpoint": True,
        "ignore_data_skip": True,
        "restore_callback_states_from_checkpoint": True,
        "save_strategy": "best",
    }.items():
        plan = make_plan(make_recipe(training={name: value}))
        assert "P009" in codes(plan)
        assert OWNED[name][1] in [found.fix for found in plan.findings][codes(plan).index("P009")]


def test_the_names_of_callbacks_are_paths(tmp_path: Path) -> None:
    recipe = build_recipe(
        {"model": "builtin:small", "data": {"train": "rows.jsonl"}, "watch": {"callbacks": "mine.py:Mine"}},
        folder=tmp_path,
    )
    assert recipe.watch.callbacks == [f"{tmp_path / 'mine.py'}:Mine"]


def events(kind: str, name: str, values: list[float]) -> list[Event]:
    return [Event(time=0.0, kind=kind, step=step, data={name: value}) for step, value in enumerate(values, start=1)]  # type: ignore[arg-type]


def test_a_chart_of_nothing_is_nothing() -> None:
    assert chart([], width=80) == []
    assert chart(events("log", "loss", [math.nan, math.inf]), width=80) == []


def test_the_chart_falls_with_the_loss() -> None:
    lines = chart([*events("log", "loss", [8, 7, 6, 5, 4, 3, 2, 1]), *events("eval", "eval_loss", [8.0])], width=80)
    assert lines[0] == "Loss by step (• training, ◆ held-out)"
    rows = lines[1:-2]
    assert len(rows) == HEIGHT
    assert rows[0].split("│") == ["        8", "◆"]
    columns = [row.split("│")[1].find("•") for row in rows[1:]]
    assert columns == sorted(columns)
    assert rows[-1].startswith("        1│")
    assert lines[-1].split() == ["1", "8"]


@given(
    values=st.lists(st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(1e-6, 1e6)), max_size=300),
    held=st.lists(st.floats(1e-3, 1e3), max_size=20),
    width=st.integers(20, 200),
    name=st.sampled_from(["loss", "reward"]),
)
def test_a_chart_fits_its_width(values: list[float], held: list[float], width: int, name: str) -> None:
    lines = chart([*events("log", name, values), *events("eval", f"eval_{name}", held)], width=width)
    finite = [value for value in values if abs(value) < 1e30]
    assert bool(lines) is bool(finite)
    if lines:
        assert all(len(line) <= max(width, len(lines[0])) for line in lines)
        assert len(lines) == HEIGHT + 3
        assert any(UNICODE.trained in line or UNICODE.held_out in line for line in lines[1:])


def test_a_wide_range_is_drawn_by_its_logarithm_and_a_reward_comes_first() -> None:
    lines = chart(events("log", "loss", [1000.0, 100.0, 10.0, 1.0]), width=80, signs=ASCII)
    assert "logarithmic" in lines[0]
    used = [number for number, line in enumerate(lines[1:-2]) if "*" in line]
    gaps = {after - before for before, after in itertools.pairwise(used)}
    assert max(gaps) - min(gaps) <= 1
    assert lines[0].isascii()
    both = [Event(time=0.0, kind="log", step=1, data={"loss": 0.1, "reward": 0.5})]
    assert chart(both, width=80)[0].startswith("Reward")


def test_samples_fit_a_line() -> None:
    data = {"prompts": ["a\nb " + "x" * 200], "answers": ["c" * 200], "expected": [""]}
    event = Event(time=0.0, kind="sample", step=7, data=data)
    (line,) = sample_lines(event)
    assert line.startswith("step 7 sample: …x")
    assert len(line) <= 80
    ((prompt, answer, wanted),) = sample_rows(event)
    assert len(prompt) == len(answer) == 60
    assert wanted == ""


def test_the_machine_is_looked_at_no_more_often_than_asked(tmp_path: Path) -> None:
    events_log = EventLog(tmp_path)
    for seconds, looks in ((3600.0, 1), (1e-9, 3)):
        callback = SystemCallback(events_log, seconds, failed=pytest.fail)
        before = len(read_events(tmp_path))
        for _ in range(3):
            callback.on_step_end(None, TrainerState(global_step=1), None)  # type: ignore[arg-type]
        assert len(read_events(tmp_path)) - before == looks
    events_log.close()


def test_a_gpu_that_does_not_tell_its_load_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed\nor it can't be imported.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1, 4))
    monkeypatch.setattr(torch.cuda, "utilization", silent)
    told: list[str] = []
    callback = SystemCallback(EventLog(tmp_path), 1.0, failed=told.append)
    for _ in range(2):
        values = callback.measured()
        assert (values["gpu_free_bytes"], values["gpu_memory_percent"]) == (1, 75)
        assert "gpu_percent" not in values
    assert told == ["ModuleNotFoundError: nvidia-ml-py does not seem to be installed"]


def test_a_picture_s_prompt_is_left_out() -> None:
    tokenizer = load_tokenizer(str(SMALL))
    row = {"prompt": "Order", "completion": " a lamp"}
    assert prompts([{**row, "images": ["a.png"]}], tokenizer, 1) == []
    assert len(prompts([{**row, "images": []}], tokenizer, 1)) == 1


def test_prompts_of_every_layout() -> None:
    tokenizer = load_tokenizer(str(SMALL))
    ask, answer = {"role": "user", "content": "Order a lamp."}, {"role": "assistant", "content": '{"item": "lamp"}'}
    rows: list[dict[str, Any]] = [
        {"prompt": [ask], "completion": [answer]},
        {"messages": [ask, answer, ask, answer]},
        {"prompt": [ask], "chosen": [answer], "rejected": [ask]},
        {"prompt": [ask], "reference": '{"item": "lamp"}'},
        {"prompt": "Order", "completion": " a lamp"},
        {"text": "Order a lamp. " * 40},
    ]
    found = prompts(rows, tokenizer, 99)
    assert [prompt.expected for prompt in found] == ['{"item": "lamp"}'] * 4 + [" a lamp", ""]
    assert found[1].text.count("Order a lamp.") == 2
    assert tokenizer.decode(found[0].ids).endswith(tokenizer.decode(found[3].ids)[-20:])
    assert found[4].text == "Order"
    assert 0 < len(found[5].ids) <= 16
    assert prompts(rows, tokenizer, 2) == found[:2]
    long = {"prompt": "x " * 9000, "completion": "y"}
    assert prompts([long, rows[4]], tokenizer, 1) == [found[4]]


def test_runs_show_draws_the_curve_and_the_last_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    record = {"id": "run", "status": "done", "created": "2026-11-20T00:00:00+00:00", "step": 3, "steps": 3}
    (run / "run.json").write_text(json.dumps(record))
    written = EventLog(run)
    for step, loss in enumerate((3.0, 2.0, 1.0), start=1):
        written.write("log", step, loss=loss)
        written.write("sample", step, prompts=["What [bold]?"], answers=[f"lamp {step}"], expected=["lamp"])
    written.close()
    assert main(["runs", "show", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "Loss by step" in shown
    assert "Samples at step 3" in shown
    assert "What [bold]?" in shown
    assert "lamp 3" in shown
    assert "lamp 2" not in shown
