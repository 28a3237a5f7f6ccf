"""`tunesmith evaluate`: its options over the recipe's settings, its exit code, and rows for a difference."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.learnt import ROWS
from tests.support.receipts import make_data
from tests.support.runs import make_plan
from tunesmith import pipeline
from tunesmith.cli import main
from tunesmith.data.rows import COLUMNS
from tunesmith.recipe.evaluation import Endpoint, Evaluation
from tunesmith.records import Conclusion, EvalReport, Receipt, RunRecord
from tunesmith.rules import finding

SERVER = {"url": "http://127.0.0.1:1/v1", "model": "m", "key": "SOME_KEY"}


def make_run(folder: Path, **evaluation: Any) -> Path:
    folder.mkdir()
    recipe = {"model": "builtin:small", "method": "sft", "data": {"train": "rows.jsonl"}, "evaluation": evaluation}
    make_plan(folder, ROWS, recipe=recipe)
    RunRecord(id=folder.name, status="done", created="2026-01-01T00:00:00+00:00", steps=1, versions={}).save(folder)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the stage is called with; its report has no comparisons."""
    calls: list[dict[str, Any]] = []

    def evaluate(folder: Path, settings: Evaluation, **others: Any) -> EvalReport:
        calls.append({"folder": folder, "settings": settings, "against": others["against"]})
        return EvalReport(rows=8, split="data/test.jsonl", comparisons=[], seconds=1)

    monkeypatch.setattr("tunesmith.evaluate.evaluate", evaluate)
    return calls


def settings(asked: list[dict[str, Any]], *words: object) -> Evaluation:
    assert main(["evaluate", *map(str, words)]) == 0
    found: Evaluation = asked[-1]["settings"]
    return found


def test_the_report_is_also_a_page(tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    run, page = make_run(tmp_path / "run"), tmp_path / "page.html"
    settings(asked, run, "--html", page)
    assert "Could not be compared with its base" in page.read_text(encoding="utf-8")
    assert f"wrote {page}" in " ".join(capsys.readouterr().err.split())


def test_the_recipes_settings_hold_unless_the_command_says_otherwise(tmp_path: Path, asked: list[Any]) -> None:
    run = make_run(tmp_path / "run", tasks=["loss"], rows=7, harness={"tasks": ["a"], "path": "/own", "limit": 3})
    plain = settings(asked, run)
    assert plain == pipeline.recipe_of(run).evaluation
    assert (plain.tasks, plain.rows, plain.regression) == (["loss"], 7, True)
    other = settings(asked, run, "--tasks", "exact_match", "--rows", 5, "--no-regression", "--harness", "b", "c")
    assert (other.tasks, other.rows, other.regression) == (["exact_match"], 5, False)
    assert other.harness is not None
    assert (other.harness.tasks, other.harness.path, other.harness.limit) == (["b", "c"], "/own", 3)
    located = settings(asked, run, "--harness-path", "tasks").harness
    assert located is not None
    assert located.path == str((Path.cwd() / "tasks").resolve())


def test_another_server_is_not_sent_the_key_of_the_recipes(tmp_path: Path, asked: list[Any]) -> None:
    run = make_run(tmp_path / "run", endpoint=SERVER)
    other = settings(asked, run, "--endpoint", "http://localhost:2/v1", "--endpoint-model", "n").endpoint
    assert other is not None
    assert (other.url, other.model, other.key) == ("http://localhost:2/v1", "n", None)
    renamed = settings(asked, run, "--endpoint-model", "n").endpoint
    assert renamed is not None
    assert (renamed.url, renamed.model, renamed.key) == (SERVER["url"], "n", "SOME_KEY")


def test_every_key_of_the_section_can_be_given(tmp_path: Path, asked: list[Any]) -> None:
    run = make_run(tmp_path / "run", tasks=["loss"], harness=None, success={"improvement": 0.2})
    words = ["--evaluation.max_new_tokens", 9, "--evaluation.harness.tasks=[a]", "--evaluation.harness.path", "mine"]
    other = settings(asked, run, *words, "--evaluation.success.p_value", 0.01, "--rows", 5)
    assert (other.tasks, other.max_new_tokens, other.rows) == (["loss"], 9, 5)
    assert other.harness is not None
    assert (other.harness.tasks, other.harness.path) == (["a"], str((Path.cwd() / "mine").resolve()))
    assert other.success is not None
    assert (other.success.improvement, other.success.p_value) == (0.2, 0.01)


def test_another_judge_is_not_sent_the_key_of_the_recipes(tmp_path: Path, asked: list[Any]) -> None:
    run = make_run(tmp_path / "run", conversations={"personas": 3, "simulator": SERVER, "judge": SERVER})
    key = "--evaluation.conversations.judge"
    talks = settings(asked, run, f"{key}.url", "http://localhost:2/v1", f"{key}.model", "n").conversations
    assert talks is not None
    assert talks.simulator == Endpoint(**SERVER)
    assert talks.judge == Endpoint(url="http://localhost:2/v1", model="n")


def test_the_recipe_in_the_run_folder_is_what_counts_after_training(tmp_path: Path, asked: list[Any]) -> None:
    run = make_run(tmp_path / "run", rows=7)
    (run / "recipe.yaml").write_text(
        "method: dpo\nevaluation: {tasks: [exact_match], harness: {tasks: [a], path: tasks}}\nexport: {gguf: [f16]}"
    )
    found = settings(asked, run)
    assert (found.tasks, found.rows) == (["exact_match"], None)
    assert found.harness is not None
    assert found.harness.path == str(run / "tasks"), "paths in a file count from its folder"
    assert settings(asked, run, "--rows", 3).harness == found.harness
    recipe = pipeline.recipe_of(run)
    assert (recipe.method, recipe.export.gguf) == ("sft", ["f16"]), "what it was trained by is as planned"
    pipeline.evaluate_run(run)
    assert asked[-1]["settings"] == found
    (run / "recipe.yaml").write_text("method: dpo")
    assert settings(asked, run) == Evaluation()
    (run / "recipe.yaml").unlink()
    assert settings(asked, run).rows == 7


def test_a_mistake_in_the_run_folders_recipe_is_told_with_its_line(
    tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    for text, said in (
        ("method: sft\nevaluation:\n  row: 5", "recipe.yaml line 3: unknown key evaluation.row"),
        ("method: dpo\nevaluation:\n  tasks: [preference]", "A sft run has these tasks"),
        ("evaluation: {", "recipe.yaml line 1 isn't valid YAML"),
    ):
        (run / "recipe.yaml").write_text(text)
        assert main(["evaluate", str(run)]) == 2, text
        assert said in " ".join(capsys.readouterr().err.split())
    assert asked == []


def test_wrong_settings_are_usage_errors(tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    for words, said in (
        (["--endpoint", "http://localhost:2/v1"], "evaluation.endpoint.model is missing"),
        (["--endpoint", "localhost", "--endpoint-model", "n"], "evaluation.endpoint.url"),
        (["--endpoint-model", "n"], "--endpoint-model is given without --endpoint."),
        (["--endpoint-key", "K"], "--endpoint-key is given without --endpoint."),
        (["--tasks", "preference"], "preference"),
        (["--harness-path", "tasks"], "evaluation.harness.tasks is missing"),
        (["--rows-for", "0"], "isn't a difference"),
        (["--rows-for", "many"], "isn't a difference"),
        (["--rows-for", "0.05", "--html", "p.html"], "--rows-for can't be given with --html."),
        (["--rows-for", "0.05", "--no-regression", "--tasks", "loss"], "with --no-regression, --tasks."),
        (["--rows-for", "0.05", "--evaluation.success.p_value", "0.01"], "with --evaluation.success.p_value."),
        (["--html", str(tmp_path)], f"{tmp_path}. why: It is a folder."),
        (["--html", str(run / "plan.json" / "p.html")], "isn't a folder that this user may write to"),
        (["--against", "nobody"], "There is no run nobody"),
        (["--evaluation.rows", "0"], "evaluation.rows can't be 0"),
        (["--evaluation.tasks", "[margin]"], "A sft run has these tasks"),
        (["--evaluation.row", "5"], "Did you mean rows?"),
        (["--rows", "5", "--evaluation.rows", "6"], "--evaluation.rows is given twice"),
        (["--max-new-tokens", "6"], "Did you mean --evaluation.max_new_tokens?"),
        (["--data.eval", "6"], "takes no keys of a recipe but those of evaluation"),
        (["--seed", "6"], "unrecognized arguments: --seed"),
    ):
        assert main(["evaluate", str(run), *words]) == 2, words
        assert said in " ".join(capsys.readouterr().err.split())
    assert asked == []


def test_another_run_must_be_done_to_be_compared_with(
    tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other")
    assert main(["evaluate", str(run), "--against", str(other)]) == 0
    assert asked[-1]["against"] == other
    RunRecord.load(other).model_copy(update={"status": "stopped"}).save(other)
    assert main(["evaluate", str(run), "--against", str(other)]) == 2
    assert "other isn't done" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "exit_code"), [("E057", 1), ("E001", 0)])
def test_criteria_that_are_not_met_are_in_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, exit_code: int
) -> None:
    found = finding(code, "data/test.jsonl", reasons="none", units="3 rows")
    report = EvalReport(rows=3, split="data/test.jsonl", comparisons=[], seconds=1, findings=[found])
    monkeypatch.setattr("tunesmith.evaluate.evaluate", lambda *_, **__: report)
    assert main(["evaluate", str(make_run(tmp_path / "run"))]) == exit_code


@pytest.mark.parametrize("code", ["E057", "E001"])
@pytest.mark.parametrize("servers", [{"endpoint": SERVER}, {"base_endpoint": SERVER}])
def test_tune_tells_an_evaluation_that_is_kept_apart(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: str,
    servers: dict[str, Any],
) -> None:
    run = make_run(tmp_path / "run", **servers)
    (run / "model").mkdir()
    make_data().save(run)
    found = finding(code, "data/test.jsonl", reasons="none", units="3 rows")
    verdict = Conclusion(met=None, sentence="The server is like its base.", reasons=[])
    report = EvalReport(rows=3, split="data/test.jsonl", comparisons=[], seconds=1, findings=[found])
    report = report.model_copy(update={"conclusion": verdict})
    monkeypatch.setattr("tunesmith.evaluate.evaluate", lambda *_, **__: report)
    monkeypatch.setattr(pipeline, "prepare_run", lambda *_: run)
    for stage in ("train_run", "export_run"):
        monkeypatch.setattr(pipeline, stage, lambda *_, **__: None)
    assert main(["tune", "rows.jsonl", "--model", "builtin:small"]) == int(code == "E057")
    shown = capsys.readouterr()
    assert verdict.sentence in shown.out
    told = " ".join(shown.err.split())
    assert code in told
    assert f"Kept in {run / 'evaluation'}" in told
    assert Receipt.load(run).evaluation is None


def test_rows_for_a_difference_need_no_model(
    tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    assert main(["evaluate", str(run), "--rows-for", "0.05", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["difference"], said["held_out"], said["compared"]) == (0.05, len(ROWS), len(ROWS))
    assert said["groups"] is None
    needed = [(one["changed"], one["rows"]) for one in said["needed"]]
    assert needed == sorted(needed)
    assert needed[0][0] == 0.05
    assert 100 < needed[0][1] < 300
    assert main(["evaluate", str(run), "--rows-for", "0.05"]) == 0
    shown = capsys.readouterr().out
    assert f"{needed[-1][1]:,}" in shown
    assert "holds out 8 rows" in shown
    assert asked == []


def test_rows_for_a_difference_are_held_against_those_that_are_compared(
    tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", rows=3)
    assert main(["evaluate", str(run), "--rows-for", "0.05"]) == 0
    assert f"This run holds out {len(ROWS)} rows; evaluation compares on 3." in capsys.readouterr().out
    assert main(["evaluate", str(run), "--rows-for", "0.05", "--rows", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compared"] == 2
    keys = ["--evaluation.rows", "1", "--evaluation.group", "who"]
    assert main(["evaluate", str(run), "--rows-for", "0.05", *keys, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compared"] == 1


def test_rows_for_a_difference_tell_of_how_many_groups_rows_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    recipe = {"model": "builtin:small", "method": "sft", "data": {"train": "r.jsonl"}, "evaluation": {"group": "who"}}
    who = ["ann", "bob", "ann", "bob", None, None]
    rows = [row | {COLUMNS: {"who": name} if name else {}} for row, name in zip(ROWS, who, strict=False)]
    make_plan(run, rows, recipe=recipe)
    RunRecord(id="run", status="done", created="2026-01-01T00:00:00+00:00", steps=1, versions={}).save(run)
    assert main(["evaluate", str(run), "--rows-for", "0.05"]) == 0
    assert "They belong to 4 groups by who:" in capsys.readouterr().out
