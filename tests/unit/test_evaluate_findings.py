"""The E rules on reports of which every number is given."""

from typing import Any

import pytest

from tunesmith.evaluate import findings
from tunesmith.records import Comparison, EvalReport

JUDGED: dict[str, Any] = {"layout": "prompt-completion", "asked": ["loss", "exact_match"], "answer_tokens": 5.0}
NUMBERS = {"base": 0, "tuned": 0}


def comparison(metric: str, base: float, tuned: float, *, significant: bool = True) -> Comparison:
    better = "higher" if metric == "exact_match" else "lower"
    values = {"difference": tuned - base, "interval": None, "p_value": None, "test": None, "rows": 100}
    return Comparison.model_validate(
        {"metric": metric, "better": better, "base": base, "tuned": tuned, "significant": significant} | values
    )


def report(**changes: Any) -> EvalReport:
    values: dict[str, Any] = {
        "rows": 100,
        "split": "data/test.jsonl",
        "comparisons": [comparison("loss", 2.0, 1.0), comparison("exact_match", 0.1, 0.9)],
        "primary": "exact_match",
        "stop_rate_base": 0.2,
        "stop_rate_tuned": 1.0,
        "max_new_tokens": 20,
        "seconds": 1.0,
    }
    return EvalReport(**(values | changes))


def codes(judged: EvalReport, **changes: Any) -> list[str]:
    return [found.code for found in findings.judge(judged, **(JUDGED | {"not_numbers": NUMBERS} | changes))]


def test_a_good_report_has_no_findings() -> None:
    assert codes(report()) == []


@pytest.mark.parametrize(("rows", "expected"), [(5, ["E001"]), (6, ["E002"])])
def test_rows_below_six_can_tell_nothing(rows: int, expected: list[str]) -> None:
    match = comparison("exact_match", 0.1, 0.3, significant=False)
    assert codes(report(rows=rows, comparisons=[match])) == expected


def test_the_verdict_is_on_the_primary_metric() -> None:
    same, worse = comparison("exact_match", 0.5, 0.5, significant=False), comparison("loss", 1.0, 2.0)
    assert codes(report(comparisons=[worse, same])) == ["E002"]
    assert codes(report(comparisons=[worse, same], primary="loss")) == ["E003"]
    assert codes(report(comparisons=[comparison("exact_match", 0.9, 0.1)])) == ["E003"]
    found = findings.judge(report(comparisons=[worse, same], primary="loss"), **JUDGED, not_numbers=NUMBERS)[0]
    assert found.what == "loss: tuned is significantly worse than base (1.000 and 2.000)."


@pytest.mark.parametrize(("rate", "expected"), [(0.96, []), (0.94, ["E004"])])
def test_more_than_one_answer_in_twenty_that_does_not_stop_is_told(rate: float, expected: list[str]) -> None:
    assert codes(report(stop_rate_tuned=rate)) == expected


def test_text_has_nothing_to_match_and_that_is_told_only_when_asked_for() -> None:
    text = report(comparisons=[comparison("loss", 2.0, 1.0)], primary="loss", stop_rate_tuned=None)
    assert codes(text, layout="text") == ["E005"]
    assert codes(text, layout="text", asked=["loss"]) == []


def test_long_answers_say_little_unless_a_model_gets_them_right() -> None:
    never = [comparison("loss", 2.0, 1.0), comparison("exact_match", 0.0, 0.04, significant=False)]
    assert not findings.exact_match_informs(never, 65)
    assert findings.exact_match_informs(never, 64)
    assert findings.exact_match_informs([comparison("exact_match", 0.05, 0.0)], 65)
    assert findings.exact_match_informs([comparison("exact_match", 0.0, 0.05)], 65)
    assert codes(report(comparisons=never, primary="loss"), answer_tokens=65) == ["E006"]
    assert codes(report(comparisons=never[:1], primary="loss"), answer_tokens=65, asked=["loss"]) == []


def test_the_primary_metric_is_exact_match_where_it_informs() -> None:
    never = [comparison("loss", 2.0, 1.0), comparison("exact_match", 0.0, 0.0, significant=False)]
    assert findings.primary(never, 10) == "exact_match"
    assert findings.primary(never, 100) == "loss"
    assert findings.primary(never[:1], 10) == "loss"
    assert findings.primary(never[1:], 100) == "exact_match"
    assert findings.primary([], 10) is None


def test_a_loss_that_is_no_number_is_an_error() -> None:
    judged = findings.judge(report(), **JUDGED, not_numbers={"base": 0, "tuned": 3})
    assert [(found.code, found.severity) for found in judged] == [("E007", "error")]
    assert judged[0].what == "The loss of the tuned model is NaN or infinite on 3 of 100 rows."
