"""What so many rows can show: powers counted by hand, simulated, and solved back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import UsageError
from tunesmith.evaluate.certainty import on_groups, on_power, rows_like
from tunesmith.evaluate.comparisons import compare_means, compare_shares
from tunesmith.evaluate.power import (
    Needed,
    detectable_effect,
    detectable_share,
    mcnemar_power,
    paired_power,
    rows_for,
    rows_for_share,
)
from tunesmith.evaluate.statistics import Paired, mcnemar, sign_flip


def test_six_rows_that_all_change_for_the_better_are_just_enough() -> None:
    assert mcnemar_power(6, 1.0, 1.0) == 1.0
    assert mcnemar_power(5, 1.0, 1.0) == 0.0
    # Of seven, six at least must be better and none worse.
    assert mcnemar_power(6, 0.5, 0.5) == pytest.approx(0.5**6)
    assert mcnemar_power(6, 0.4, 0.6) == pytest.approx(0.5**6 + 0.1**6)


def test_mcnemars_power_is_how_often_it_finds_the_difference() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(120, [0.5, 0.08, 0.2, 0.22], size=4_000)
    found = np.mean([mcnemar(Paired(*map(int, cells))) < 0.05 for cells in drawn])
    assert mcnemar_power(120, 0.12, 0.28) == pytest.approx(found, abs=0.02)


def test_the_power_of_means_is_how_often_the_sign_flip_test_finds_the_difference() -> None:
    rng = np.random.default_rng(0)
    found = np.mean([sign_flip([0.0] * 10, row.tolist()) < 0.05 for row in rng.normal(1, 1, (500, 10))])
    assert paired_power(10, 1.0) == pytest.approx(found, abs=0.05)


@settings(deadline=None, max_examples=30)
@given(st.integers(6, 2_000), st.floats(0, 1))
def test_what_can_be_detected_is_found_four_times_in_five(rows: int, changed: float) -> None:
    share, effect = detectable_share(rows, changed), detectable_effect(rows)
    assert share is not None
    assert effect is not None
    assert mcnemar_power(rows, share, max(changed, share)) == pytest.approx(0.8, abs=1e-3)
    assert paired_power(rows, effect) == pytest.approx(0.8, abs=1e-3)


def test_below_six_rows_nothing_can_be_detected() -> None:
    assert detectable_share(5, 0.5) is None
    assert detectable_effect(5) is None


@pytest.mark.parametrize(("difference", "changed"), [(0.05, 0.1), (0.05, 0.25), (0.2, 0.2), (0.02, 0.3)])
def test_rows_needed_are_near_the_approximate_formula(difference: float, changed: float) -> None:
    # Connor 1987, Sample size for testing differences in proportions for the paired-sample design, Biometrics 43:207.
    root = 1.959964 * math.sqrt(changed) + 0.841621 * math.sqrt(changed - difference**2)
    rows = rows_for_share(difference, changed)
    assert rows == pytest.approx((root / difference) ** 2, rel=0.12, abs=10)
    assert mcnemar_power(rows, difference, changed) >= 0.8 > mcnemar_power(rows - 1, difference, changed)


def test_rows_for_a_difference_tells_the_least_first() -> None:
    needed = rows_for(-0.05)
    assert [one.changed for one in needed] == [0.05, 0.1, 0.25, 0.5]
    assert [one.rows for one in needed] == sorted(one.rows for one in needed)
    assert rows_for(0.3)[0].changed == 0.3
    assert rows_for(1.0) == [Needed(1.0, 6)]


@pytest.mark.parametrize("difference", [0.0, 0.0009, 1.1, -2.0, math.nan])
def test_differences_that_shares_do_not_have_are_refused(difference: float) -> None:
    with pytest.raises(UsageError, match="can't be planned for"):
        rows_for(difference)


def test_means_tell_the_least_difference_in_their_own_unit() -> None:
    # Differences of 0 and 2 in turn: standard deviation sqrt(8 * 1 / 7) about their mean 1.
    compared = compare_means("reward", [0.0] * 8, [0.0, 2.0] * 4)
    effect = detectable_effect(8)
    assert effect is not None
    assert compared.detectable == pytest.approx(effect * math.sqrt(8 / 7))
    assert compared.effect is not None
    assert compared.effect.value == pytest.approx(1 / math.sqrt(8 / 7))
    tenfold = compare_means("reward", [0.0] * 8, [0.0, 20.0] * 4)
    assert tenfold.detectable == pytest.approx(10 * compared.detectable)
    assert tenfold.effect == compared.effect


def test_rows_that_all_differ_alike_tell_no_spread() -> None:
    compared = compare_means("reward", [0.1] * 8, [0.4] * 8)
    assert (compared.detectable, compared.effect) == (None, None)
    unchanged = compare_means("reward_margin", [0.0] * 8, [0.0] * 8)
    assert (unchanged.detectable, unchanged.effect, unchanged.p_value) == (None, None, 1.0)


def test_shares_tell_the_least_difference_by_how_many_rows_changed() -> None:
    compared = compare_shares("exact_match", [False] * 50 + [True] * 50, [True] * 20 + [False] * 40 + [True] * 40)
    assert compared.detectable == detectable_share(100, 0.3)


def test_rows_like_those_compared() -> None:
    compared = compare_means("reward", [0.0] * 40, [0.0, 2.0] * 20)
    assert compared.detectable is not None
    assert rows_like(compared, -compared.detectable) == pytest.approx(40, abs=1)
    assert rows_like(compared, compared.detectable / 2) == pytest.approx(160, abs=8)
    assert rows_like(compare_means("reward", [0.1] * 8, [0.4] * 8), 0.1) is None
    scattered = [number % 7 / 2 for number in range(40)]
    in_groups = compare_means("reward", [0.0] * 40, scattered, [number // 4 for number in range(40)])
    assert in_groups.detectable is not None
    assert rows_like(in_groups, in_groups.detectable) == pytest.approx(10, abs=1)


@pytest.mark.parametrize(("rows", "fixed", "broken"), [(100, 0, 0), (60, 2, 0), (100, 8, 6)])
def test_shares_like_those_compared_need_what_mcnemars_test_needs(rows: int, fixed: int, broken: int) -> None:
    base = [False] * fixed + [True] * broken + [True] * (rows - fixed - broken)
    tuned = [True] * fixed + [False] * broken + [True] * (rows - fixed - broken)
    compared = compare_shares("exact_match", base, tuned)
    assert compared.changed == (fixed + broken) / rows
    for difference in (0.02, 0.05):
        exact = rows_for_share(difference, max(difference, (fixed + broken) / rows))
        assert rows_like(compared, difference) == rows_like(compared, -difference) == exact
    (found,) = on_power(compared, 0.02, "eval.jsonl")
    assert f"About {rows_like(compared, 0.02):,} rows would show 0.02:" in found.fix
    assert compare_shares("exact_match", base, tuned, [*range(rows)]).changed is None


def test_e036_tells_of_a_difference_of_medium_size_that_could_be_missed() -> None:
    unsure = compare_means("reward", [0.0] * 20, [-2.0, 2.1] * 10)
    assert not unsure.significant
    (found,) = on_power(unsure, 0.0, "eval.jsonl")
    assert found.code == "E036"
    assert found.what.startswith("reward: 20 rows show a difference of 1.39 with a probability of 80%")
    assert found.fix.startswith("About 34 rows would show 1.05:")


def test_e036_tells_of_the_rows_that_the_improvement_asked_for_needs() -> None:
    unsure = compare_means("reward", [0.0] * 400, [-2.0, 2.1] * 200)
    assert on_power(unsure, 0.0, "eval.jsonl") == []
    (found,) = on_power(unsure, 0.1, "eval.jsonl")
    assert f"About {rows_like(unsure, 0.1):,} rows would show 0.1:" in found.fix


def test_e036_is_silent_where_the_rows_suffice_or_nothing_is_known() -> None:
    unsure = compare_means("reward", [0.0] * 40, [-2.0, 2.1] * 20)
    sure = compare_means("reward", [0.0] * 20, [1.0, 2.1] * 10)
    few = compare_means("reward", [0.0] * 5, [-1.0, 2.1, 1.0, 0.5, 0.1])
    assert on_power(unsure, 1.0, "eval.jsonl") == []
    assert on_power(sure, 0.0, "eval.jsonl") == []
    assert on_power(few, 0.0, "eval.jsonl") == []
    assert on_power(None, 0.0, "eval.jsonl") == []


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ([1, 1, 2, 2, 3, 3, 4, 4, 5, 5], ["E033"]),
        ([1, 1, 2, 2, 3, 3, 4, 4, 5, 6], []),
        ([1, 1, 2, 2, 3, 3, 4, 4, 5, None], ["E034"]),
        ([1, 1, None, None, None, None, None], ["E034"]),
        ([1, 2, 3, 4, 5, 6, None], ["E034", "E035"]),
        ([None] * 8, ["E034"]),
        ([1, 2, 3, 4, 5, 6], ["E035"]),
        ([1, 1, 1], []),
    ],
)
def test_groups_are_looked_at_before_models_are_asked(values: list[int | None], codes: list[str]) -> None:
    assert [found.code for found in on_groups(values, "customer", "eval.jsonl")] == codes


def test_findings_on_groups_say_what_there_is() -> None:
    few, without = on_groups([1] * 5 + [2] * 5, "customer", "e"), on_groups([1, 1, *range(2, 7), None], "customer", "e")
    assert few[0].what.startswith("The 10 rows belong to 2 groups by customer")
    assert without[0].what == "1 of 8 held-out rows has no customer; each counts as a group of its own."
    assert on_groups([*range(6)], "customer", "e")[0].what == "No two held-out rows have the same customer: 6 groups."
