"""A receipt is made of the records of a run folder."""

from pathlib import Path

import pytest

from tests.support.receipts import make_evaluation, make_manifest, make_run, write_records
from tunesmith.errors import UsageError
from tunesmith.receipt.build import build
from tunesmith.records import EvalReport, Finding, Plan, Receipt, RunRecord


def test_all_records_are_put_together_and_saved(tmp_path: Path) -> None:
    plan = write_records(tmp_path)
    receipt = build(tmp_path)
    assert receipt.plan == plan
    assert receipt.run == make_run()
    assert receipt.evaluation == make_evaluation()
    assert receipt.export == make_manifest()
    assert receipt.recipe == plan.recipe
    assert {event.kind for event in receipt.curve} == {"log", "eval"}
    assert receipt.curve[-1].step == 250
    assert receipt.versions == {
        "python": "3.11.7",
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "trl": "1.16.0",
        "peft": "0.21.2",
    }
    assert Receipt.load(tmp_path) == receipt


def test_evaluation_export_and_events_may_be_absent(tmp_path: Path) -> None:
    write_records(tmp_path, leave_out=("evaluation", "export", "events"))
    receipt = build(tmp_path)
    assert (receipt.evaluation, receipt.export, receipt.curve) == (None, None, [])


@pytest.mark.parametrize("name", ["run.json", "plan.json", "data.json"])
def test_records_of_the_training_may_not_be_absent(tmp_path: Path, name: str) -> None:
    write_records(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UsageError, match=name):
        build(tmp_path)


def test_findings_of_all_stages_are_listed_once_errors_first(tmp_path: Path) -> None:
    def found(code: str, severity: str) -> Finding:
        return Finding.model_validate({"code": code, "severity": severity, "where": "w", "what": code, "fix": "f"})

    write_records(tmp_path)
    repeated, note, error = found("P005", "warning"), found("E006", "note"), found("X001", "error")
    Plan.load(tmp_path).model_copy(update={"findings": [repeated]}).save(tmp_path)
    RunRecord.load(tmp_path).model_copy(update={"findings": [repeated]}).save(tmp_path)
    EvalReport.load(tmp_path).model_copy(update={"findings": [note]}).save(tmp_path)
    make_manifest().model_copy(update={"findings": [error]}).save(tmp_path / "export")
    assert [finding.code for finding in build(tmp_path).findings] == ["X001", "D009", "P005", "E006"]


def test_a_run_that_held_nothing_out_says_so(tmp_path: Path) -> None:
    assert write_records(tmp_path).test is not None
    assert "E008" not in [finding.code for finding in build(tmp_path).findings]
    write_records(tmp_path, leave_out=("evaluation",), test=None)
    assert [(found.code, found.severity) for found in build(tmp_path).findings if found.code[0] == "E"] == [
        ("E008", "warning")
    ]
