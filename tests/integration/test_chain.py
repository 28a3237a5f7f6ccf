"""The main job as a newcomer runs it: the demo, and the same on other data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.cli import main
from tunesmith.demo import task
from tunesmith.records import DataReport, Receipt

pytestmark = pytest.mark.slow


def test_the_demo_proves_a_better_model_and_the_same_model_as_gguf(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["demo", "--output", str(run), "--json"]) == 0

    receipt = Receipt.load(run)
    match = next(item for item in receipt.evaluation.comparisons if item.metric == "exact_match")
    assert match.rows == 200
    assert match.base < 0.05
    assert match.tuned > 0.90
    assert match.interval.low > 0.85
    assert match.p_value < 1e-9
    assert receipt.run.seconds < 90
    assert receipt.run.parameters_trained == receipt.plan.parameters_trained < receipt.plan.parameters
    assert receipt.export.passed
    assert receipt.export.verifier is not None
    assert {artifact.dtype for artifact in receipt.export.artifacts if artifact.kind == "gguf"} == {"f16", "q8_0"}
    assert all(artifact.verified for artifact in receipt.export.artifacts)
    assert not [found for found in receipt.findings if found.severity == "error"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "src=" not in page


def test_all_weights_learn_the_task_too(tmp_path: Path) -> None:
    files = task.write(tmp_path)
    command = ["tune", str(files["train"]), "--test", str(files["test"]), "--model", "builtin:small"]
    command += ["--output", str(tmp_path / "run"), "--adapter.kind", "none", "--export.gguf", "[f16]", "--json"]
    assert main(command) == 0
    receipt = Receipt.load(tmp_path / "run")
    match = next(item for item in receipt.evaluation.comparisons if item.metric == "exact_match")
    assert match.tuned > 0.90
    assert receipt.export.passed


def test_alpaca_rows_and_long_open_answers_run_through(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Tell me about number {number}.", "input": "", "output": f"Number {number} is a number. " * 12}
        for number in range(40)
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    command = ["tune", str(tmp_path / "alpaca.json"), "--model", "builtin:small", "--output", str(tmp_path / "run")]
    command += ["--training.max_steps", "6", "--data.eval", "0.2", "--training.report_to", "none", "--json"]
    assert main(command) == 0
    assert DataReport.load(tmp_path / "run").layout == "alpaca"
    receipt = Receipt.load(tmp_path / "run")
    assert receipt.plan.steps == receipt.run.step == 6
    assert receipt.evaluation.primary == "loss"
    assert {"E006", "D011"} <= {found.code for found in receipt.findings}
    assert receipt.export.passed
