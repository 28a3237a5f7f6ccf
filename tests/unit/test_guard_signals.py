"""The guard's detectors over logs: what they see, and what they don't take for trouble."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.train.guard.policy import ChosenFalls, Collapse, CutOff, EqualRewards, NoMargin, NoSignal
from tunesmith.train.guard.signals import (
    Detector,
    Diverges,
    NoBetter,
    NotFinite,
    Overfits,
    Signal,
    Spikes,
    WorseThanGuessing,
    ZeroGradient,
    noise,
    spread,
)

losses = st.floats(0.001, 100)


def fed(detector: Detector, logs: list[dict[str, Any]], *, first: int = 1) -> list[tuple[int, Signal]]:
    """What a detector says of logs, with the step at which it does; the end counts as step 0."""
    seen = [(step, detector.see(step, one)) for step, one in enumerate(logs, first)]
    return [(step, signal) for step, signal in [*seen, (0, detector.end())] if signal]


def of(name: str, values: list[float]) -> list[dict[str, float]]:
    return [{name: value} for value in values]


def codes(found: list[tuple[int, Signal]]) -> list[tuple[int, str]]:
    return [(step, signal.code) for step, signal in found]


def falling(count: int, *, seed: int = 0, noise: float = 0.1) -> list[float]:
    """A usual curve: it falls to a level, with noise in proportion."""
    chance = random.Random(seed)
    return [(0.5 + 3 * math.exp(-step / 20)) * (1 + noise * chance.gauss(0, 1)) for step in range(count)]


def every_detector() -> list[Detector]:
    return [
        NotFinite(), Spikes(1e-3), Diverges(1e-3), ZeroGradient(), NoBetter("eval_loss", "the loss"), Overfits(),
        NoSignal(), EqualRewards(), CutOff(64), Collapse(), WorseThanGuessing(896, 1e-3),
        ChosenFalls(0.1), NoMargin("rewards/margins", 2),
    ]  # fmt: skip


NAMES = ("loss", "grad_norm", "eval_loss", "reward", "frac_reward_zero_std", "completions/clipped_ratio",
         "rewards/chosen", "logps/chosen", "rewards/margins")  # fmt: skip


@given(
    st.lists(
        st.dictionaries(st.sampled_from(NAMES), st.floats(allow_nan=True, allow_infinity=True) | st.none()),
        max_size=60,
    )
)
def test_no_log_breaks_a_detector_and_equal_histories_give_equal_signals(logs: list[dict[str, Any]]) -> None:
    for one, other in zip(every_detector(), every_detector(), strict=True):
        first, second = fed(one, logs), fed(other, logs)
        assert str(first) == str(second)  # NaN isn't equal to itself
        assert all(signal.since <= max(step, len(logs)) for step, signal in first)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(-1e3, 1e3), st.floats(0.01, 100))
def test_the_spread_moves_with_the_scale_and_not_with_the_level(
    values: list[float], shift: float, scale: float
) -> None:
    assert spread(value * scale for value in values) == pytest.approx(scale * spread(values), rel=1e-6, abs=1e-6)
    assert spread(value + shift for value in values) == pytest.approx(spread(values), rel=1e-6, abs=1e-6)


def test_spread_and_noise_of_normal_values_are_their_deviation_and_noise_sees_no_trend() -> None:
    chance = random.Random(0)
    values = [chance.gauss(0, 2) for _ in range(4000)]
    assert spread(values) == pytest.approx(2, rel=0.05)
    assert noise(values) == pytest.approx(2, rel=0.05)
    assert noise(value + 0.5 * place for place, value in enumerate(values)) == pytest.approx(2, rel=0.05)
    assert noise([1.0]) == 0.0


# R001


@pytest.mark.parametrize("name", ["loss", "grad_norm", "eval_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_r001_of_any_number_that_is_none(name: str, value: float) -> None:
    ((step, signal),) = fed(NotFinite(), [*of("loss", [1.0, 1.0]), {name: value}])
    assert (step, signal.code, signal.details["name"]) == (3, "R001", name)
    assert signal.since == 2  # what the last sound log was made with
    assert fed(NotFinite(), of("loss", [1.0, 0.0])) == []


def test_r001_overflow_of_scaled_gradients_is_usual_until_it_repeats() -> None:
    bad = {"loss": 1.0, "grad_norm": math.inf}
    assert fed(NotFinite(scaled=True), [bad] * 9 + [{"loss": 1.0, "grad_norm": 1.0}] + [bad] * 9) == []
    assert codes(fed(NotFinite(scaled=True), [bad] * 10)) == [(10, "R001")]
    assert codes(fed(NotFinite(scaled=True), [{"loss": math.nan, "grad_norm": math.inf}])) == [(1, "R001")]


# R009, R010


@pytest.mark.parametrize("seed", range(20))
def test_r009_r010_stay_silent_on_a_noisy_fall(seed: int) -> None:
    assert fed(Spikes(1e-3), of("loss", falling(300, seed=seed, noise=0.3))) == []
    assert fed(Diverges(1e-3), of("loss", falling(300, seed=seed, noise=0.3))) == []


@given(st.lists(st.floats(1.0, 1.2), min_size=10, max_size=60), st.floats(5, 1e6))
def test_r009_any_loss_far_above_the_usual_is_a_spike(usual: list[float], spike: float) -> None:
    ((step, signal),) = fed(Spikes(1e-3), of("loss", [*usual, spike, *usual]))
    assert (step, signal.code) == (len(usual) + 1, "R009")
    assert signal.since == len(usual)
    assert signal.details["times"] > 10


@given(st.floats(0, 0.001), st.floats(0, 0.15))
def test_r009_next_to_zero_a_small_loss_is_no_spike(usual: float, loss: float) -> None:
    assert fed(Spikes(1e-3), of("loss", [usual] * 20 + [loss])) == []


def test_r010_a_spike_that_stays_is_no_spike() -> None:
    found = fed(Spikes(1e-3), of("loss", [1.0] * 20 + [4.0] * 30))
    assert codes(found) == [(21, "R009"), (30, "R010")]
    assert found[1][1].since == 20
    assert codes(fed(Spikes(1e-3), of("loss", [1.0] * 20 + [4.0] * 9 + [1.0]))) == [(21, "R009")]


def test_r010_a_loss_above_its_beginning() -> None:
    wild = [10.5, 10.6, 160.9, 1359.0, 1647.0, 4219.0, 6080.0, 6128.0, 5282.0]  # measured at a rate of 10
    ((step, signal),) = fed(Diverges(10.0), of("loss", wild))
    assert (step, signal.code, signal.since) == (8, "R010", 0)
    assert signal.details["rate"] == 10.0
    assert fed(Diverges(0.1), of("loss", [10.5, 10.6, 5.9, 10.4, 12.4, 9.7, 12.4, 13.8, 14.1, 13.6, 7.5])) == []
    late = fed(Diverges(1.0), of("loss", [1.0, 1.1, 1.0, 0.5, 0.5, 3.2, 3.2, 3.2, 3.2, 3.2]))
    assert [(step, signal.since) for step, signal in late] == [(10, 5)]
    assert fed(Diverges(1.0), of("loss", [1.0, 1.1, 1.0, 3.2, 3.2, 3.2, 3.2, 1.0, 3.2, 3.2])) == []


@pytest.mark.parametrize("make", [lambda steps: Diverges(1.0, steps), lambda steps: WorseThanGuessing(896, 1.0, steps)])
def test_r010_a_run_that_ends_high_up_is_told_at_its_last_step(make: Callable[[int], Detector]) -> None:
    ended = of("loss", [1.0] * 4 + [9.0] * 3)
    ((step, signal),) = fed(make(7), ended)
    assert (step, signal.code, signal.since) == (7, "R010", 4)
    assert fed(make(8), ended) == []
    assert fed(make(6), of("loss", [1.0] * 4 + [9.0] * 2)) == []
    assert fed(make(8), of("loss", [1.0] * 4 + [9.0] * 3 + [1.0])) == []
    assert len(fed(make(16), of("loss", [1.0] * 4 + [9.0] * 12))) == 1


@given(st.lists(losses, min_size=3, max_size=3), st.lists(st.floats(0, 1), max_size=40))
def test_r010_never_where_the_loss_is_below_its_beginning(first: list[float], shares: list[float]) -> None:
    start = statistics.median(first)
    assert fed(Diverges(1e-3), of("loss", [*first, *(share * start for share in shares)])) == []


# R011


def test_r011_gradients_of_zero_in_a_row() -> None:
    assert codes(fed(ZeroGradient(), of("grad_norm", [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]))) == [(6, "R011")]
    assert fed(ZeroGradient(), of("grad_norm", [0.0, 0.0, 0.0, 0.0, 1e-9, 0.0])) == []
    assert fed(ZeroGradient(), of("eval_loss", [0.0] * 9)) == []


def test_r011_equal_rewards_are_another_matter() -> None:
    equal = {"grad_norm": 0.0, "frac_reward_zero_std": 1.0}
    assert fed(ZeroGradient(), [equal] * 10) == []
    assert codes(fed(ZeroGradient(), [{**equal, "frac_reward_zero_std": 0.5}] * 5)) == [(5, "R011")]


# R013, R014


@pytest.mark.parametrize(("last", "fires"), [(3.0, True), (2.99, True), (2.98, False), (3.5, True)])
def test_r013_the_last_evaluation_against_the_untrained_one(last: float, fires: bool) -> None:
    logs = [{"eval_loss": 3.0}, {"loss": 1.0}, {"eval_loss": 2.0}, {"eval_loss": last}]
    found = fed(NoBetter("eval_loss", "the loss"), logs, first=0)
    assert codes(found) == ([(0, "R013")] if fires else [])


def test_r013_a_reward_ought_to_rise_and_without_a_first_value_nothing_is_known() -> None:
    rising, fallen = of("eval_reward", [1.0, 1.5]), of("eval_reward", [1.0, 0.5])
    assert fed(NoBetter("eval_reward", "the mean reward", rises=True), rising, first=0) == []
    ((_, signal),) = fed(NoBetter("eval_reward", "the mean reward", rises=True), fallen, first=0)
    assert signal.details == {"measure": "the mean reward", "value": 0.5, "first": 1.0}
    assert fed(NoBetter("eval_loss", "the loss"), of("eval_loss", [1.0, 9.0]), first=1) == []


def test_r014_two_rises_in_a_row_clearly_above_the_best() -> None:
    found = fed(Overfits(), of("eval_loss", [2.0, 1.0, 1.1, 1.2, 1.3]))
    assert found[0][0] == 4
    assert found[0][1].details == {"best": 1.0, "at": 2, "value": 1.2, "step": 4}
    assert found[0][1].since == 3
    assert fed(Overfits(), of("eval_loss", [2.0, 1.0, 1.1, 1.05, 1.2, 1.1])) == []  # never two in a row
    assert fed(Overfits(), of("eval_loss", [2.0, 1.0, 1.01, 1.02])) == []  # not clearly
    assert fed(Overfits(), of("eval_loss", [0.001, 0.002, 0.01])) == []


@given(st.lists(losses, min_size=1, max_size=30))
def test_r014_never_while_the_held_out_loss_falls(values: list[float]) -> None:
    assert fed(Overfits(), of("eval_loss", sorted(values, reverse=True))) == []


# R015, R016, R017, R018


def rewarded(rewards: list[float], share: float = 0.0) -> list[dict[str, float]]:
    return [{"reward": reward, "frac_reward_zero_std": share} for reward in rewards]


def test_r015_no_group_differs_from_the_first_step_on() -> None:
    found = fed(NoSignal(), rewarded([0.5] * 30, share=1.0))
    assert codes(found) == [(10, "R015")]
    assert found[0][1].details == {"count": 10, "reward": 0.5}
    assert fed(NoSignal(), [*rewarded([0.5], share=0.99), *rewarded([0.5] * 30, share=1.0)]) == []
    assert fed(NoSignal(), of("loss", [1.0] * 30)) == []


def test_r016_later_on_hardly_a_group_differs() -> None:
    logs = [*rewarded([0.1] * 20), *rewarded([0.5] * 25, share=1.0)]
    assert codes(fed(EqualRewards(), logs))[0] == (39, "R016")
    assert fed(EqualRewards(), rewarded([0.5] * 60, share=0.94)) == []


def test_r017_completions_run_into_the_limit() -> None:
    found = fed(CutOff(64), of("completions/clipped_ratio", [0.5] * 5 + [1.0] * 12))
    assert codes(found)[0] == (13, "R017")
    assert found[0][1].details["limit"] == 64
    assert fed(CutOff(64), of("completions/clipped_ratio", [0.89] * 30)) == []


def test_r018_the_reward_falls_far_below_its_best() -> None:
    chance = random.Random(1)
    up = [min(1.5, 0.1 * step) + 0.05 * chance.gauss(0, 1) for step in range(30)]
    found = fed(Collapse(), of("reward", [*up, *(0.2 + 0.05 * chance.gauss(0, 1) for _ in range(15))]))
    assert codes(found)[0][1] == "R018"
    assert 38 <= found[0][0] <= 44
    assert found[0][1].details["value"] < 0.75
    assert found[0][1].details["best"] > 1.4
    assert found[0][1].since == found[0][1].details["at"] + 1 <= 30


def collapses(share: Callable[[int], float], answers: int, runs: int = 100) -> int:
    """Of `runs` runs of 200 updates, those that R018 would stop; `share` of the answers earn 1 at a step, else 0."""

    def rewards(seed: int) -> list[float]:
        chance = random.Random(seed)
        return [sum(chance.random() < share(step) for _ in range(answers)) / answers for step in range(200)]

    return sum(bool(fed(Collapse(), of("reward", rewards(seed)))) for seed in range(runs))


@pytest.mark.parametrize("share", [0.002, 0.01, 0.03, 0.2])
def test_r018_rare_rewards_of_a_constant_policy_are_no_collapse(share: float) -> None:
    assert collapses(lambda _step: share, 64) == 0


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_r018_groups_that_earn_all_or_nothing_are_no_collapse(share: float) -> None:
    assert collapses(lambda _step: share, 8) == 0


def test_r018_a_collapse_shows_through_the_noise_of_rewards() -> None:
    assert collapses(lambda step: 0.3 if step < 100 else 0.02, 64) == 100
    assert collapses(lambda step: 0.5 if step < 100 else 0.0, 8) >= 99


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("level", [0.0, 1.0, -3.0])
def test_r018_noise_is_no_collapse(seed: int, level: float) -> None:
    chance = random.Random(seed)
    assert fed(Collapse(), of("reward", [level + 0.3 * chance.gauss(0, 1) for _ in range(300)])) == []


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40))
def test_r018_never_while_the_reward_rises(rewards: list[float]) -> None:
    assert fed(Collapse(), of("reward", sorted(rewards))) == []


# R019, R020


def chosen(log_ratio: float, reference: float, beta: float = 0.1) -> dict[str, float]:
    """What TRL logs of chosen answers whose log-probability by the reference is `reference`."""
    return {"rewards/chosen": beta * log_ratio, "logps/chosen": reference + log_ratio}


def test_r019_measured_falls_and_rises() -> None:
    falls = [0.0, -0.1, -1.4, -5.2, -11.9, -16.4, -13.1, -10.3, -9.6, -6.3]  # sigmoid alone: exact match .27 -> .06
    found = fed(ChosenFalls(0.1), [chosen(fall, -6.3) for fall in falls])
    assert codes(found)[0] == (6, "R019")
    assert found[0][1].since == 5
    assert found[0][1].details["fall"] == pytest.approx(5.2)  # the median of five
    assert fed(ChosenFalls(0.1), [chosen(rise, -6.3) for rise in (0.0, 0.2, 1.1, 1.9, 2.5, 3.7, 3.9)]) == []


def test_r019_the_same_fall_of_a_long_answer_is_little() -> None:
    assert fed(ChosenFalls(0.1), [chosen(-30.0, -300.0)] * 20) == []
    assert codes(fed(ChosenFalls(0.5), [chosen(-30.0, -40.0, beta=0.5)] * 20))[0] == (5, "R019")
    assert fed(ChosenFalls(0.1), [chosen(-1.9, -1.0)] * 20) == []  # less than two nats


def test_r020_margins_at_zero_past_the_warm_up() -> None:
    flat = of("rewards/margins", [0.0] * 40)
    assert codes(fed(NoMargin("rewards/margins", 4), flat)) == [(24, "R020")]
    assert codes(fed(NoMargin("rewards/margins", 4), flat[:9])) == [(0, "R020")]
    assert fed(NoMargin("rewards/margins", 4), flat[:8]) == []
    assert fed(NoMargin("rewards/margins", 0), [*flat[:3], {"rewards/margins": -0.01}, *flat]) == []
    assert codes(fed(NoMargin("rewards/margins", 1), [{"rewards/margins": 9.0}, *flat])) == [(21, "R020")]
    assert fed(NoMargin("margin", 0), flat) == []


# R010 by a guess among all tokens

SWINGS = [18.5, 16.9, 14.4, 16.4, 12.1, 17.4, 11.1, 10.4, 13.6, 15.0, 11.2, 8.5, 13.0, 8.7, 9.6, 19.5, 8.0, 19.6,
          21.9, 11.5, 10.4, 8.9, 7.0, 7.5, 8.1, 9.7, 9.0, 15.0, 6.3, 6.4]  # fmt: skip
"""LoRA at a learning rate of 10 on a base that starts at 18.5, measured."""
FALLS = [18.5, 18.9, 16.9, 16.2, 17.1, 14.2, 10.1, 7.2, 5.2, 4.9, 4.4, 3.7, 3.5, 2.3, 1.6, 1.6]


def test_r010_a_loss_that_swings_above_a_guess_is_told_once() -> None:
    ((step, signal),) = fed(WorseThanGuessing(896, 10.0), of("loss", SWINGS))
    assert (step, signal.code, signal.since) == (21, "R010", 5)
    assert signal.details["bound"] == pytest.approx(1.25 * 8.0)


def test_r010_neither_a_slow_start_nor_a_spike_nor_a_loss_below_a_guess_is_divergence() -> None:
    chance = random.Random(0)
    slow = [18.0 + chance.gauss(0, 1) for _ in range(200)]
    spike = [*FALLS, *[30.0] * 5, *[2.0] * 20]
    below = [*FALLS, *[6.7] * 30]
    for curve in (FALLS, slow, spike, below):
        assert fed(WorseThanGuessing(896, 1e-4), of("loss", curve)) == []
    assert codes(fed(WorseThanGuessing(896, 1e-4), of("loss", [*FALLS, *[6.9] * 6]))) == [(len(FALLS) + 6, "R010")]
