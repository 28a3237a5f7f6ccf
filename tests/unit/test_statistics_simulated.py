"""2,000 simulated evaluations each: how often chance is taken for a find, and how often an interval holds the truth."""

from collections.abc import Sequence

import numpy as np
import pytest

from tunesmith.evaluate.comparisons import compare_groups, compare_losses, compare_means
from tunesmith.evaluate.statistics import Paired, loss_interval, mcnemar, newcombe
from tunesmith.records import Comparison, Interval

SIMULATED = 2_000


def rates(comparisons: list[Comparison], truth: float = 0.0) -> tuple[float, float]:
    """The shares of comparisons that are significant, and whose interval holds the true difference."""
    found = sum(one.significant for one in comparisons) / len(comparisons)
    return found, holding([one.interval for one in comparisons], truth)


def holding(intervals: Sequence[Interval | None], truth: float = 0.0) -> float:
    """The share of intervals that hold the true difference."""
    held = [one is not None and one.low <= truth <= one.high for one in intervals]
    return sum(held) / len(held)


@pytest.mark.slow
def test_losses_without_a_difference() -> None:
    rng = np.random.default_rng(1)
    compared = []
    for _ in range(SIMULATED):
        tokens = np.ceil(rng.lognormal(3, 0.5, 24)).astype(int)
        hard = tokens * rng.normal(2, 0.5, 24)
        base, tuned = hard + tokens * rng.normal(0, 0.3, (2, 24))
        compared.append(compare_losses(base.tolist(), tuned.tolist(), tokens.tolist()))
    found, held = rates(compared)
    assert 0.04 <= found <= 0.06
    assert 0.93 <= held <= 0.97


@pytest.mark.slow
def test_means_whose_true_difference_is_known() -> None:
    rng = np.random.default_rng(2)
    base = rng.choice([0.0, 0.25, 0.5, 1.0], size=(SIMULATED, 30))
    # A third of the rows moves halfway to 1, a fifth falls to 0.
    moved = rng.choice(3, p=[7 / 15, 1 / 3, 1 / 5], size=base.shape)
    tuned = np.select([moved == 1, moved == 2], [(base + 1) / 2, np.zeros_like(base)], base)
    truth = 1 / 3 * (1 - 0.4375) / 2 - 1 / 5 * 0.4375
    pairs = zip(base.tolist(), tuned.tolist(), strict=True)
    assert 0.93 <= holding([loss_interval(*pair, [1] * 30) for pair in pairs], truth) <= 0.97


@pytest.mark.slow
def test_groups_whose_rows_move_together() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(16), 4).tolist()
    alike = rng.normal(0, 1, (SIMULATED, 16)).repeat(4, axis=1)
    tuned = alike + rng.normal(0, 1, alike.shape)
    found, held = rates([compare_means("score", [0.0] * 64, row.tolist(), groups) for row in tuned])
    assert 0.04 <= found <= 0.06
    assert 0.93 <= held <= 0.97
    # As if rows were independent, far too much is found.
    found, held = rates([compare_means("score", [0.0] * 64, row.tolist()) for row in tuned[:200]])
    assert found > 0.2
    assert held < 0.8


def test_two_samples_in_groups_without_a_difference() -> None:
    rng = np.random.default_rng(5)
    of_good, of_bad = np.repeat(np.arange(20), 2).tolist(), np.repeat(np.arange(20), 3).tolist()
    compared = []
    for _ in range(SIMULATED // 2):
        alike = rng.normal(0, 1, (2, 20))
        good, bad = alike[0].repeat(2) + rng.normal(0, 1, 40), alike[1].repeat(3) + rng.normal(0, 1, 60)
        compared.append(compare_groups("reward_margin", good.tolist(), bad.tolist(), (of_good, of_bad)))
    found, held = rates(compared)
    assert 0.04 <= found <= 0.06
    assert 0.93 <= held <= 0.97


@pytest.mark.parametrize(("rows", "changed"), [(30, 0.3), (100, 0.2), (500, 0.4)])
def test_shares_without_a_difference(rows: int, changed: float) -> None:
    rng = np.random.default_rng(6)
    both = (1 - changed) / 2
    drawn = rng.multinomial(rows, [both, changed / 2, changed / 2, 1 - both - changed], size=SIMULATED)
    tables = [Paired(*map(int, cells)) for cells in drawn]
    # An exact test keeps below the level, the more so the fewer rows change: see `mcnemar`.
    assert 0.01 < sum(mcnemar(table) < 0.05 for table in tables) / SIMULATED <= 0.05
    assert 0.94 <= holding(list(map(newcombe, tables))) <= 0.985
