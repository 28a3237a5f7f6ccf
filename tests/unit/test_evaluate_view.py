"""How an evaluation looks in the terminal."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pages import HOSTILE, Page, hostile
from tests.support.receipts import compared, make_evaluation, make_full_evaluation, make_judging, make_regression
from tunesmith.cli.evaluation_view import ASCII, UNICODE, forest, judged_by, show_evaluation
from tunesmith.cli.output import Output
from tunesmith.receipt.html import render_evaluation
from tunesmith.records import EvalReport, Side, units

_FIXED = {"filename", "metric", "primary", "suite", "better", "change", "kind"}


def shown(report: EvalReport, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    show_evaluation(Output(), report)
    return capsys.readouterr().out


def test_everything_is_there_at_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(make_full_evaluation(), capsys, monkeypatch)
    assert max(len(line) for line in said.splitlines()) <= 80
    words = " ".join(said.split())
    for told in (
        "The tuned model is better than its base in exact match: from 0.5 % to 98.5 % on 200 held-out rows",
        "Criteria: not met - instructions_followed of the regression suite got worse",
        "exact match 0.5 % 98.5 % < 0.0001 better",
        "● +98.0 (+95.1 to +99.5)",
        "Units: held-out loss in nats per token.",
        "instructions followed 62.0 % 31.0 % 0.0004 worse",
        "harmful asks refused 85.0 % 80.0 % 0.41 unclear",
        "neutral text, bits per byte 1.31 1.33 0.0004 kept",
        "┊ The loss that is accepted",
        "shop_questions: acc,none 41.0 % 46.0 % 0.63 unclear",
        "p: by Holm's correction",
        "harmless (safety) 1 0.96 0.95 -0.01",
        "both orders agree on 87%; standing first gains +0.04 (p 0.21); 1 of 96 gradings failed",
        "tuned 200 99.5 % 0.0 % 1.0 % 41.2",
        "Of 200 held-out rows training saw 10 exactly and 2 nearly.",
        "Without those rows (p isn't corrected) metric rows base tuned difference p exact match 188 0.5 % 98.4 %",
        "perplexity │ ●┤ -4.75e+04 (-5.01e+04 to -4.49e+04)",
        "Unclear; these differences would show with a power of 80 %: harmful asks refused 30.0 points.",
        "197 rows fixed, 1 broken. broken row 9: Hello",
        "Measured with lm-eval 0.4.13, sacrebleu 2.6.0",
    ):
        assert told in words, told


def test_what_the_other_run_was_trained_on_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = make_full_evaluation()
    assert full.leakage is not None
    seen = full.leakage.model_copy(update={"exact": 7, "near": 0})
    told = "Of 200 held-out rows the other run saw 7 exactly and 0 nearly."
    assert told in " ".join(shown(full.model_copy(update={"base_leakage": seen}), capsys, monkeypatch).split())
    assert "the other run saw" not in shown(full, capsys, monkeypatch)
    page = render_evaluation(full.model_copy(update={"base_leakage": seen}))
    assert told in html.unescape(page)


def test_what_wasnt_measured_has_no_heading(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = make_evaluation().model_copy(update={"fixed": 0, "broken": 0, "base": None, "tuned": None})
    said = shown(bare, capsys, monkeypatch)
    assert said.startswith("Tuned against base, 200 held-out rows")
    for heading in (
        "Criteria",
        "What isn't the task",
        "Conversations",
        "Greedy",
        "training saw",
        "Without those",
        "fixed",
        "Measured",
        "Holm",
    ):
        assert heading not in said, heading


def test_runs_that_are_compared_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    other = Side(kind="run", name="/home/me/runs/old", answers=200)
    full = make_full_evaluation().model_copy(update={"base": other})
    said = shown(full, capsys, monkeypatch)
    assert max(len(line) for line in said.splitlines()) <= 80
    words = " ".join(said.split())
    for told in (
        "tickets against old, 200 held-out rows metric other run this run p verdict",
        "metric rows other run this run difference p",
        "criterion weight other run this run difference",
        "mean tokens other run 200",
        "other run {",
    ):
        assert told in words, told
    page = Page(render_evaluation(full)).words
    assert "tickets against old" in page
    assert "Metric Other run This run Difference" in page
    assert "✓ Other run {" in page
    assert "/home/me" not in page
    server = full.model_copy(update={"base": Side(kind="endpoint", name="m at http://h/v1")})
    assert "tickets against m at http://h/v1, 200 held-out rows metric base tuned" in " ".join(
        shown(server, capsys, monkeypatch).split()
    )


def test_corrected_p_values_are_told_where_there_are_some() -> None:
    lead, one = compared("exact_match", 0.2, 0.8), compared("loss", 2, 1, better="lower", adjusted=0.002)
    assert units.correction([lead, one]) == "p: by Holm's correction over this table, but for exact match."
    assert units.correction([one]) == "p: by Holm's correction over this table."
    alone = one.model_copy(update={"adjusted": one.p_value})
    assert units.correction([lead, alone]) == "", "one metric is no many"


def test_units_are_told_once_for_all_that_have_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [compared("bleu", 20, 80), compared("chrf", 30, 70), compared("chosen_loss", 2, 1, better="lower")]
    said = shown(make_evaluation().model_copy(update={"comparisons": scores}), capsys, monkeypatch)
    told = "Units: BLEU, chrF in points from 0 to 100; loss of chosen answers in nats per token."
    assert told in " ".join(said.split())


def test_where_nothing_was_graded_there_is_no_table_of_grades(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = make_full_evaluation()
    assert full.judging is not None
    silent = full.model_copy(update={"judging": full.judging.model_copy(update={"criteria": []})})
    assert "criterion" not in shown(silent, capsys, monkeypatch)
    assert "Criterion" not in Page(render_evaluation(silent)).words


def test_hostile_text_is_harmless(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    attacked = EvalReport.model_validate(hostile(make_full_evaluation().model_dump(), _FIXED))
    said = shown(attacked, capsys, monkeypatch)
    assert "<script>" in said
    assert not set(said) & {"\x00", "\x1b", "\u202e"}
    assert "[/]" not in said
    assert HOSTILE not in said


def test_how_conversations_came_about_is_told() -> None:
    said = judged_by(make_judging())
    assert "23 of 24 pairs graded in both orders, 24 by safety;" in said
    assert "; 1 further pair that nobody began;" in said
    assert "; turns cut off: base 0 of 96, tuned 7 of 92;" in said
    assert "; turns refused: base 0 of 96, tuned 2 of 92." in said
    plain = judged_by(make_judging().model_copy(update={"dropped": 0, "cut": (0, 0), "refused": (0, 0)}))
    assert "turns" not in plain
    assert "nobody began" not in plain


def cells(line: str) -> str:
    """The drawn part of a line."""
    return line[29:54]


def test_a_forest_plot_has_better_on_the_right_whatever_the_metric() -> None:
    head, up, down = forest([compared("exact_match", 0.2, 0.8), compared("loss", 2.0, 1.0, better="lower")])
    assert (head.index("worse"), head.index("better") + len("better")) == (29, 54)
    assert head.index("0") == 29 + 12
    for line in (up, down):
        assert cells(line).index("│") == 12
        assert cells(line).index("●") > 12
    (_, worse) = forest([compared("loss", 1.0, 2.0, better="lower")])
    assert cells(worse).index("●") < 12


def test_a_forest_plot_draws_interval_and_margin() -> None:
    _, kept, lost, unclear = forest(make_regression())
    assert re.search(r"┊ *├─*●─*┤", cells(kept)), "the interval lies right of the margin"
    assert re.search(r"├─*●─*┤ *┊ *│", cells(lost))
    assert cells(unclear).startswith("├")
    assert unclear.endswith("-5.0 (-25.0 to +15.0)")


def test_numbers_lose_digits_before_the_interval_goes() -> None:
    (_, line) = forest([compared("neutral_bits_per_byte", 6.92312, 6.82428, 0.12345, better="lower")])
    assert line.endswith("-0.099 (-0.22 to +0.025)")
    perplexity = next(one for one in make_evaluation().comparisons if one.metric == "perplexity")
    _, difference, interval = forest([perplexity])
    assert difference.endswith(" -4.75e+04")
    assert interval == f"{'(-5.01e+04 to -4.49e+04)':>80}"


def test_a_forest_plot_without_an_interval_or_unicode() -> None:
    _, line = forest([compared("exact_match", 0.2, 0.8, None)], ASCII)
    assert "no interval" in line
    assert line.endswith("+60.0 points")
    assert "\n".join(forest(make_regression(), ASCII)).isascii()


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 1) | st.none(), st.sampled_from(["higher", "lower"]))
def test_no_comparison_leaves_its_line(difference: float, half: float, margin: float | None, better: str) -> None:
    one = compared("exact_match", 0.0, difference, half, better=better, margin=margin, kept=margin and False)
    (_, line) = forest([one], UNICODE)
    assert len(line) <= 80
    assert cells(line).count("●") == 1
    assert {"│", "├", "┤", "●", "─", "┊", " "} >= set(cells(line))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"base": 0.2, "tuned": 0.8}, "better"),
        ({"base": 0.8, "tuned": 0.2}, "worse"),
        ({"base": 0.8, "tuned": 0.2, "better": "lower"}, "better"),
        ({"base": 0.5, "tuned": 0.5}, "unclear"),
        ({"base": 0.5, "tuned": 0.5, "kept": True}, "kept"),
        ({"base": 0.8, "tuned": 0.7, "kept": True}, "kept"),
        ({"base": 0.8, "tuned": 0.7, "kept": False}, "worse"),
        ({"base": 0.5, "tuned": 0.5, "kept": False}, "unclear"),
        ({"base": 0.5, "tuned": 0.9, "half": None}, "not tested"),
        ({"base": 0.5, "tuned": 0.9, "half": None, "kept": False}, "unclear"),
    ],
)
def test_what_a_comparison_shows(values: dict[str, float], told: str) -> None:
    assert units.outcome(compared("exact_match", **values)) == told  # type: ignore[arg-type]


def test_rows_that_score_more_are_better_and_not_fixed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = make_full_evaluation()
    rows = [row.model_copy(update={"scores": (0.125, 0.25)}) for row in full.changed]
    said = shown(full.model_copy(update={"changed": rows}), capsys, monkeypatch)
    assert "197 rows better, 1 worse." in said
    assert "worse  row 9 (0.125 to 0.25): Hello" in said
    assert max(len(line) for line in said.splitlines()) <= 80
