"""The small parts of the pipeline: names, folders, and finding runs."""

import re
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.plans import chat_rows, make_recipe
from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.pipeline import (
    RUNS,
    evaluate_run,
    export_run,
    find_runs,
    inspect,
    new_folder,
    open_run,
    prepare_run,
    run_name,
    train_run,
)
from tunesmith.recipe import build_recipe
from tunesmith.records import DataReport, Plan, RunRecord


def put_run(folder: Path, created: str = "2026-11-20T12:00:00+00:00", *, status: str = "done") -> Path:
    folder.mkdir(parents=True)
    RunRecord.model_validate({"id": folder.name, "status": status, "created": created}).save(folder)
    return folder


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("builtin:small", "builtin-small"),
        ("Qwen/Qwen3-0.6B", "Qwen3-0.6B"),
        ("/models/my model/", "my-model"),
        ("/models/../x", "x"),
        ("..", ""),
        ("org/-a_b-", "a-b"),
    ],
)
def test_the_name_of_a_run(model: str, name: str) -> None:
    recipe = build_recipe({"model": model, "data": {"train": "a"}})
    made = run_name(recipe)
    time, _, rest = made.partition(f"-{name}-")
    assert rest == "sft"
    assert abs(datetime.now() - datetime.strptime(time, "%Y%m%d-%H%M%S")).total_seconds() < 5
    assert re.fullmatch(r"[\w.-]+", made)


def test_runs_are_found_oldest_first(tmp_path: Path) -> None:
    assert find_runs() == []
    put_run(RUNS / "a", "2026-11-20T12:00:02+00:00")
    put_run(RUNS / "b", "2026-11-20T12:00:01+00:00")
    put_run(RUNS / "deep" / "c")
    (RUNS / "empty").mkdir()
    (RUNS / "file").write_text("")
    (RUNS / "broken").mkdir()
    (RUNS / "broken" / "run.json").write_text("{")
    assert [(folder.name, record.id) for folder, record in find_runs()] == [("b", "b"), ("a", "a")]
    assert find_runs(tmp_path / "none") == []


def test_opening_a_run(tmp_path: Path) -> None:
    newest = put_run(RUNS / "a", "2026-11-20T12:00:02+00:00").resolve()
    older = put_run(RUNS / "b", "2026-11-20T12:00:01+00:00").resolve()
    elsewhere = put_run(tmp_path / "elsewhere" / "c")
    assert open_run("last") == newest
    assert open_run("b") == open_run("runs/b") == open_run(str(older)) == older
    assert open_run("elsewhere/c") == elsewhere
    (tmp_path / "file").write_text("")
    for name in ("c", "file", "", "runs", "/none"):
        with pytest.raises(UsageError, match="There is no run"):
            open_run(name)


def test_opening_the_last_of_no_runs() -> None:
    with pytest.raises(UsageError, match="There is no run last"):
        open_run("last")


def test_a_new_folder(tmp_path: Path) -> None:
    made = new_folder(Path("a") / "b")
    assert made == tmp_path / "a" / "b"
    assert made.is_dir()
    assert new_folder(made) == made  # it is still empty
    (made / "x").write_text("")
    with pytest.raises(UsageError, match="isn't empty") as refusal:
        new_folder(made)
    assert "resume" in refusal.value.fix
    with pytest.raises(EnvironmentLacksError, match="Cannot write"):
        new_folder(made / "x")
    with pytest.raises(EnvironmentLacksError, match="Cannot write"):
        new_folder(made / "x" / "y")


def test_a_prepared_run(tmp_path: Path) -> None:
    folder = prepare_run(make_recipe())
    assert folder.parent == tmp_path / "runs"
    record = RunRecord.load(folder)
    assert (record.id, record.status, record.steps, record.step) == (
        folder.name,
        "prepared",
        Plan.load(folder).steps,
        0,
    )
    assert record.created.endswith("+00:00")
    assert open_run("last") == folder
    with pytest.raises(UsageError, match="isn't empty"):
        prepare_run(make_recipe(), folder)


def test_the_recipe_in_the_run_folder_makes_the_same_run(tmp_path: Path) -> None:
    from tunesmith.pipeline import make_plan
    from tunesmith.recipe import load_recipe

    recipe = make_recipe(training={"learning_rate": "4e-3", "run_name": "no"}, seed=3)
    folder = prepare_run(recipe, tmp_path / "run")
    again = load_recipe(folder / "recipe.yaml")
    assert again == recipe
    assert make_plan(again, run="run") == Plan.load(folder)


def test_rows_that_the_recipe_drops_are_no_errors_of_the_run(tmp_path: Path) -> None:
    rows = [*chat_rows(240), {"prompt": "a", "completion": ""}]
    folder = prepare_run(make_recipe(rows, data={"bad_rows": "drop"}), tmp_path / "run")
    assert [(found.code, found.severity) for found in DataReport.load(folder).findings] == [("D014", "warning")]
    assert Plan.load(folder).findings[0].code == "D014"


def test_stages_that_come_too_early_or_too_late(tmp_path: Path) -> None:
    folder = put_run(tmp_path / "run", status="failed")
    for stage in (evaluate_run, export_run):
        with pytest.raises(UsageError, match="isn't done: its status is failed"):
            stage(folder)
    done = put_run(tmp_path / "done")
    with pytest.raises(UsageError, match="is done; there is nothing to resume"):
        train_run(done)


def test_inspecting_without_a_model() -> None:
    make_recipe()
    report = inspect(Path("train.jsonl"))
    assert (report.rows, report.model, report.audit) == (240, None, None)


def test_inspecting_with_a_model_but_without_the_audit() -> None:
    make_recipe()
    report = inspect(Path("train.jsonl"), model="builtin:small", audit=False)
    assert report.model == "builtin:small"
    assert report.lengths is not None
    assert report.audit is None


def test_runs_prepared_in_the_same_second_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.pipeline.run_name", lambda recipe: "now")
    recipe = make_recipe()
    first, second = prepare_run(recipe), prepare_run(recipe)
    assert (first.name, second.name) == ("now", "now-2")
    names = {Plan.load(folder).training["run_name"] for folder in (first, second)}
    assert len(names) == 2, "Trackio would take them for one run"


def test_of_two_commands_for_one_folder_the_slower_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr("tunesmith.pipeline._free_folder", lambda folder: folder)
    prepare_run(make_recipe(), folder)
    before = Plan.load(folder)
    with pytest.raises(UsageError, match="isn't empty"):
        prepare_run(make_recipe(seed=7), folder)
    assert Plan.load(folder) == before
