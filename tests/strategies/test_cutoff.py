"""Cut-offs: the exact median, Youden's index, and counts that agree with comparing scores."""

import numpy as np
import pytest
from sklearn import metrics
from statsmodels.stats.contingency_tables import Table2x2
from statsmodels.stats.proportion import proportion_confint

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import cutoff, discrimination
from cohortium.strategies.rows import ScoredSurvival
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split
from tests.strategies.scored import patients

EXACT = [np.arange(10_001)] * 3


@pytest.mark.parametrize("n", [1, 2, 599, 600])
@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_median_is_the_smallest_value_with_half_at_or_below(sites, n):
    rows = patients(n)
    federation = sites(split(rows, [n - 1, 1, 0]))
    ours = cutoff.median(federation, 3, scale="probability")
    np.testing.assert_array_equal(ours, np.quantile(rows.score, 0.5, axis=0, method="inverted_cdf"))
    assert federation.rounds <= 2


def test_median_of_linear_predictors():
    rng = np.random.default_rng(8)
    score = np.round(np.column_stack([rng.normal(size=501) - 4, 1e4 * rng.normal(size=501), np.zeros(501)]), 4)
    rows = ScoredSurvival(score, np.ones(501), np.ones(501))
    federation = PooledSites(odd_sites(rows, score[:, 0] > -4))
    ours = cutoff.median(federation, 3, scale="linear")
    np.testing.assert_array_equal(ours, np.quantile(score, 0.5, axis=0, method="inverted_cdf"))
    assert federation.rounds <= 5


def test_median_of_nobody_is_undefined():
    with pytest.raises(Undefined, match="needs patients"):
        cutoff.median(PooledSites([patients(0)]), 3, scale="probability")


def test_youden_equals_scikit_learn():
    rows = patients()
    counts = PooledSites([rows]).sum(discrimination.histogram, edges=EXACT, folds=5).patients.sum(0)
    for m in range(3):
        false_rate, true_rate, thresholds = metrics.roc_curve(rows.y, rows.score[:, m])
        best = thresholds[np.argmax(true_rate - false_rate)]  # thresholds fall, so the highest of equals
        assert cutoff.youden(counts[m], EXACT[m]) == best


def test_youden_of_one_class_is_undefined():
    with pytest.raises(Undefined, match="with and without"):
        cutoff.youden(np.array([[3, 2], [0, 0]]), np.array([0, 5000]))


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_counts_equal_scikit_learn(sites):
    rows = patients()
    cuts = np.array([[0.29, 0.5, 0.12345], [0.07, 0.0, 1.0], [0.45, 0.2500001, 0.8]])
    sums = sites(odd_sites(rows, rows.y)).sum(cutoff.above, thresholds=cutoff.on_grid(cuts))
    for m, k in np.ndindex(3, 3):
        counts = cutoff.Confusion.of(sums.patients[m, :, k], sums.total)
        tn, fp, fn, tp = metrics.confusion_matrix(rows.y, rows.score[:, m] >= cuts[m, k]).ravel()
        assert (counts.tp, counts.fp, counts.tn, counts.fn) == (tp, fp, tn, fn)


def test_above_keeps_its_contract():
    check(cutoff.above, patients(70), thresholds=np.array([[0, 2000, 10_000]] * 3))


def test_every_grid_cutoff_survives_the_way_through_a_float():
    values = np.arange(10_001)
    np.testing.assert_array_equal(cutoff.on_grid(values / 10_000), values)
    np.testing.assert_array_equal(cutoff.on_grid(np.round(values / 10_000, 4)), values)


@pytest.mark.parametrize(("of", "among"), [(0, 5), (5, 5), (17, 40)])
def test_wilson_equals_statsmodels(of, among):
    np.testing.assert_allclose(cutoff.wilson(of, among), proportion_confint(of, among, method="wilson"), atol=1e-12)


def test_golden_wilson():
    """Newcombe, Stat Med 17:857 (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (of, among), interval in published.items():
        np.testing.assert_allclose(cutoff.wilson(of, among), interval, atol=5e-5)


def test_ratios_are_those_of_statsmodels():
    counts = cutoff.Confusion(tp=40, fp=12, tn=88, fn=10)
    ratios = counts.ratios()
    table = Table2x2(np.array([[40, 10], [12, 88]]))
    for name, value, interval in (
        ("diagnostic_odds_ratio", table.oddsratio, table.oddsratio_confint()),
        ("positive_likelihood_ratio", table.riskratio, table.riskratio_confint()),
    ):
        assert ratios[name][0] == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(ratios[name][1], interval, rtol=1e-10)
    flipped = Table2x2(np.array([[10, 40], [88, 12]]))
    assert ratios["negative_likelihood_ratio"][0] == pytest.approx(flipped.riskratio, rel=1e-12)
    np.testing.assert_allclose(ratios["negative_likelihood_ratio"][1], flipped.riskratio_confint(), rtol=1e-10)
    nobody = cutoff.Confusion(tp=0, fp=0, tn=5, fn=0)
    assert isinstance(nobody.f1(), Undefined)
    assert all(isinstance(ratio, Undefined) for ratio in nobody.ratios().values())


def test_the_interval_of_f1_holds_it_as_often_as_it_says():
    rng = np.random.default_rng(8)
    share = np.array([0.24, 0.06, 0.62, 0.08])  # tp, fp, tn, fn
    true = 2 * share[0] / (2 * share[0] + share[1] + share[3])
    held = 0
    for tp, fp, tn, fn in rng.multinomial(150, share, size=3000).tolist():
        _, (low, high) = cutoff.Confusion(tp=tp, fp=fp, tn=tn, fn=fn).f1()
        held += low <= true <= high
    assert 0.935 < held / 3000 < 0.965
