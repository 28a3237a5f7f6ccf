"""Many metrics at once, and what must not get worse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.evaluate.comparisons import compare_losses, compare_means, compare_shares, non_inferior
from tunesmith.evaluate.families import corrected, holm
from tunesmith.records import Comparison, SuiteName


def comparison(metric: str, p_value: float | None, suite: SuiteName = "task") -> Comparison:
    found = p_value is not None and p_value < 0.05
    values = {"base": 0.0, "tuned": 0.1, "difference": 0.1, "interval": None, "p_value": p_value, "test": "a test"}
    return Comparison(metric=metric, suite=suite, better="higher", rows=20, significant=found, **values)


def test_holm_multiplies_the_smallest_most() -> None:
    # Holm 1979: 4 * .01, then 3 * .02 = .06, then 2 * .03 = .06, then .04 raised to .06.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    ranked = [after for _, after in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


def test_metrics_besides_the_lead_are_corrected_within_their_suite() -> None:
    given = [
        comparison("exact_match", 0.03),
        comparison("f1", 0.03),
        comparison("chrf", 0.01),
        comparison("rouge_l", None),
        comparison("instructions", 0.04, "regression"),
    ]
    lead, f1, chrf, untested, other = corrected(given, {("task", "exact_match")})
    assert (lead.adjusted, lead.significant) == (None, True)
    assert (f1.adjusted, f1.significant) == (0.03, True)
    assert (chrf.adjusted, chrf.significant) == (0.02, True)
    assert (untested.adjusted, untested.significant) == (None, False)
    assert (other.adjusted, other.significant) == (0.04, True)


def test_without_a_lead_all_are_corrected() -> None:
    first, second = corrected([comparison("f1", 0.03), comparison("chrf", 0.04)], [])
    assert (first.adjusted, first.significant, second.adjusted) == (0.06, False, 0.06)
    assert first.p_value == 0.03


def test_a_lead_is_one_of_its_suite() -> None:
    same = [comparison("f1", 0.03), comparison("f1", 0.03, "harness"), comparison("chrf", 0.04, "harness")]
    assert [one.adjusted for one in corrected(same, [("task", "f1")])] == [None, 0.06, 0.06]


def test_values_in_other_units_are_one_test() -> None:
    given = [comparison(metric, 0.02) for metric in ("loss", "perplexity", "bits_per_byte")] + [comparison("f1", 0.03)]
    assert [one.adjusted for one in corrected(given, [("task", "f1")])] == [0.02, 0.02, 0.02, None]
    assert [one.adjusted for one in corrected(given, [("task", "perplexity")])] == [None, None, None, 0.03]


def interval(low: float, high: float, better: str) -> Comparison:
    kept = {"interval": {"low": low, "high": high, "method": "any"}, "better": better}
    return Comparison.model_validate(comparison("x", 0.5).model_dump() | kept)


@pytest.mark.parametrize(
    ("better", "low", "high", "kept"),
    [
        ("higher", -0.04, 0.5, True),
        ("higher", -0.05, 0.5, False),
        ("higher", -0.9, -0.8, False),
        ("lower", -0.5, 0.04, True),
        ("lower", -0.5, 0.05, False),
    ],
)
def test_kept_is_what_the_whole_interval_says(better: str, low: float, high: float, kept: bool) -> None:
    judged = non_inferior(interval(low, high, better), 0.05)
    assert (judged.margin, judged.kept) == (0.05, kept)


def test_few_rows_show_nothing_to_be_kept() -> None:
    same = [0.5, 0.25, 0.1]
    assert non_inferior(compare_means("score", same, same), 0.05).kept is False
    # Not a row changed, but of so few rows more than 5% could have.
    assert non_inferior(compare_shares("refused", [True] * 20, [True] * 20), 0.05).kept is False
    assert non_inferior(compare_shares("refused", [True] * 200, [True] * 200), 0.05).kept is True
    assert non_inferior(compare_losses([3.0] * 40, [3.1] * 40, [1] * 40), 0.2).kept is True


def test_what_had_better_be_rare_is_compared_the_other_way() -> None:
    compared = compare_shares("refused", [True] * 6, [False] * 6, better="lower")
    assert (compared.better, compared.difference) == ("lower", -1.0)
    assert compare_means("length", [2.0, 3.0], [1.0, 1.0], better="lower").better == "lower"
    assert compare_means("refused", [1.0] * 6, [0.0] * 6, better="lower") == compared
