"""The verdict in one sentence says what the numbers say, no more."""

from typing import Any

import pytest

from tests.support.receipts import REMEMBERED, compared, make_full_evaluation, make_regression
from tunesmith.evaluate.verdict import lost, sentence
from tunesmith.records import Comparison, EvalReport, Leakage, Side, Unseen
from tunesmith.rules import finding


def report(*comparisons: Comparison, **more: Any) -> EvalReport:
    values: dict[str, Any] = {"rows": 200, "split": "data/test.jsonl", "seconds": 1.0, "primary": "exact_match"}
    return EvalReport(comparisons=list(comparisons), **(values | more))


BETTER = compared("exact_match", 0.25, 0.75, 0.05)
NUMBERS = "from 25.0 % to 75.0 % on 200 held-out rows (+50.0 points, 95% interval +45.0 to +55.0 points, p = 0.0004)"


def test_a_better_model_with_its_numbers() -> None:
    assert sentence(report(BETTER)) == f"The tuned model is better than its base in exact match: {NUMBERS}."


def test_a_worse_model_and_one_that_isnt_told_apart() -> None:
    worse = compared("exact_match", 0.75, 0.25)
    assert sentence(report(worse)).startswith("The tuned model is worse than its base in exact match: from 75.0 % to")
    lower = compared("loss", 2.0, 1.0, better="lower")
    assert "is better than its base in held-out loss: from 2 to 1" in sentence(report(lower, primary="loss"))
    same = compared("exact_match", 0.5, 0.52)
    assert sentence(report(same)).startswith("The tuned model isn't shown to differ from its base in exact match")


@pytest.mark.parametrize(
    ("few", "told"),
    [
        ({"rows": 3}, "3 rows can't tell the tuned model from its base in exact match"),
        ({"rows": 40, "groups": 5}, "5 groups of rows can't tell the tuned model from its base in exact match"),
    ],
)
def test_too_few_rows_or_groups_are_no_verdict(few: dict[str, int], told: str) -> None:
    assert sentence(report(BETTER.model_copy(update=few))).startswith(told)
    enough = {name: value + 3 for name, value in few.items()}
    assert "is better" in sentence(report(BETTER.model_copy(update=enough)))


def test_the_adjusted_p_value_is_told_where_there_is_one() -> None:
    assert "p = 0.002" in sentence(report(BETTER.model_copy(update={"adjusted": 0.002})))
    assert "p < 0.0001" in sentence(report(BETTER.model_copy(update={"p_value": 1e-9})))


def test_without_a_comparison_there_is_no_verdict() -> None:
    none = "The tuned model could not be compared with its base; the findings say why."
    assert sentence(report(primary=None)) == sentence(report(BETTER, primary="loss")) == none
    elsewhere = BETTER.model_copy(update={"suite": "harness"})
    assert sentence(report(elsewhere)) == none, "a metric of another suite isn't the task's"


def test_what_was_lost_kept_or_left_open_is_told() -> None:
    kept, lost, unclear = make_regression()
    assert sentence(report(BETTER, kept, lost, unclear)).endswith("; it got worse at instructions followed.")
    assert sentence(report(BETTER, kept, unclear)).endswith("; it isn't shown to have kept harmful asks refused.")
    assert sentence(report(BETTER, kept)).endswith("; nothing else got worse by more than is accepted.")
    silent = compared("harmful_refused", 0.5, 0.5, suite=REMEMBERED)
    some = sentence(report(BETTER, kept, silent))
    assert some.endswith("; it is shown to have kept neutral text, bits per byte.")
    assert sentence(report(BETTER, silent)) == sentence(report(BETTER))


def test_what_got_worse_in_the_task_or_the_harness_is_told_once() -> None:
    f1, acc = compared("token_f1", 0.75, 0.25), compared("boolq: acc", 0.75, 0.25, suite="harness")
    losses = [compared(metric, 1.0, 2.0, better="lower") for metric in ("loss", "perplexity", "bits_per_byte")]
    talks = compared("conversation_score", 0.75, 0.25, suite="conversations")
    told = sentence(report(BETTER, f1, *losses, acc, make_regression()[1], talks))
    assert told.endswith("; it got worse at token F1, held-out loss, boolq: acc, instructions followed.")
    assert "got worse at" not in sentence(report(*losses, primary="perplexity")), "the verdict itself says so"
    assert lost(report(*losses), None) == losses[:1]


def test_a_significant_loss_within_the_margin_is_no_loss() -> None:
    kept = make_regression()[0]
    assert kept.significant
    assert not kept.lost
    assert kept.model_copy(update={"kept": False}).lost


def test_rows_that_training_saw_are_told() -> None:
    leakage = Leakage(rows=200, exact=3, near=1, method="m")
    unseen = Unseen(rows=196, base=0.25, tuned=0.5, difference=0.25, p_value=0.01)
    told = sentence(report(BETTER.model_copy(update={"unseen": unseen}), leakage=leakage))
    assert told.endswith("; training saw 4 of the rows, without them the difference is +25.0 points.")
    assert sentence(report(BETTER, leakage=leakage)).endswith("; training saw 4 of the rows.")
    clean = leakage.model_copy(update={"exact": 0, "near": 0})
    assert sentence(report(BETTER, leakage=clean)) == sentence(report(BETTER))
    told = sentence(report(BETTER, leakage=clean, base_leakage=leakage))
    assert told.endswith("; the other run's training saw 4 of the rows.")
    told = sentence(report(BETTER, leakage=leakage, base_leakage=leakage))
    assert told.endswith("; training saw 4 of the rows and the other run's training saw 4 of the rows.")


def test_conversations_are_told() -> None:
    told = sentence(make_full_evaluation())
    assert "; conversations, by the rubric: better (+0.22); conversations, by safety: no difference shown" in told


def test_a_loss_of_safety_that_may_be_chance_is_no_absence_of_a_difference() -> None:
    safety = compared("conversation_safety", 1.0, 0.375, 0.9, suite="conversations")
    lost = finding("E069", "evaluation.conversations", base=1.0, tuned=0.375, p_value=0.062, reasons="too much")
    assert not safety.significant
    assert "by safety: no difference shown (-0.625)" in sentence(report(BETTER, safety))
    told = sentence(report(BETTER, safety, findings=[lost]))
    assert "by safety: less safe than is accepted (-0.625)" in told
    safer = compared("conversation_safety", 0.9, 0.93, 0.9, suite="conversations")
    told = sentence(report(BETTER, safer, findings=[lost]))
    assert "by safety: more conversations graded as unsafe (+0.03)" in told, "the mean hides them"
    other = compared("conversation_score", 0.5, 0.51, 0.9, suite="conversations")
    assert "by the rubric: no difference shown" in sentence(report(BETTER, other, findings=[lost]))


def test_runs_and_servers_that_are_compared_have_names() -> None:
    sides = {
        "base": Side(kind="run", name="/home/me/runs/old"),
        "tuned": Side(kind="endpoint", name="m at http://h/v1"),
    }
    told = sentence(report(BETTER, **sides))
    assert told.startswith("The model m at http://h/v1 is better than the result of old in exact match")
