"""Other models than a run and its base: two runs, of one tokenizer or of two, and models behind a server."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.learnt import COLOURS, ROWS
from tests.support.openai_server import Fault, said, serve
from tests.support.reports import codes, compared, quick, run_folder
from tests.support.runs import SMALL, make_plan, small_facts, write_split
from tests.support.tiny import make_base, make_tokenizer
from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.evaluate import evaluate
from tunesmith.evaluate.arms import report_folder
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.recipe.evaluation import Endpoint
from tunesmith.records import EvalReport


def test_two_runs_are_compared_on_the_rows_of_the_first_and_the_report_is_kept_apart(
    tmp_path: Path, knowing: Path
) -> None:
    run, other = run_folder(tmp_path / "run", knowing), run_folder(tmp_path / "other", SMALL)
    report = evaluate(run, quick(), against=other)
    match = compared(report)["exact_match"]
    assert (match.base, match.tuned, match.rows) == (0.0, 1.0, 8)
    assert report.base is not None
    assert (report.base.kind, report.base.name) == ("run", str(other))
    assert "loss" in compared(report)
    assert EvalReport.load(report_folder(run, quick(), other)) == report
    assert not (run / "eval.json").exists()
    turned = compared(evaluate(other, quick(), against=run))
    assert turned["loss"].difference == pytest.approx(-compared(report)["loss"].difference)


def test_e056_a_run_that_was_trained_on_the_rows(tmp_path: Path, knowing: Path) -> None:
    run, other = run_folder(tmp_path / "run", SMALL), run_folder(tmp_path / "other", knowing)
    assert "E056" not in codes(evaluate(run, quick(tasks=["loss"]), against=other))
    shutil.rmtree(other)
    other = tmp_path / "other"
    run_folder(other, knowing, train=write_split(tmp_path / "other-rows", "train", ROWS[:3]))
    shutil.copytree(tmp_path / "other-rows" / "data", other / "data", dirs_exist_ok=True)
    report = evaluate(run, quick(tasks=["loss"]), against=other)
    found = next(one for one in report.findings if one.code == "E056")
    assert "3 of 8 held-out rows" in found.what
    assert "other" in found.what
    assert report.leakage is not None
    assert report.leakage.exact == 0, "it says what the run itself was trained on"
    assert report.base_leakage is not None
    assert report.base_leakage.exact == 3
    loss = compared(report)["loss"]
    assert loss.unseen is not None
    assert loss.unseen.rows == 5
    assert "E049" not in codes(report)
    (other / "data" / "train.jsonl").write_text("")
    report = evaluate(run, quick(tasks=["loss"]), against=other)
    (found,) = [one for one in report.findings if one.code == "E049"]
    assert "other/data/train.jsonl is missing" in found.what
    assert report.base_leakage is None
    assert "E056" not in codes(report)


def test_models_of_different_tokenizers_are_compared_per_byte_alone(tmp_path: Path) -> None:
    foreign = make_base(tmp_path / "foreign", "llama", make_tokenizer("qwen2"), steps=0)
    run = run_folder(tmp_path / "run", SMALL)
    other = run_folder(tmp_path / "other", foreign, model=small_facts(foreign), model_kwargs={"dtype": "float32"})
    report = evaluate(run, quick(max_new_tokens=4), against=other)
    assert set(compared(report)) == {"bits_per_byte", "exact_match"}
    alone = evaluate(run, quick(tasks=["loss"]))
    assert compared(report)["bits_per_byte"].tuned == pytest.approx(compared(alone)["bits_per_byte"].tuned)
    assert "E053" not in codes(report)


def test_e053_preferences_are_left_out_where_tokens_differ(tmp_path: Path) -> None:
    result = tmp_path / "result"
    tokenizer = load_tokenizer(SMALL)
    tokenizer.chat_template = f"{tokenizer.chat_template} "
    load_model(SMALL, dtype="float32").save_pretrained(result)
    tokenizer.save_pretrained(result)
    rows = [
        {"prompt": "Which? ", "chosen": colour, "rejected": other}
        for colour, other in zip(COLOURS, reversed(COLOURS), strict=True)
    ]
    runs = {}
    for name, model in (("run", SMALL), ("other", result), ("same", SMALL)):
        folder = runs[name] = tmp_path / name
        folder.mkdir()
        make_plan(folder, rows, method="dpo", layout="preference")
        (folder / "model").symlink_to(model)
    report = evaluate(runs["run"], quick(), against=runs["other"])
    found = next(one for one in report.findings if one.code == "E053")
    assert "different tokens" in found.what
    assert report.comparisons == []
    same = evaluate(runs["run"], quick(), against=runs["same"])
    assert [one.metric for one in same.comparisons] == ["preference_accuracy", "chosen_loss"]


def test_a_reward_model_is_not_compared_with_one_that_writes(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", SMALL)
    other = run_folder(tmp_path / "other", SMALL, method="reward")
    with pytest.raises(UsageError, match="can't be compared"):
        evaluate(run, quick(), against=other)


def right(body: dict[str, Any]) -> str:
    """The answer of the row that is asked for."""
    return COLOURS[int(said(body).removesuffix("?").split()[-1]) - 1]


def test_a_server_in_place_of_the_tuned_model(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", SMALL)
    with serve(right) as server:
        endpoint = Endpoint(url=server.url, model="served")
        report = evaluate(run, quick(endpoint=endpoint))
        assert len(server.asked) == 8
    assert set(compared(report)) == {"exact_match"}
    match = compared(report)["exact_match"]
    assert (match.base, match.tuned) == (0.0, 1.0)
    assert report.tuned is not None
    assert report.base is not None
    assert (report.tuned.kind, report.tuned.name) == ("endpoint", f"served at {endpoint.url}")
    assert (report.base.kind, report.tuned.stop_rate) == ("base", 1.0)
    (found,) = [one for one in report.findings if one.code == "E053"]
    assert "1 measure of the suite task is left out" in found.what
    assert EvalReport.load(report_folder(run, quick(endpoint=endpoint))) == report
    assert not (run / "eval.json").exists(), "receipt and card would tell the server's values as the run's own"


def test_reports_of_things_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    one = Endpoint(url="http://127.0.0.1:1/v1", model="org/m:q4")
    other = one.model_copy(update={"url": "http://127.0.0.1:2/v1"})
    runs = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    folders = [report_folder(tmp_path, quick(endpoint=server), run) for server in (None, one, other) for run in runs]
    folders += [report_folder(tmp_path, quick(endpoint=server)) for server in (one, other)]
    assert len(set(folders)) == len(folders)
    assert {folder.parent for folder in folders} == {tmp_path / "evaluation"}
    assert folders[0].name.startswith("against-run-")
    assert folders[-1].name.startswith("endpoint-org_m_q4-")
    long = Endpoint(url="http://h/v1", model="m" * 999)
    assert len(report_folder(tmp_path, quick(endpoint=long), tmp_path / ("r" * 250)).name) < 255
    served = report_folder(tmp_path, quick(base_endpoint=one))
    assert served.name.startswith("base-org_m_q4-"), "the base there may be another one than the run's"
    assert served not in folders
    assert report_folder(tmp_path, quick()) == tmp_path


def test_one_base_is_named(tmp_path: Path) -> None:
    run, other = run_folder(tmp_path / "run", SMALL), run_folder(tmp_path / "other", SMALL)
    server = Endpoint(url="http://127.0.0.1:1/v1", model="m")
    with pytest.raises(UsageError, match="can't be given with base_endpoint"):
        evaluate(run, quick(base_endpoint=server), against=other)


def test_a_run_is_not_compared_with_itself_but_with_a_server_that_has_it(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", SMALL)
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(UsageError, match="can't be compared with itself"):
        evaluate(run, quick(), against=tmp_path / "link")
    with serve(right) as server:
        endpoint = Endpoint(url=server.url, model="served")
        match = compared(evaluate(run, quick(endpoint=endpoint), against=run))["exact_match"]
    assert match.tuned == 1.0


def test_both_models_behind_servers_need_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_folder(tmp_path / "run", SMALL)
    for name in ("load_base", "load_tuned"):
        monkeypatch.setattr(f"tunesmith.evaluate.arms.{name}", pytest.fail)
    with serve(right) as tuned, serve(lambda body: "no idea", model="before") as base:
        servers = {
            "endpoint": Endpoint(url=tuned.url, model="served"),
            "base_endpoint": Endpoint(url=base.url, model="before"),
        }
        match = compared(evaluate(run, quick(**servers)))["exact_match"]
    assert (match.base, match.tuned) == (0.0, 1.0)


def test_an_evaluation_that_was_cut_off_goes_on_and_forgets_when_it_is_done(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", SMALL)
    down = Fault(status=500)
    with serve(right, faults=lambda number, body: down if number > 3 else None) as server:
        endpoint = Endpoint(url=server.url, model="served", retries=0, concurrency=1)
        with pytest.raises(EnvironmentLacksError):
            evaluate(run, quick(endpoint=endpoint))
        assert not (run / "eval.json").exists()
        server.faults = {}
        before = len(server.asked)
        assert compared(evaluate(run, quick(endpoint=endpoint)))["exact_match"].tuned == 1.0
        assert len(server.asked) == before + 6, "three of eight were answered, and one of them is asked for again"
        assert not {"E016", "E017"} & set(codes(evaluate(run, quick(endpoint=endpoint))))
        assert len(server.asked) == before + 14, "another model may be there now"


@pytest.mark.parametrize("same", [True, False])
def test_e016_and_e017_answers_of_two_models_are_not_mixed(tmp_path: Path, same: bool) -> None:
    run = run_folder(tmp_path / "run", SMALL)
    down = Fault(status=500)
    with serve(right, faults=lambda number, body: down if number > 3 else None) as server:
        endpoint = Endpoint(url=server.url, model="served", retries=0, concurrency=1)
        with pytest.raises(EnvironmentLacksError):
            evaluate(run, quick(endpoint=endpoint))
        server.faults = {}
        if not same:
            server.answer = lambda body: "no idea"
        report = evaluate(run, quick(endpoint=endpoint))
    assert compared(report)["exact_match"].tuned == float(same)
    (found,) = [one for one in report.findings if one.code in ("E016", "E017")]
    assert (found.code, found.severity) == (("E016", "note") if same else ("E017", "warning"))
    assert found.what.startswith(f"3 answers of served at {server.url} ")
