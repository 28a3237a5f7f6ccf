"""Numbers of two models as comparisons, against values worked out by hand."""

import math

import pytest
from scipy import stats

from tunesmith.evaluate.comparisons import (
    compare_groups,
    compare_losses,
    compare_means,
    compare_perplexities,
    compare_shares,
    compare_with_chance,
)
from tunesmith.evaluate.families import holm
from tunesmith.evaluate.scores import Score
from tunesmith.evaluate.statistics import loss_interval, sign_flip
from tunesmith.rewards import RewardFunction, make_shipped


def perplexities(base: list[float], tuned: list[float], tokens: list[int]) -> int:
    return len(compare_perplexities(compare_losses(base, tuned, tokens), base, tuned, tokens))


@pytest.mark.parametrize(("loss", "expected"), [(13.8, 1), (13.9, 0)])
def test_perplexities_above_a_million_are_left_out(loss: float, expected: int) -> None:
    assert perplexities([loss] * 8, [0.0] * 8, [1] * 8) == expected
    assert perplexities([0.0] * 8, [loss] * 8, [1] * 8) == expected


def test_perplexities_are_left_out_where_a_resample_could_overflow() -> None:
    # 8.1 nats per token on all rows together, 800 on the first alone.
    high, tokens = [800.0] + [0.0] * 7, [1] + [14] * 7
    assert perplexities(high, [0.0] * 8, tokens) == perplexities([0.0] * 8, high, tokens) == 0


def test_losses_are_per_token_and_perplexities_their_exponentials() -> None:
    base, tuned, tokens = [2.0, 6.0] * 4, [1.0, 2.0] * 4, [1, 3] * 4
    loss = compare_losses(base, tuned, tokens)
    assert (loss.metric, loss.better, loss.rows, loss.base, loss.tuned) == ("loss", "lower", 8, 2.0, 0.75)
    assert loss.p_value == 2 / 2**8
    (perplexity,) = compare_perplexities(loss, base, tuned, tokens)
    assert perplexity.difference == pytest.approx(math.exp(0.75) - math.exp(2.0))
    assert (perplexity.p_value, perplexity.significant) == (loss.p_value, True)


def test_perplexities_tell_the_least_fall_that_shows_in_their_own_unit() -> None:
    base, tuned, tokens = [2.0] * 8, [1.0, 1.5] * 4, [1] * 8
    loss = compare_losses(base, tuned, tokens)
    (perplexity,) = compare_perplexities(loss, base, tuned, tokens)
    assert loss.detectable is not None
    assert perplexity.detectable == pytest.approx(math.exp(2.0) - math.exp(2.0 - loss.detectable))
    assert perplexity.effect == loss.effect


def test_shares_are_tested_on_the_rows_that_changed() -> None:
    compared = compare_shares("preference_accuracy", [False] * 6 + [True] * 2, [True] * 8)
    assert (compared.base, compared.tuned, compared.p_value) == (0.25, 1.0, 2 * 0.5**6)
    assert compared.better == "higher"


def test_means_weigh_all_rows_alike() -> None:
    compared = compare_means("reward", [0.0] * 8, [1.0, 0.5] * 4)
    assert (compared.base, compared.tuned, compared.p_value) == (0.0, 0.75, 2 / 2**8)
    assert compared.interval is not None
    assert 0.5 <= compared.interval.low < 0.75 < compared.interval.high <= 1.0


@pytest.mark.parametrize(
    ("gains", "share", "rows", "p_value"),
    [
        ([1.0] * 6, 1.0, 6, 2 * 0.5**6),
        ([1.0] * 5 + [-1.0], 5 / 6, 6, 14 / 64),
        ([2.0] * 6 + [0.0] * 4, 1.0, 6, 2 * 0.5**6),
        ([-1.0] * 7 + [3.0] * 3, 0.3, 10, 0.34375),
    ],
)
def test_gains_are_held_against_chance_without_those_that_are_none(
    gains: list[float], share: float, rows: int, p_value: float
) -> None:
    (compared,) = compare_with_chance("reward_accuracy", gains)
    assert (compared.base, compared.tuned, compared.rows) == (0.5, share, rows)
    assert compared.p_value == pytest.approx(p_value)
    assert compared.interval is not None
    assert compared.interval.low <= compared.difference <= compared.interval.high


def test_a_chance_interval_is_that_of_a_share_moved_by_a_half() -> None:
    # Newcombe 1998, Two-sided confidence intervals for the single proportion, table I: 81 of 263, score method.
    (compared,) = compare_with_chance("reward_accuracy", [1.0] * 81 + [-1.0] * 182)
    assert compared.interval is not None
    assert round(compared.interval.low + 0.5, 4) == 0.2553
    assert round(compared.interval.high + 0.5, 4) == 0.3662


def test_without_any_gain_or_loss_there_is_nothing_to_hold_against_chance() -> None:
    assert compare_with_chance("reward_accuracy", [0.0, 0.0]) == []


def test_good_and_bad_rows_are_compared_by_their_means() -> None:
    good, bad = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]
    compared = compare_groups("reward_margin", good, bad)
    assert (compared.base, compared.tuned, compared.rows, compared.difference) == (0.0, 7.0, 12, 7.0)
    # Both have a variance of 3.5, so that it is Student's test with 10 degrees of freedom.
    assert compared.p_value == pytest.approx(stats.ttest_ind(good, bad).pvalue)
    assert compared.significant
    unchanged = compare_groups("reward_margin", [0.0] * 6, [0.0] * 6)
    assert (unchanged.p_value, unchanged.interval, unchanged.significant) == (1.0, None, False)


def test_whether_means_are_shares_is_said_or_told_by_the_rows() -> None:
    some, none = [0.0, 1.0] * 20, [0.0] * 40
    shares = compare_shares("contains", [False] * 40, [False] * 40)
    assert compare_means("contains", none, none, shares=True) == shares
    assert shares.interval is not None
    assert (round(shares.interval.low, 3), round(shares.interval.high, 3)) == (-0.088, 0.088)
    # No value says what else there could have been.
    assert compare_means("reward", none, none).interval is None
    assert str(compare_means("contains", none, some).test).startswith("McNemar")
    graded = compare_means("conversation_score", none, some, shares=False)
    assert str(graded.test).startswith("paired sign-flip")
    assert graded.changed is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    numbers = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, bad]
    with pytest.raises(ValueError, match="finite"):
        sign_flip([0.0] * 7, numbers)
    with pytest.raises(ValueError, match="finite"):
        loss_interval([0.0] * 7, numbers, [1] * 7)
    with pytest.raises(ValueError, match="finite"):
        compare_groups("reward_margin", [0.0] * 7, numbers)
    with pytest.raises(ValueError, match="finite"):
        holm([0.01, bad])


@pytest.mark.parametrize(("rows", "told"), [(5, False), (6, True)])
def test_no_interval_is_told_where_no_test_could_be_significant(rows: int, told: bool) -> None:
    shares = compare_shares("choice_accuracy", [False] * rows, [True] * rows)
    assert (shares.interval is not None) == told
    assert shares.significant == told


def test_a_score_says_whether_it_is_a_share() -> None:
    none, both = [0.0] * 40, [0.0, 1.0] * 20

    def interval(function: RewardFunction, base: list[float], tuned: list[float]) -> str | None:
        compared, _ = Score("score", "score", function).compare(base, tuned, None, "eval.jsonl")
        return compared[0].interval.method.partition(" ")[0] if compared[0].interval else None

    def own(completions: list[str], **_: object) -> list[float]:
        return [0.0] * len(completions)

    assert interval(make_shipped("contains", {}), none, none) == "Newcombe"
    assert interval(make_shipped("token_f1", {}), none, none) is None
    assert interval(make_shipped("token_f1", {}), none, both) == "expanded"
    assert interval(own, none, none) is None
    assert interval(own, none, both) == "Newcombe"
