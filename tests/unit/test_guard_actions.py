"""What the guard does, what it may take, and what users see of it; its detectors are in test_guard_signals."""

from __future__ import annotations

import inspect
import json
import math
import re
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from tests.support.methods import METHODS
from tests.support.runs import make_plan
from tunesmith.cli.output import Output
from tunesmith.cli.views import show_run
from tunesmith.errors import UsageError
from tunesmith.recipe import build_recipe
from tunesmith.recipe.guard import RESPONSES, Guard, watched
from tunesmith.records import CheckpointOrigin, CostEstimate, Event, Finding, Range, Rollback, RunRecord
from tunesmith.rules import RULES, finding
from tunesmith.track.events import EventLog
from tunesmith.track.trackio import trackio_callback
from tunesmith.train.callbacks import CheckpointCallback
from tunesmith.train.checkpoints import all_checkpoints, mark_complete, step_of
from tunesmith.train.guard import limits
from tunesmith.train.guard.limits import Limits, check_room, seconds_spent
from tunesmith.train.guard.rollback import RateCallback, discard_after, last_good, scale_of
from tunesmith.train.guard.signals import Signal
from tunesmith.train.guard.stall import Watchdog
from tunesmith.train.guard.watch import GuardCallback, detectors

# R021


def test_r021_is_told_once_for_each_pause_longer_than_any_before() -> None:
    told: list[Signal] = []
    dog = Watchdog(told.append, least=0.1, first=60)
    dog.start()
    for step in range(1, 5):
        dog.beat(step)
    end = time.monotonic() + 20
    while not told and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    assert [(signal.code, signal.since) for signal in told] == [("R021", 4)]
    assert told[0].details["seconds"] >= 0.1
    dog.beat(5)
    time.sleep(0.3)  # no longer than ten times the longest pause
    assert len(told) == 1
    dog.close()


def test_r021_the_first_steps_may_take_long_and_an_end_is_no_stall() -> None:
    told: list[Signal] = []
    dog = Watchdog(told.append, least=0.05, first=60)
    dog.start()
    dog.beat(1)
    time.sleep(0.12)
    assert told == []
    for step in range(2, 5):
        dog.beat(step)
    dog.close()
    time.sleep(0.12)
    assert told == []


# R022, R023, R024


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_r022_in_time_for_a_step_and_a_save() -> None:
    clock = Clock()
    timed = Limits(timeout=1000, clock=clock)
    clock.now += 20
    timed.stepped()  # of 20 s
    clock.now += 30
    timed.saved()  # in 30 s
    for now, code in ((1000 + 869, None), (1000 + 871, "R022")):  # 1000 - 20 - 2 * 30 - 50
        clock.now = now
        signal = timed.check(7, 9)
        assert (signal and signal.code) == code
    assert signal is not None
    assert signal.details["used"] == "14.5 minutes"
    assert signal.details["limit"] == "16.7 minutes"


def test_r023_counts_all_attempts_at_the_machine_s_price() -> None:
    clock = Clock()
    paid = Limits(budget=10.0, price=20.0, spent=900, clock=clock)  # half an hour in all, a quarter gone
    clock.now += 839
    assert paid.check(1, 2) is None
    clock.now += 2
    signal = paid.check(1, 2)
    assert signal is not None
    assert signal.code == "R023"
    assert signal.details["used"] == pytest.approx((900 + 841) / 3600 * 20)
    assert Limits(budget=0.0001, clock=clock).check(1, 2) is None  # of this machine no price is known


def test_seconds_are_counted_from_each_start_to_what_was_heard_last() -> None:
    times = [(0, "audit"), (10, "start"), (20, "log"), (25, "stop"), (1000, "audit"), (1005, "finding"),
             (1010, "start"), (1017, "log")]  # fmt: skip
    events = [Event(time=5000.0 + at, kind=kind) for at, kind in times]
    assert seconds_spent(events) == 15 + 7
    assert seconds_spent([]) == 0
    stopped = Event(time=6020.0, kind="finding", data={"code": "R023"})
    assert seconds_spent([*events, stopped]) == 0
    assert seconds_spent([*events, stopped, Event(time=6021.0, kind="fail")]) == 1


def test_r024_room_for_another_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "weights").write_bytes(b"0" * 1000)
    usage = namedtuple("usage", "free")
    for free, code in ((1000, None), (999, "R024")):
        monkeypatch.setattr(limits.shutil, "disk_usage", lambda _path, free=free: usage(free))
        signal = check_room(tmp_path, 3)
        assert (signal and signal.code) == code


# Going back


def checkpoints(run: Path, steps: list[int], torn: list[int]) -> None:
    for step in [*steps, *torn]:
        folder = run / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_text("w")
        if step in steps:
            mark_complete(folder)


def test_the_last_good_checkpoint_is_whole_and_from_before(tmp_path: Path) -> None:
    checkpoints(tmp_path, [5, 10, 20], [15])
    for since, name in ((21, "checkpoint-20"), (20, "checkpoint-10"), (16, "checkpoint-10"), (5, None), (0, None)):
        good = last_good(tmp_path, since)
        assert (good and good.name) == name
    discard_after(tmp_path, 10)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-10", "checkpoint-5"]


def test_each_return_lowers_the_rate() -> None:
    back = [Rollback(code="R010", step=9, to=4, factor=0.5), Rollback(code="R010", step=9, to=4, factor=0.1)]
    assert scale_of([]) == 1
    assert scale_of(back) == pytest.approx(0.05)


def test_a_lowered_rate_is_the_schedule_s_from_the_next_step_on_and_lowered_once() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10)
    args = TrainingArguments(output_dir="x", use_cpu=True, learning_rate=0.1)
    for _ in range(2):  # a checkpoint of a lowered run carries the lowered rate
        RateCallback(0.25).on_train_begin(
            args, TrainerState(), TrainerControl(), optimizer=optimizer, lr_scheduler=schedule
        )
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
        assert schedule.get_last_lr() == pytest.approx([0.025])
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025 * 0.9)


def test_a_schedule_without_a_peak_is_lowered_once_and_stays_so_through_a_checkpoint() -> None:
    args = TrainingArguments(output_dir="x", use_cpu=True, learning_rate=0.1)
    kept: dict[str, Any] = {}
    for scale, rate in ((0.5, 0.05), (0.5, 0.05), (0.25, 0.025)):  # back, resumed, back again from its checkpoint
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        if kept:
            optimizer.load_state_dict(kept)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        RateCallback(scale).on_train_begin(
            args, TrainerState(), TrainerControl(), optimizer=optimizer, lr_scheduler=schedule
        )
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)
        kept = optimizer.state_dict()


@pytest.mark.parametrize(("stopped", "left"), [(False, {15}), (True, {5, 10, 15})])
def test_a_stop_of_the_guard_deletes_no_checkpoint(tmp_path: Path, stopped: bool, left: set[int]) -> None:
    checkpoints(tmp_path, [5, 10], [15])
    origin = CheckpointOrigin(settings={}, rows={}, files={}, versions={}, machine={})
    log = EventLog(tmp_path)
    saves = CheckpointCallback(log, origin, keep=1, stopped=lambda: stopped)
    args = TrainingArguments(output_dir=str(tmp_path / "checkpoints"), use_cpu=True)
    saves.on_save(args, TrainerState(global_step=15), TrainerControl(), model=torch.nn.Linear(1, 1))
    log.close()
    assert {step_of(path) for path in all_checkpoints(tmp_path)} == left


# The recipe's say


def guard(**values: Any) -> Guard:
    recipe = {"model": "builtin:small", "data": {"train": "rows.jsonl"}, "guard": values}
    return build_recipe(recipe).guard


def test_every_rule_of_the_guard_has_its_action_and_the_severity_fits() -> None:
    expected = {"R001", *(f"R{number:03d}" for number in range(9, 25))}
    assert set(RESPONSES) == expected
    for code, response in RESPONSES.items():
        assert response.action in response.may
        assert RULES[code].severity == ("error" if response.action == "stop" else "warning"), code


def test_a_recipe_says_what_to_do() -> None:
    said = guard(actions={"r009": "stop", "R014": False, "R010": "rollback"}, rollbacks=1, rate_factor=0.25)
    assert [said.action(code) for code in ("R009", "R014", "R010", "R017")] == ["stop", "off", "rollback", "warn"]
    assert (said.rollbacks, said.rate_factor) == (1, 0.25)
    assert Guard.model_validate(said.model_dump()) == said
    assert guard(actions={"R014": "off"}).action("R014") == "off"


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        ({"R999": "warn"}, "no rule R999"),
        ({"R0010": "warn"}, "did you mean R010?"),
        ({"R001": "warn"}, "stop, rollback"),
        ({"R024": "rollback"}, "warn, stop, off"),
        ({"R009": "explode"}, "'warn', 'stop', 'rollback' or 'off'"),
        ("stop", "actions"),
    ],
)
def test_what_the_guard_cannot_do_is_refused(actions: Any, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        guard(actions=actions)
    assert told in f"{refused.value} {refused.value.why} {refused.value.fix}"


def test_a_method_has_the_detectors_that_its_metrics_feed() -> None:
    class Arguments(TrainingArguments):
        beta = 0.1
        max_completion_length = 32

    args = Arguments(output_dir="x", use_cpu=True)

    def names(method: str) -> set[str]:
        return {type(one).__name__ for one in detectors(method, args, rate=1e-3, warm_up=1, vocabulary=896)}

    usual = {"NotFinite", "ZeroGradient", "Spikes", "Diverges", "Overfits", "NoBetter"}
    assert names("sft") == names("clm") == usual | {"WorseThanGuessing"}
    assert names("dpo") == usual | {"ChosenFalls", "NoMargin"}
    assert names("kto") == usual | {"ChosenFalls"}
    assert names("reward") == usual | {"NoMargin"}
    rewarded = {"NotFinite", "ZeroGradient", "NoSignal", "EqualRewards", "CutOff", "Collapse", "NoBetter"}
    assert names("grpo") == names("rloo") == rewarded


def test_a_method_is_held_against_the_rules_that_the_recipe_s_table_gives_it() -> None:
    class Arguments(TrainingArguments):
        beta = 0.1
        max_completion_length = 32

    args = Arguments(output_dir="x", use_cpu=True)
    whatever_the_method = {"R012", "R021", "R022", "R023", "R024"}
    for method in METHODS:
        made = detectors(method, args, rate=1e-3, warm_up=1, vocabulary=896)
        sources = "".join(inspect.getsource(type(one)) for one in made)
        assert set(re.findall(r'Signal\(\s*"(R\d{3})"', sources)) | whatever_the_method == set(watched(method))


def test_the_guide_s_table_is_the_recipe_s() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guard.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in guide.splitlines() if line.startswith("| R0")]
    told = {code: methods.strip() for codes, _what, methods in rows for code in re.findall(r"R\d{3}", codes)}
    every = {code: ", ".join(one.methods) for code, one in RESPONSES.items()}
    assert told == {code: "all" if methods == ", ".join(METHODS) else methods for code, methods in every.items()}


def test_limits_are_the_recipe_s_at_the_plan_s_price(tmp_path: Path) -> None:
    cost = CostEstimate(per_hour=3.0, total=Range(low=1, likely=1, high=1), price_date="2026-11-01", price_source="x")
    plan = make_plan(tmp_path, [{"text": "a"}], recipe={"launch": {"timeout": 60, "budget": 2.0}}, cost=cost)
    found = Limits.of(plan, 5.0)
    assert (found.timeout, found.budget, found.price, found.spent) == (60, 2.0, 3.0, 5.0)
    bare = Limits.of(make_plan(tmp_path, [{"text": "a"}]), 0.0)
    assert (bare.timeout, bare.budget, bare.price) == (None, None, None)


# The callback


class Silent(Watchdog):
    """Watches nothing."""

    def start(self) -> None:
        pass


class Watched:
    """The callback with a trainer's state, and what it tells."""

    def __init__(
        self, tmp_path: Path, history: list[dict[str, Any]] | None = None, back: int = 0, **actions: str
    ) -> None:
        recipe = {"guard": {"actions": actions, "rollbacks": 2}}
        plan = make_plan(tmp_path, [{"text": "a"}], recipe=recipe)
        rollbacks = [Rollback(code="R010", step=9, to=0, factor=0.5)] * back
        self.told: list[Finding] = []
        self.guard = GuardCallback(plan, self.told.append, rollbacks=rollbacks, watchdog=Silent)
        self.args = TrainingArguments(output_dir="x", use_cpu=True, warmup_steps=2, eval_on_start=True)
        history = history or []
        self.state = TrainerState(max_steps=50, global_step=len(history), log_history=history)
        self.control = TrainerControl(should_evaluate=True)
        self.model = torch.nn.Linear(2, 2)
        self.guard.on_train_begin(self.args, self.state, self.control, model=self.model)

    def log(self, **logs: float) -> list[str]:
        """One step further; gives what was told by then."""
        self.state.global_step += 1
        self.guard.on_log(self.args, self.state, self.control, logs=logs)
        return [found.code for found in self.told]

    @property
    def flags(self) -> tuple[bool, bool, bool]:
        """Whether the trainer stops, saves, evaluates."""
        control = self.control
        return control.should_training_stop, control.should_save, control.should_evaluate


def spiky(seen: Watched) -> list[str]:
    for _ in range(12):
        seen.log(loss=1.0)
    return seen.log(loss=9.0)


def test_a_warning_is_given_once_and_changes_nothing(tmp_path: Path) -> None:
    seen = Watched(tmp_path)
    assert spiky(seen) == ["R009"]
    seen.log(loss=1.0)
    assert seen.log(loss=9.0) == ["R009"]
    assert seen.told[0].severity == "warning"
    assert seen.flags == (False, False, True)
    assert (seen.guard.stopped_by, seen.guard.back) == (None, None)


def test_the_guard_knows_how_long_the_run_is(tmp_path: Path) -> None:
    seen = Watched(tmp_path, [{"step": step, "loss": 1.0} for step in range(1, 48)], R009="off")
    assert [seen.log(loss=9.0) for _ in range(3)] == [[], [], ["R010"]]


def test_a_stop_saves_and_nothing_comes_after_it(tmp_path: Path) -> None:
    seen = Watched(tmp_path, R009="stop")
    assert spiky(seen) == ["R009"]
    assert seen.flags == (True, True, False)
    assert seen.guard.stopped_by == seen.told[0]
    assert seen.told[0].severity == "error"
    assert seen.log(loss=math.nan) == ["R009"]


def test_numbers_that_are_none_are_not_saved(tmp_path: Path) -> None:
    seen = Watched(tmp_path)
    assert seen.log(loss=math.nan) == ["R001"]
    assert seen.flags == (True, False, False)


def test_a_return_stops_without_saving_as_often_as_is_allowed(tmp_path: Path) -> None:
    for back, stops in ((0, False), (1, False), (2, True)):
        seen = Watched(tmp_path, back=back, R009="rollback")
        assert spiky(seen) == ["R009"]
        assert seen.flags == (True, stops, False)
        assert (seen.guard.back is None) == stops
        assert (seen.guard.stopped_by is not None) == stops
    assert seen.told[0].what.endswith("; the run was stopped, after going back 2 times.")


def test_what_is_off_is_off(tmp_path: Path) -> None:
    assert spiky(Watched(tmp_path, R009="off")) == []
    history = [{"loss": 1.0, "step": step} for step in range(1, 13)]
    assert Watched(tmp_path, [*history, {"loss": 9.0, "step": 13}], R009="off").told == []


def test_a_resumed_run_knows_its_history(tmp_path: Path) -> None:
    history = [{"loss": 1.0, "step": step} for step in range(1, 13)]
    seen = Watched(tmp_path, history, R009="stop")
    assert seen.told == []
    assert not seen.args.eval_on_start
    assert seen.log(loss=9.0) == ["R009"]

    seen = Watched(tmp_path, [*history, {"loss": 9.0, "step": 13}], R009="stop")
    (found,) = seen.told
    assert (found.severity, seen.guard.stopped_by) == ("warning", None)
    assert found.what.endswith("; the run was resumed in spite of it.")
    seen.log(loss=1.0)
    assert seen.log(loss=9.0) == ["R009"]
    assert seen.flags == (False, False, True)
    assert Watched(tmp_path).args.eval_on_start


def test_r012_is_asked_ten_steps_past_the_warm_up(tmp_path: Path) -> None:
    still, moves = Watched(tmp_path), Watched(tmp_path)
    with torch.no_grad():
        moves.model.bias[1] += 1e-6
    for _ in range(11):
        assert still.log(loss=1.0, grad_norm=1.0) == moves.log(loss=1.0, grad_norm=1.0) == []
    assert still.log(loss=1.0) == []  # without a gradient there is nothing to say
    assert still.log(loss=1.0, grad_norm=0.1) == ["R012"]
    assert "all 2 trained tensors" in still.told[0].what
    assert moves.log(loss=1.0, grad_norm=1.0) == []


def test_only_a_run_that_ended_is_judged_at_its_end(tmp_path: Path) -> None:
    for last, code in ((50, ["R013"]), (49, [])):
        seen = Watched(tmp_path)
        seen.guard.on_log(seen.args, seen.state, seen.control, logs={"eval_loss": 1.0})
        seen.log(eval_loss=2.0)
        seen.state.global_step = last
        seen.guard.on_train_end(seen.args, seen.state, seen.control)
        assert [found.code for found in seen.told] == code


# What users see


def test_a_return_is_shown_while_it_happens_and_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress() as progress:
        progress.event(Event(time=0, kind="start", data={"steps": 10}))
        progress.event(Event(time=0, kind="rollback", step=4, data={"code": "R010", "seen": 9, "factor": 0.5}))
    assert "back to step 4, at 0.5 times the learning rate" in capsys.readouterr().err
    back = Rollback(code="R010", step=9, to=4, factor=0.5)
    show_run(Output(), Path("run"), RunRecord(id="run", status="done", created="", rollbacks=[back]))
    assert "from step 9 to 4 (R010), rate x 0.5" in capsys.readouterr().out


class Refuses:
    """A Trackio run that takes nothing."""

    def alert(self, **kwargs: Any) -> None:
        raise OSError("no space")


def test_an_alert_that_fails_ends_no_run_and_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    failed: list[str] = []
    tracker: Any = trackio_callback(failed.append)
    found = finding("R004", "training", first=1.0, last=2.0)
    tracker.alert(found)  # before training begins there is no run to show it in
    assert failed == []
    tracker._run = Refuses()
    tracker.alert(found)
    tracker.alert(found)
    assert failed == ["OSError: no space"]


def test_a_loss_that_is_no_number_is_json_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    record = RunRecord(id="run", status="failed", created="", loss=math.nan)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for shown in (record, [record]):
        Output(as_json=True).record(shown)
        printed = capsys.readouterr().out
        assert "NaN" in printed
        json.loads(printed, parse_constant=refuse)
    assert math.isnan(RunRecord.model_validate_json(record.model_dump_json()).loss or 0)
