"""Success criteria: what the recipe asks of an evaluation, and what the report says of it."""

from typing import Any

import pytest

from tunesmith.evaluate.success import conclude
from tunesmith.recipe.evaluation import Conversations, Evaluation, Success
from tunesmith.records import Comparison, EvalReport
from tunesmith.rules import finding


def compared(metric: str = "exact_match", base: float = 0.5, tuned: float = 0.7, **changes: Any) -> Comparison:
    values: dict[str, Any] = {
        "metric": metric,
        "better": "higher",
        "rows": 100,
        "base": base,
        "tuned": tuned,
        "difference": tuned - base,
        "interval": None,
        "p_value": 0.01,
        "test": "exact",
        "significant": True,
    }
    return Comparison(**(values | changes))


def concluded(*comparisons: Comparison, **success: Any) -> EvalReport:
    report = EvalReport(
        rows=100, split="data/test.jsonl", comparisons=list(comparisons), primary="exact_match", seconds=1
    )
    return conclude(report, Evaluation(success=Success(**success)))


def reasons(report: EvalReport) -> list[str]:
    """Why the criteria aren't met; the finding and the verdict say the same."""
    assert report.conclusion is not None
    said = [one for one in report.findings if one.code == "E057"]
    assert [one.severity for one in said] == ["error"] * bool(report.conclusion.reasons)
    assert report.conclusion.met is (not report.conclusion.reasons)
    assert all(reason in said[0].what for reason in report.conclusion.reasons)
    return report.conclusion.reasons


@pytest.mark.parametrize(
    ("comparison", "success", "said"),
    [
        (compared(), {}, ""),
        (compared(), {"improvement": 0.2}, ""),
        (compared(), {"improvement": 0.21}, "improved by 0.2, not by 0.21"),
        (compared(p_value=0.05), {}, "p = 0.05, not below 0.05"),
        (compared(p_value=0.05), {"p_value": 0.06}, ""),
        (compared(p_value=None), {}, "has no p-value"),
        (compared(tuned=0.5), {}, "isn't better, from"),
        (compared(tuned=0.4), {}, "isn't better, from"),
        (compared(better="lower", tuned=0.4), {"improvement": 0.1}, ""),
        (compared(better="lower", tuned=0.6), {}, "isn't better, from"),
        (compared("loss"), {}, "exact_match wasn't measured, only loss"),
        (compared("loss"), {"metric": "loss"}, ""),
    ],
)
def test_what_the_metric_must_show(comparison: Comparison, success: dict[str, Any], said: str) -> None:
    found = reasons(concluded(comparison, **success))
    assert bool(found) == bool(said)
    assert not found or said in found[0]


def test_a_regression_that_is_shown_counts_unless_it_is_within_the_margin_or_may_be() -> None:
    lost = compared("instructions_followed", 0.9, 0.5, suite="regression", kept=False)
    assert reasons(concluded(compared(), lost)) == ["instructions followed got worse, from 90.0 % to 50.0 %"]
    assert reasons(concluded(compared(), lost, no_regression=False)) == []
    assert reasons(concluded(compared(), lost.model_copy(update={"kept": True}))) == []
    assert reasons(concluded(compared(), lost.model_copy(update={"significant": False}))) == []
    assert reasons(concluded(compared(), lost.model_copy(update={"suite": "conversations"}))) == []


def test_whatever_else_got_worse_is_a_regression() -> None:
    f1, acc = compared("token_f1", 0.9, 0.5), compared("boolq: acc", 0.9, 0.5, suite="harness")
    assert reasons(concluded(compared(), f1, acc)) == [
        "token F1 got worse, from 0.9 to 0.5",
        "boolq: acc got worse, from 0.9 to 0.5",
    ]
    assert reasons(concluded(compared(), f1, acc, no_regression=False)) == []
    worse = compared(base=0.7, tuned=0.5)
    assert [reason.split(",")[0] for reason in reasons(concluded(worse))] == ["exact match isn't better"]
    named = reasons(concluded(worse, compared("token_f1"), metric="token_f1"))
    assert named == ["exact match got worse, from 70.0 % to 50.0 %"]


def test_nothing_asked_is_nothing_met() -> None:
    report = EvalReport(rows=100, split="data/test.jsonl", comparisons=[compared(tuned=0.1)], seconds=1)
    conclusion = conclude(report, Evaluation()).conclusion
    assert conclusion is not None
    assert (conclusion.met, conclusion.reasons) == (None, [])
    assert conclusion.sentence


def test_conversations_bring_their_own_criteria() -> None:
    talks = Conversations(personas=2, simulator="builtin:small", judge="builtin:small")
    held = [compared(), compared("conversation_score", suite="conversations")]
    report = EvalReport(rows=100, split="data/test.jsonl", comparisons=held, seconds=1)
    met = conclude(report, Evaluation(conversations=talks)).conclusion
    assert met is not None
    assert met.met is True
    failed = finding("E067", "conversations", gain=0.05, wanted=0.1, base=0.5, tuned=0.55)
    concluded = conclude(report.model_copy(update={"findings": [failed]}), Evaluation(conversations=talks))
    assert concluded.conclusion is not None
    assert (concluded.conclusion.met, concluded.conclusion.reasons) == (False, [failed.what])
    assert [one.code for one in concluded.findings] == ["E067"], "it is an error by itself"
    doubtful = failed.model_copy(update={"severity": "warning"})
    passed = conclude(report.model_copy(update={"findings": [doubtful]}), Evaluation(conversations=talks))
    assert passed.conclusion is not None
    assert passed.conclusion.met is True


def test_conversations_that_nobody_graded_show_nothing() -> None:
    talks = Conversations(personas=2, simulator="builtin:small", judge="builtin:small")
    report = EvalReport(rows=100, split="data/test.jsonl", comparisons=[compared()], seconds=1)
    silent = conclude(report, Evaluation(conversations=talks)).conclusion
    assert silent is not None
    assert (silent.met, silent.reasons) == (False, ["no conversation was graded"])
