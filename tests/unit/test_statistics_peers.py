"""Our statistics against statsmodels and scipy on 1,000 random tables."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables, multitest, power, proportion

from tunesmith.evaluate.comparisons import compare_means, compare_with_chance
from tunesmith.evaluate.families import holm
from tunesmith.evaluate.power import paired_power, rows_for_mean
from tunesmith.evaluate.resampling import bootstrap_interval
from tunesmith.evaluate.statistics import ROWS_NEEDED, Paired, cohens_h, mcnemar, sign_flip, standardized

TABLES = 1_000


@pytest.fixture(scope="module")
def tables() -> list[Paired]:
    rng = np.random.default_rng(0)
    drawn = [rng.multinomial(rng.integers(1, 400), rng.dirichlet(np.ones(4))) for _ in range(TABLES)]
    return [Paired(*map(int, cells)) for cells in drawn]


def test_mcnemar(tables: list[Paired]) -> None:
    for table in tables:
        cells = [[table.both, table.broken], [table.fixed, table.neither]]
        assert mcnemar(table) == pytest.approx(contingency_tables.mcnemar(cells, exact=True).pvalue, rel=1e-9)


def test_mcnemar_is_the_sign_flip_of_rights_and_wrongs(tables: list[Paired]) -> None:
    few = [table for table in tables if table.rows <= 13]
    assert few
    for table in few:
        base = [1.0] * (table.both + table.broken) + [0.0] * (table.fixed + table.neither)
        tuned = [1.0] * table.both + [0.0] * table.broken + [1.0] * table.fixed + [0.0] * table.neither
        assert sign_flip(base, tuned) == pytest.approx(mcnemar(table))


def test_cohens_h(tables: list[Paired]) -> None:
    for table in tables:
        assert cohens_h(table) == pytest.approx(proportion.proportion_effectsize(table.tuned, table.base), abs=1e-12)


def test_a_share_against_chance(tables: list[Paired]) -> None:
    for table in tables:
        if not table.changed:
            continue
        (compared,) = compare_with_chance("reward_accuracy", [1.0] * table.fixed + [-1.0] * table.broken)
        assert compared.p_value == pytest.approx(stats.binomtest(table.fixed, table.changed).pvalue)
        low, high = proportion.proportion_confint(table.fixed, table.changed, method="wilson")
        if table.changed < ROWS_NEEDED:
            assert compared.interval is None
            continue
        assert compared.interval is not None
        assert (compared.interval.low, compared.interval.high) == pytest.approx((low - 0.5, high - 0.5), abs=1e-9)


def test_holm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels collects at every call
    rng = np.random.default_rng(1)
    for _ in range(TABLES):
        p_values = (rng.random(rng.integers(1, 12)) ** 3).round(3).tolist()
        assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


def test_the_standardized_difference_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(2)
    for rows in rng.integers(2, 60, TABLES):
        base, tuned = rng.normal(0, 1, (2, rows))
        expected = stats.ttest_rel(tuned, base).statistic / math.sqrt(rows)
        assert standardized(base.tolist(), tuned.tolist(), [1] * rows) == pytest.approx(expected)


def test_the_power_of_paired_means() -> None:
    rng = np.random.default_rng(3)
    peer = power.TTestPower()
    for units, shift in zip(rng.integers(6, 3_000, TABLES), rng.uniform(0.1, 6, TABLES), strict=True):
        effect = shift / math.sqrt(units)
        assert paired_power(int(units), effect) == pytest.approx(peer.power(effect, units, 0.05), abs=1e-6)


@pytest.mark.parametrize("effect", [0.05, 0.2, 0.5, 0.8])
def test_the_rows_that_a_mean_needs(effect: float) -> None:
    assert rows_for_mean(effect) == math.ceil(power.TTestPower().solve_power(effect, alpha=0.05, power=0.8))


def test_the_interval_is_as_wide_as_students_on_few_normal_rows() -> None:
    rng = np.random.default_rng(4)
    ratios = []
    for row in rng.normal(0, 1, (100, 10)):
        interval = bootstrap_interval([row.tolist()], np.mean, "rows")
        low, high = stats.ttest_1samp(row, 0).confidence_interval()
        ratios.append((interval.high - interval.low) / (high - low))
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


def test_a_difference_of_means_is_tested_as_scipy_does_and_only_rows_count() -> None:
    rng = np.random.default_rng(5)
    base, tuned = rng.normal(0, 1, (2, 12)).tolist()
    expected = stats.permutation_test(
        (tuned, base), lambda one, other, axis: (one - other).mean(axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=np.inf,
    ).pvalue  # fmt: skip
    assert compare_means("f1", base, tuned).p_value == pytest.approx(expected)
