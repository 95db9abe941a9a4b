"""Group differences: equal to scipy on the patients and to differences worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from cohortium.strategies import group_differences


def test_welch_and_the_standardised_difference():
    rng = np.random.default_rng(1)
    a, b = rng.normal(3, 1, 40), rng.normal(3.6, 2.5, 25)
    n, mean, sd = (np.array([f(a), f(b)]) for f in (len, np.mean, lambda x: np.std(x, ddof=1)))
    found = group_differences.of_means(n, mean, sd)
    assert found["p_welch"] == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, rel=1e-12)
    pooled = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert found["standardised_difference"] == pytest.approx((b.mean() - a.mean()) / pooled, rel=1e-12)
    assert group_differences.of_means(n, mean, sd * 0)["p_welch"] == group_differences.ALIKE


def test_two_levels_are_austins_formula_and_more_are_a_distance():
    share = np.array([30 / 100, 90 / 150])
    binary = group_differences.of_levels(np.array([[70, 30], [60, 90]]))["standardised_difference"]
    assert binary == pytest.approx((share[1] - share[0]) / np.sqrt((share * (1 - share)).mean()), rel=1e-12)
    table = np.array([[10, 0, 40, 50], [20, 0, 30, 70]])
    three = group_differences.of_levels(table)["standardised_difference"]
    assert three > 0
    # it does not matter which level is left out, nor a level that nobody has
    assert group_differences.of_levels(table[:, [3, 2, 0]])["standardised_difference"] == pytest.approx(three, rel=1e-9)
    dummies = [np.repeat(np.eye(4), counts, axis=0)[:, [2, 3]] for counts in table]
    spread = np.mean([np.cov(d.T, ddof=0) for d in dummies], axis=0)
    gap = dummies[1].mean(0) - dummies[0].mean(0)
    assert three == pytest.approx(np.sqrt(gap @ np.linalg.inv(spread) @ gap), rel=1e-9)
    assert group_differences.of_levels(np.array([[5, 0], [6, 0]]))["standardised_difference"] == group_differences.ALIKE


def test_missing_values_by_group():
    assert group_differences.missingness(np.array([40, 30]), np.array([0, 0])) == {}
    p = group_differences.missingness(np.array([40, 30]), np.array([2, 9]))["p_missing"]
    assert p == pytest.approx(stats.fisher_exact([[40, 2], [30, 9]]).pvalue, rel=1e-12)
