"""The E rules on reports of which every number is given."""

from typing import Any

import pytest

from tunesmith.evaluate import findings
from tunesmith.evaluate.verdict import lost
from tunesmith.records import Comparison, EvalReport, Finding, Side
from tunesmith.rules import finding


def comparison(metric: str, base: float, tuned: float, *, significant: bool = True) -> Comparison:
    better = "lower" if metric.endswith("loss") else "higher"
    values = {"difference": tuned - base, "interval": None, "test": None, "rows": 100}
    values["p_value"] = 0.01 if significant else 0.4
    return Comparison.model_validate(
        {"metric": metric, "better": better, "base": base, "tuned": tuned, "significant": significant} | values
    )


def report(**changes: Any) -> EvalReport:
    values: dict[str, Any] = {
        "rows": 100,
        "split": "data/test.jsonl",
        "comparisons": [comparison("loss", 2.0, 1.0), comparison("exact_match", 0.1, 0.9)],
        "primary": "exact_match",
        "seconds": 1.0,
    }
    return EvalReport(**(values | changes))


def codes(found: list[Finding]) -> list[str]:
    return [one.code for one in found]


def test_a_good_report_has_no_findings() -> None:
    assert findings.judge(report()) == []


@pytest.mark.parametrize(("rows", "expected"), [(5, ["E001"]), (6, ["E002"])])
def test_rows_below_six_can_tell_nothing(rows: int, expected: list[str]) -> None:
    match = comparison("exact_match", 0.1, 0.3, significant=False)
    assert codes(findings.judge(report(rows=rows, comparisons=[match]))) == expected


def test_few_groups_or_few_judged_rows_are_no_failure_of_the_training() -> None:
    match = comparison("exact_match", 0.1, 0.3, significant=False)
    groups = finding("E033", "test", groups=4, rows=100, column="customer")
    assert findings.judge(report(comparisons=[match], findings=[groups])) == []
    few = match.model_copy(update={"rows": 5})
    (found,) = findings.judge(report(comparisons=[few]))
    assert (found.code, "5 rows" in found.what) == ("E001", True)


def test_e059_a_metric_without_a_p_value() -> None:
    margin = comparison("reward_margin", 0.0, 0.5, significant=False)
    tested = report(comparisons=[margin], primary="reward_margin")
    assert codes(findings.judge(tested)) == ["E002"]
    untested = tested.model_copy(update={"comparisons": [margin.model_copy(update={"p_value": None})]})
    (found,) = findings.judge(untested)
    assert found.code == "E059"
    assert found.what.startswith("margin of implicit rewards has no p-value on 100 rows")


def test_a_likelihood_that_fell_a_little_is_no_loss() -> None:
    better, fell = comparison("reward_accuracy", 0.5, 0.9), comparison("chosen_loss", 2.0, 2.1)
    little = report(comparisons=[better, fell], primary="reward_accuracy")
    assert findings.judge(little) == []
    assert lost(little, better) == []
    told = finding("E009", "test", kind="chosen", base=2.0, tuned=3.0, remedy="Hold them.")
    assert lost(little.model_copy(update={"findings": [told]}), better) == [fell]


def test_the_verdict_is_on_the_primary_metric() -> None:
    same, worse = comparison("exact_match", 0.5, 0.5, significant=False), comparison("loss", 1.0, 2.0)
    assert codes(findings.judge(report(comparisons=[same]))) == ["E002"]
    assert codes(findings.judge(report(comparisons=[worse, same], primary="loss"))) == ["E003"]
    assert codes(findings.judge(report(comparisons=[comparison("exact_match", 0.9, 0.1)]))) == ["E003"]
    found = findings.judge(report(comparisons=[worse, same], primary="loss"))[0]
    assert found.what == "loss: tuned is significantly worse than base (1.000 and 2.000)."


def test_a_measure_that_rises_while_exact_match_falls_is_told() -> None:
    up = comparison("reward", 0.5, 0.9)
    (found,) = findings.judge(report(comparisons=[up, comparison("exact_match", 0.6, 0.2)], primary="reward"))
    assert found.code == "E014"
    assert found.what == "reward got better, but exact_match got significantly worse, from 0.600 to 0.200."
    for match in (comparison("exact_match", 0.2, 0.6), comparison("exact_match", 0.3, 0.2, significant=False)):
        assert findings.judge(report(comparisons=[up, match], primary="reward")) == []


def test_any_metric_that_got_worse_is_told_and_no_remedy_says_to_go_on() -> None:
    same, worse = comparison("exact_match", 0.0, 0.0, significant=False), comparison("loss", 0.151, 0.157)
    no_better, told = findings.judge(report(comparisons=[worse, same]))
    assert (no_better.code, told.code) == ("E002", "E003")
    assert "see first to what got worse" in no_better.fix
    assert told.what == "loss: tuned is significantly worse than base (0.151 and 0.157)."
    (alone,) = findings.judge(report(comparisons=[same]))
    assert "train longer" in alone.fix
    elsewhere = worse.model_copy(update={"suite": "regression"})
    assert codes(findings.judge(report(comparisons=[elsewhere, same]))) == ["E002"]


def test_the_remedy_fits_what_is_the_matter() -> None:
    same = comparison("exact_match", 0.0, 0.0, significant=False)
    few = report(comparisons=[same])
    (found,) = findings.judge(few, missed=True)
    assert "hold out more rows first" in found.fix
    assert "train longer" not in found.fix
    server = Side(kind="endpoint", name="m at http://localhost", answers=40, empty=1.0)
    (found,) = findings.judge(few.model_copy(update={"tuned": server}))
    assert "see first to why all answers of the tuned model are empty" in found.fix
    (found,) = findings.judge(few.model_copy(update={"tuned": server.model_copy(update={"empty": 0.9})}))
    assert "train longer" in found.fix


def test_a_server_that_says_nothing_at_all_is_an_error() -> None:
    mute = Side(kind="endpoint", name="m at http://localhost", answers=40, empty=1.0)
    (found,) = findings.silent(report(tuned=mute))
    assert (found.code, found.severity) == ("E058", "error")
    assert found.what == "All 40 answers of the server that stands for the tuned model are empty."
    assert [one.code for one in findings.silent(report(base=mute, tuned=mute))] == ["E058"] * 2
    for other in ({"empty": 0.9}, {"empty": None}, {"kind": "run"}):
        assert findings.silent(report(tuned=mute.model_copy(update=other))) == []


def test_a_loss_in_several_units_is_told_once() -> None:
    worse = [comparison("loss", 1.0, 2.0), comparison("perplexity", 2.7, 7.4).model_copy(update={"better": "lower"})]
    (told,) = findings.judge(report(comparisons=worse, primary="perplexity"))
    assert told.what.startswith("perplexity")
    (told,) = findings.judge(report(comparisons=worse[::-1], primary="loss"))
    assert told.what.startswith("loss")


@pytest.mark.parametrize(("rate", "expected"), [(0.96, []), (0.94, ["E004"])])
def test_more_than_one_answer_in_twenty_that_does_not_stop_is_told(rate: float, expected: list[str]) -> None:
    assert codes(findings.on_answers(None, 5.0, "test", stop_rates={"tuned": rate}, limit=20)) == expected
    both = findings.on_answers(None, 5.0, "test", stop_rates={"base": 0.5, "tuned": rate}, limit=20)
    assert codes(both) == ["E004", *expected]
    assert both[0].what == "50% of the base model's answers reach max_new_tokens 20 without stopping."


def test_long_answers_say_little_unless_a_model_gets_them_right() -> None:
    never = comparison("exact_match", 0.0, 0.04, significant=False)
    assert not findings.exact_match_informs([never], 65)
    assert findings.exact_match_informs([never], 64)
    assert findings.exact_match_informs([comparison("exact_match", 0.05, 0.0)], 65)
    assert findings.exact_match_informs([comparison("exact_match", 0.0, 0.05)], 65)
    assert codes(findings.on_answers(never, 65, "test", stop_rates={"tuned": 1.0}, limit=20)) == ["E006"]
    assert findings.on_answers(None, 65, "test", stop_rates={"tuned": 1.0}, limit=20) == []


def test_the_primary_metric_of_sft_is_exact_match_where_it_informs() -> None:
    never = [comparison("loss", 2.0, 1.0), comparison("exact_match", 0.0, 0.0, significant=False)]
    assert findings.primary("sft", never, 10) == "exact_match"
    assert findings.primary("sft", never, 100) == "loss"
    assert findings.primary("sft", never[:1], 10) == "loss"
    assert findings.primary("sft", never[1:], 100) == "exact_match"
    assert findings.primary("sft", [], 10) is None
    assert findings.primary("sft", never, 10, ["bleu", "loss"]) == "loss"
    assert findings.primary("sft", never, 10, ["bleu"]) == "exact_match"


@pytest.mark.parametrize(
    ("method", "metrics", "expected"),
    [
        ("clm", ["loss", "perplexity"], "perplexity"),
        ("clm", ["loss"], "loss"),
        ("dpo", ["reward_accuracy", "reward_margin", "preference_accuracy", "chosen_loss"], "reward_accuracy"),
        ("dpo", ["exact_match", "reward_margin"], "reward_margin"),
        ("kto", ["reward_margin", "desirable_loss"], "reward_margin"),
        ("reward", ["preference_accuracy", "score_margin"], "preference_accuracy"),
        ("grpo", ["exact_match", "reward"], "reward"),
        ("rloo", ["reward"], "reward"),
    ],
)
def test_each_method_is_judged_by_its_own_metric(method: str, metrics: list[str], expected: str) -> None:
    assert findings.primary(method, [comparison(metric, 0.0, 1.0) for metric in metrics], 5) == expected


def test_a_number_that_is_none_is_an_error_of_its_model() -> None:
    (found,) = findings.broken("loss", "test", [1.0] * 4, [float("nan"), float("inf"), 1.0, float("nan")])
    assert (found.code, found.severity) == ("E007", "error")
    assert found.what == "The loss of the tuned model is NaN or infinite on 3 of 4 rows."
    assert findings.broken("loss", "test", [1.0], [2.0]) == []


def test_rows_without_anything_to_measure_are_counted() -> None:
    (found,) = findings.left_out("test", 1, 9, "max_length 512")
    assert (found.code, found.what) == ("E011", "1 of 9 rows can't be measured within max_length 512.")
    assert findings.left_out("test", 0, 9, "max_length 512") == []


SHORTER, LONGER = (3, 9), (9, 3)


@pytest.mark.parametrize(
    ("short", "long", "expected"),
    [
        ([False] * 6, [True] * 6, ["E013"]),
        ([False] * 5, [True] * 6, []),
        ([False] * 6, [True] * 5, []),
        ([False] * 6, [True] * 3 + [False] * 3, []),
        ([False] * 5 + [True], [True] * 6, []),
        ([False] * 7 + [True], [True] * 6, ["E013"]),
    ],
)
def test_a_model_that_takes_the_longer_answer_is_told(short: list[bool], long: list[bool], expected: list[str]) -> None:
    gains = [1.0 if right else -1.0 for right in short + long] + [1.0] * 10
    lengths = [SHORTER] * len(short) + [LONGER] * len(long) + [(4, 4)] * 10
    assert codes(findings.longer_wins(gains, lengths, "test")) == expected


def test_the_shares_of_longer_and_shorter_answers_are_told() -> None:
    found = findings.longer_wins([-1.0] * 8 + [1.0] * 6, [SHORTER] * 8 + [LONGER] * 6, "test")[0]
    assert found.what == "Of 8 pairs with a shorter chosen answer the tuned model gets 0% right, of the others 100%."
