"""Discrimination: equal to scikit-learn and to DeLong's definition, within its bound when binned."""

import numpy as np
import pytest
from scipy import stats
from sklearn import datasets, metrics

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import discrimination, score_bins
from cohortium.strategies.rows import Scored
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split
from tests.strategies.scored import patients

EXACT = [np.arange(10_001)] * 3


def delong(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUCs and covariance by the definition of DeLong, DeLong & Clarke-Pearson (1988), pair by pair."""
    cases, controls = score[y == 1], score[y == 0]
    wins = (cases[:, None] > controls) + 0.5 * (cases[:, None] == controls)  # psi, (cases, controls, models)
    covariance = np.cov(wins.mean(1).T) / len(cases) + np.cov(wins.mean(0).T) / len(controls)
    return wins.mean((0, 1)), np.atleast_2d(covariance)


def totals(federation, edges):
    return federation.sum(discrimination.histogram, edges=edges, folds=5).patients.sum(0)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_exact_cells_equal_the_pooled_patients(sites):
    rows = patients()
    federation = sites(odd_sites(rows, rows.y))
    counts = totals(federation, EXACT)
    paired = discrimination.paired(federation, EXACT, counts)
    assert federation.rounds == 2
    auc, covariance = delong(rows.y, rows.score)
    np.testing.assert_allclose(paired.estimates, auc, rtol=1e-13)
    np.testing.assert_allclose(paired.covariance, covariance, rtol=1e-9)
    for m in range(3):
        area = discrimination.auc(counts[m], EXACT[m])
        assert area.bound == 0
        assert area.estimate == pytest.approx(metrics.roc_auc_score(rows.y, rows.score[:, m]), rel=1e-13)
        assert area.variance == pytest.approx(covariance[m, m], rel=1e-12)
        false_rate, true_rate, _ = metrics.roc_curve(rows.y, rows.score[:, m], drop_intermediate=False)
        np.testing.assert_allclose(discrimination.roc(counts[m]), np.column_stack([false_rate, true_rate]), rtol=1e-13)
        precision, recall, _ = metrics.precision_recall_curve(rows.y, rows.score[:, m])
        ours = discrimination.precision_recall(counts[m])
        np.testing.assert_allclose(ours[::-1], np.column_stack([recall, precision])[:-1], rtol=1e-13)
        ap = metrics.average_precision_score(rows.y, rows.score[:, m])
        assert discrimination.average_precision(counts[m]) == pytest.approx(ap, rel=1e-13)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_delongs_test_of_a_pair(sites):
    rows = patients()
    federation = sites(split(rows, [200, 399, 1]))
    difference, ci, z, p = discrimination.paired(federation, EXACT, totals(federation, EXACT)).test(0, 1)
    auc, s = delong(rows.y, rows.score)
    error = np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    assert difference == pytest.approx(auc[0] - auc[1], rel=1e-12)
    assert z == pytest.approx(difference / error, rel=1e-9)
    assert p == pytest.approx(2 * stats.norm.sf(abs(difference / error)), rel=1e-8)
    np.testing.assert_allclose(ci, difference + 1.959963984540054 * error * np.array([-1, 1]), rtol=1e-9)


def test_bins_stay_within_their_bound():
    rows = patients()
    federation = PooledSites(split(rows, [300, 300]))
    edges = score_bins.edges(federation, 3, scale="probability")
    counts = totals(federation, edges)
    auc, covariance = delong(rows.y, rows.score)
    for m in range(3):
        area = discrimination.auc(counts[m][:, : len(edges[m])], edges[m])
        assert abs(area.estimate - auc[m]) <= area.bound + 1e-12
        assert area.bound <= (0.02 if m < 2 else 0)  # the staged model's ties are real
        assert np.sqrt(area.variance) == pytest.approx(np.sqrt(covariance[m, m]), rel=0.01)
    binned = np.column_stack([score_bins.cell(rows.score[:, m], lower) for m, lower in enumerate(edges)])
    _, covariance = delong(rows.y, binned)
    np.testing.assert_allclose(discrimination.paired(federation, edges, counts).covariance, covariance, rtol=1e-10)


def test_statistics_keep_their_contract():
    rows, edges = patients(80), [np.array([0, 3000, 5000])] * 3
    check(discrimination.histogram, rows, edges=edges, folds=5)
    check(discrimination.placements, rows, edges=edges, tables=np.random.default_rng(1).normal(size=(3, 2, 3)))


def test_squared_error_and_score_sums_are_exact():
    rows = patients()
    sums = PooledSites([rows]).sum(discrimination.histogram, edges=EXACT, folds=5)
    brier = [metrics.brier_score_loss(rows.y, rows.score[:, m]) for m in range(3)]
    np.testing.assert_allclose(sums.squared_error / 1e8 / 600, brier, rtol=1e-13)
    np.testing.assert_allclose(sums.score_sum.sum(1) / 1e4, rows.score.sum(0), rtol=1e-13)


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_one_class_is_undefined(kept):
    rows = patients(50)
    counts = totals(PooledSites([Scored(*(field[rows.y == kept] for field in rows))]), EXACT)[0]
    with pytest.raises(Undefined, match="without the outcome"):
        discrimination.auc(counts, EXACT[0])
    for figure in (discrimination.roc, discrimination.precision_recall):
        with pytest.raises(Undefined, match="without the outcome"):
            figure(counts)


def test_one_case_has_an_auc_but_no_interval():
    area = discrimination.auc(np.array([[2, 1, 1], [0, 1, 0]]), np.arange(3))
    assert area.estimate == pytest.approx(2.5 / 4)
    with pytest.raises(Undefined, match="at least 2 patients"):
        area.confidence_interval()


def test_equal_models_have_no_test():
    rows = patients(100)
    federation = PooledSites([rows._replace(score=rows.score[:, [0, 0]])])
    counts = federation.sum(discrimination.histogram, edges=EXACT[:2], folds=5).patients.sum(0)
    with pytest.raises(Undefined, match="rank every pair"):
        discrimination.paired(federation, EXACT[:2], counts).test(0, 1)


def test_golden_breast_cancer_texture():
    """AUC of mean texture / 50 for malignancy: scikit-learn 1.9.1, roc_auc_score and average_precision_score."""
    data = datasets.load_breast_cancer()
    rows = Scored(np.round(data.data[:, [1]] / 50, 4), 1.0 - data.target, np.zeros(569, np.int64))
    counts = totals(PooledSites(split(rows, [300, 269])), EXACT[:1])[0]
    assert discrimination.auc(counts, EXACT[0]).estimate == pytest.approx(0.7758244807356903, abs=1e-12)
    assert discrimination.average_precision(counts) == pytest.approx(0.5970165323771017, abs=1e-12)
