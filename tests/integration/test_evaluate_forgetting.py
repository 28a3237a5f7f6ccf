"""What a run lost besides its task, and which of its held-out rows it had seen, in whole evaluations."""

from __future__ import annotations

from pathlib import Path

from tests.support.learnt import COLOURS, ROWS
from tests.support.runs import SMALL, make_plan, write_split
from tunesmith.evaluate import evaluate
from tunesmith.recipe.evaluation import Evaluation
from tunesmith.records import Comparison, EvalReport


def codes(report: EvalReport) -> list[str]:
    return sorted(finding.code for finding in report.findings)


def by_metric(report: EvalReport) -> dict[str, Comparison]:
    return {one.metric: one for one in report.comparisons if one.suite == "regression"}


def test_a_model_that_learnt_its_rows_by_heart_forgot_the_rest(tmp_path: Path, knowing: Path) -> None:
    make_plan(tmp_path, ROWS)
    (tmp_path / "model").symlink_to(knowing)
    labels: set[str] = set()
    report = evaluate(
        tmp_path, Evaluation(tasks=["exact_match"]), progress=lambda label, done, total: labels.add(label)
    )
    lost = by_metric(report)["neutral_bits_per_byte"]
    assert lost.tuned > lost.base + 0.3
    assert (lost.significant, lost.kept) == (True, False)
    assert codes(report) == ["E041", "E043", "E044"], "the small model was never instructed, nor taught to refuse"
    assert set(by_metric(report)) == {
        "neutral_bits_per_byte",
        "instructions_followed",
        "harmful_refused",
        "harmless_not_refused",
    }
    assert report.primary == "exact_match"
    assert report.versions["regression suite"]
    assert {"base: neutral text", "tuned: neutral text", "base: answers"} <= labels


def test_a_model_that_learnt_nothing_kept_everything(tmp_path: Path) -> None:
    make_plan(tmp_path, ROWS)
    (tmp_path / "model").symlink_to(SMALL)
    report = evaluate(tmp_path, Evaluation(tasks=["exact_match"]))
    assert by_metric(report)["neutral_bits_per_byte"].kept is True
    assert [code for code in codes(report) if "E040" < code < "E053"] == ["E043", "E044"]


def test_scores_stand_beside_those_on_rows_that_training_did_not_see(tmp_path: Path, knowing: Path) -> None:
    train = write_split(tmp_path, "seen", ROWS[:3])
    make_plan(tmp_path, ROWS, train=train)
    (tmp_path / "model").symlink_to(knowing)
    report = evaluate(tmp_path, Evaluation(regression=False))
    assert report.leakage is not None
    assert (report.leakage.rows, report.leakage.exact, report.leakage.near) == (8, 3, 0)
    assert report.leakage.examples == [(1, 1), (2, 2), (3, 3)]
    for one in report.comparisons:
        assert one.unseen is not None
        assert one.unseen.rows == len(COLOURS) - 3
    assert codes(report) == ["E046", "E048"], "five rows are too few to show a gain"


def test_nothing_of_the_suite_is_measured_where_it_is_not_wanted(tmp_path: Path, knowing: Path) -> None:
    make_plan(tmp_path, ROWS)
    (tmp_path / "model").symlink_to(knowing)
    report = evaluate(tmp_path, Evaluation(tasks=["exact_match"], regression=False))
    assert by_metric(report) == {}
    assert report.leakage is not None
    assert (report.leakage.exact, codes(report)) == (0, [])
