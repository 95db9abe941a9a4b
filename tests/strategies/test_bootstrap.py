"""Bootstrap: replicates equal scikit-learn with weights; intervals equal a bootstrap of the patients."""

import numpy as np
import pytest
from sklearn import metrics

from cohortium.strategies import bootstrap, decision_curve
from tests.strategies.scored import patients


def counts(rows, model=0):
    """Counts by outcome at every score, lowest first."""
    values, place = np.unique(rows.score[:, model], return_inverse=True)
    table = np.zeros((2, len(values)), np.int64)
    np.add.at(table, (rows.y.astype(int), place), 1)
    return table, place


def test_replicates_are_weighted_figures():
    rows = patients(300)
    table, place = counts(rows)
    weights = np.random.default_rng(2).poisson(1, (5, 300))
    weighted = np.zeros((5, *table.shape), np.int64)
    for r in range(5):
        np.add.at(weighted[r], (rows.y.astype(int), place), weights[r])
    score = rows.score[:, 0]
    auc = [metrics.roc_auc_score(rows.y, score, sample_weight=w) for w in weights]
    precision = [metrics.average_precision_score(rows.y, score, sample_weight=w) for w in weights]
    np.testing.assert_allclose(bootstrap.auc(weighted), auc, atol=1e-13)
    np.testing.assert_allclose(bootstrap.average_precision(weighted), precision, atol=1e-13)


def test_net_benefit_of_a_replicate():
    rng = np.random.default_rng(4)
    between = rng.integers(0, 40, (3, 2, 4))
    thresholds = (0.1, 0.25, 0.6)
    for counted, benefit in zip(between, bootstrap.net_benefit(thresholds)(between), strict=True):
        called = np.cumsum(counted[:, ::-1], 1)[:, ::-1][:, 1:]
        np.testing.assert_allclose(benefit, decision_curve.net_benefit(called, counted.sum(1), thresholds), atol=1e-14)


def test_drawing_cells_is_drawing_patients():
    """The interval from Poisson cells beside one from Poisson weights of each patient, 4,000 replicates of both."""
    rows = patients(200)
    table, place = counts(rows, model=1)
    low, high = bootstrap.percentile_interval(bootstrap.auc, table, replicates=4000, seed=1)
    weights = np.random.default_rng(7).poisson(1, (4000, 200))
    weighted = np.zeros((4000, *table.shape), np.int64)
    np.add.at(weighted, (slice(None), rows.y.astype(int), place), weights)
    of_patients = np.quantile(bootstrap.auc(weighted), [0.025, 0.975])
    np.testing.assert_allclose([low, high], of_patients, atol=0.006)  # four Monte-Carlo errors of a 2.5 % quantile


def test_draws_depend_on_the_seed_alone():
    table, _ = counts(patients(100))
    one, same, other = (bootstrap.percentile_interval(bootstrap.auc, table, replicates=200, seed=s) for s in (1, 1, 2))
    assert one == same
    assert one != other


def test_a_figure_that_is_often_missing_has_no_interval():
    lone = np.array([[3, 4, 5], [0, 1, 0]])
    assert bootstrap.percentile_interval(bootstrap.auc, lone, replicates=200, seed=0) is None
    assert np.isnan(bootstrap.auc(np.zeros((1, 2, 3), np.int64)))[0]


@pytest.mark.parametrize("replicates", [100, 1000])
def test_intervals_do_not_depend_on_how_many_are_drawn_at_once(replicates, monkeypatch):
    table, _ = counts(patients(100))
    whole = bootstrap.percentile_interval(bootstrap.auc, table, replicates=replicates, seed=3)
    monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", 10 * table.size)
    assert bootstrap.percentile_interval(bootstrap.auc, table, replicates=replicates, seed=3) == whole
