"""The first lines of a report say what the records say, no more."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.receipts import make_regression, write_records
from tunesmith.receipt import headline
from tunesmith.receipt.build import build
from tunesmith.records import Comparison, Conclusion, Receipt, Side, Split


@pytest.fixture
def receipt(tmp_path: Path) -> Receipt:
    write_records(tmp_path)
    return build(tmp_path)


def changed(receipt: Receipt, record: str, **values: Any) -> Receipt:
    return receipt.model_copy(update={record: getattr(receipt, record).model_copy(update=values)})


def with_match(receipt: Receipt, **values: Any) -> Receipt:
    assert receipt.evaluation is not None
    comparisons = [
        one.model_copy(update=values) if one.metric == "exact_match" else one for one in receipt.evaluation.comparisons
    ]
    return changed(receipt, "evaluation", comparisons=comparisons)


def test_a_better_model(receipt: Receipt) -> None:
    line = headline.outcome(receipt)
    assert (line.tone, line.mark, line.title) == ("good", "✓", "Better than its base")
    expected = "exact match on 200 held-out rows: +98.0 points (95% interval +95.1 to +99.5 points)"
    assert line.detail == expected


def test_a_worse_model(receipt: Receipt) -> None:
    line = headline.outcome(with_match(receipt, difference=-0.2))
    assert (line.tone, line.title) == ("bad", "Worse than its base")
    lower = changed(receipt, "evaluation", primary="loss")
    assert headline.outcome(lower).tone == "good"


def test_better_at_the_task_is_not_good_where_something_else_was_lost(receipt: Receipt) -> None:
    assert receipt.evaluation is not None
    kept, lost, unclear = make_regression()

    def line(*others: Comparison) -> headline.Line:
        assert receipt.evaluation is not None
        return headline.outcome(changed(receipt, "evaluation", comparisons=[*receipt.evaluation.comparisons, *others]))

    worse = line(kept, lost, unclear)
    assert (worse.tone, worse.title) == ("bad", "Better than its base, but worse elsewhere")
    assert worse.detail.endswith("; worse at instructions followed")
    assert line(kept, unclear).tone == "good"


def test_better_but_not_as_was_asked(receipt: Receipt) -> None:
    def line(met: bool | None) -> headline.Line:
        return headline.outcome(changed(receipt, "evaluation", conclusion=Conclusion(met=met, sentence="")))

    assert (line(False).tone, line(False).title) == ("unsure", "Better than its base, but not as was asked")
    assert line(True).tone == line(None).tone == "good"


def test_another_run_is_called_so(receipt: Receipt) -> None:
    against = changed(receipt, "evaluation", base=Side(kind="run", name="runs/old"))
    assert headline.outcome(against).title == "Better than the other run"


def test_no_significant_difference_is_neither_good_nor_bad(receipt: Receipt) -> None:
    line = headline.outcome(with_match(receipt, significant=False))
    assert (line.tone, line.title) == ("unsure", "No significant difference from its base")


@pytest.mark.parametrize("difference", [0.98, -0.2])
def test_too_few_rows_are_no_verdict_whatever_the_comparison_says(receipt: Receipt, difference: float) -> None:
    line = headline.outcome(with_match(receipt, difference=difference, rows=3))
    assert (line.tone, line.title) == ("unsure", "Too few held-out rows to tell")
    line = headline.outcome(with_match(receipt, difference=difference, groups=5))
    assert (line.tone, line.title) == ("unsure", "Too few groups of rows to tell")


def test_no_evaluation_and_no_comparison(receipt: Receipt) -> None:
    without = receipt.model_copy(update={"evaluation": None})
    line = headline.outcome(changed(without, "plan", test=Split(path="data/test.jsonl", rows=9, sha256="00" * 32)))
    assert (line.tone, line.title) == ("unsure", "Not compared with its base")
    assert "tunesmith evaluate" in line.detail
    line = headline.outcome(changed(without, "plan", test=None))
    assert (line.tone, line.title) == ("unsure", "Not compared with its base")
    assert line.detail == "No rows were held out (E008)."
    assert headline.outcome(changed(receipt, "evaluation", comparisons=[], primary=None)).tone == "bad"


@pytest.mark.parametrize(
    ("status", "tone", "title"),
    [
        ("done", "good", "Trained to the end"),
        ("failed", "bad", "Training failed"),
        ("stopped", "unsure", "Training was stopped"),
        ("running", "unsure", "Still training"),
        ("prepared", "unsure", "Not trained yet"),
    ],
)
def test_training(receipt: Receipt, status: str, tone: str, title: str) -> None:
    line = headline.training(changed(receipt, "run", status=status, error="out of memory"))
    assert (line.tone, line.title) == (tone, title)
    assert ("out of memory" in line.detail) == (status == "failed")
    assert "250 of 250 steps" in line.detail


def test_labels(receipt: Receipt) -> None:
    assert headline.labels(receipt).tone == "good"
    audit = receipt.run.audit
    assert audit is not None

    def line(**values: Any) -> headline.Line:
        return headline.labels(changed(receipt, "run", audit=audit.model_copy(update=values)))

    assert line(rows_without_stop=3).title == "Stop tokens are missing"
    assert "3 of 1,000" in line(rows_without_stop=3).detail
    assert line(rows_kept=990).tone == "unsure"
    assert "10 rows dropped" in line(rows_kept=990).detail
    assert line(rows_cut=4).tone == "unsure"


def test_labels_of_the_data_serve_until_the_run_has_its_own(receipt: Receipt) -> None:
    before = changed(receipt, "run", audit=None)
    assert headline.labels(before).tone == "good"
    assert headline.labels(changed(before, "data", audit=None)).title == "Labels not audited"


def test_export(receipt: Receipt) -> None:
    assert headline.export(receipt).title == "Export verified"
    assert headline.export(receipt.model_copy(update={"export": None})).title == "Not exported"
    manifest = receipt.export
    assert manifest is not None
    unverified = [manifest.artifacts[0].model_copy(update={"verified": False}), *manifest.artifacts[1:]]
    line = headline.export(changed(receipt, "export", artifacts=unverified))
    assert (line.tone, line.detail) == ("unsure", "Unverified: merged")
    assert headline.export(changed(receipt, "export", checks=[])).tone == "unsure"
    failed = [manifest.checks[0].model_copy(update={"passed": False}), *manifest.checks[1:]]
    line = headline.export(changed(receipt, "export", checks=failed))
    assert (line.tone, line.detail) == ("bad", "1 of 6 checks failed")
    assert headline.export(changed(receipt, "export", passed=False)).tone == "bad"


def test_an_adapter_that_cant_be_merged_is_the_result(receipt: Receipt) -> None:
    line = headline.export(changed(receipt, "export", artifacts=[], checks=[]))
    assert (line.tone, line.title) == ("unsure", "Nothing to merge")
