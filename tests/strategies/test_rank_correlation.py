"""Rank correlation: Spearman's rho of the bins as scipy has it, close to that of the values; golden iris."""

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_iris

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import correlation, rank_correlation, rank_tests, screening
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split, take


@pytest.fixture(scope="module")
def rows() -> Matrix:
    data = load_breast_cancer()
    x = (data.data - data.data.mean(0)) / data.data.std(0, ddof=1)
    return Matrix(x=x, group=1 - data.target)


def binned(x: np.ndarray) -> np.ndarray:
    """Number of the bin that holds each value, by the definition of the module."""
    counts = np.stack([np.histogram(column, rank_tests.GRID)[0] for column in x.T])
    edges = rank_tests.bins(counts, rank_tests.MOST_BINS)
    return np.column_stack([np.searchsorted(e, column, side="right") for e, column in zip(edges, x.T, strict=True)])


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equals_scipy_on_the_bins(rows, kind):
    federation = kind(odd_sites(rows, rows.group))
    ours = rank_correlation.spearman(federation)
    np.testing.assert_allclose(ours, stats.spearmanr(binned(rows.x)).statistic, atol=1e-11)
    assert federation.rounds == 3


def test_close_to_spearman_of_the_values(rows):
    exact = stats.spearmanr(rows.x).statistic
    ours = rank_correlation.spearman(PooledSites(split(rows, [249, 171, 100, 49])))
    assert np.abs(ours - exact).max() < 2e-3
    t = screening.t_test(PooledSites([rows]), 30).t
    np.testing.assert_array_equal(correlation.prune(ours, t, 0.9), correlation.prune(exact, t, 0.9))


def test_published_iris():
    """R 4.3: cor(iris[, 1:4], method = "spearman"); 30 bins of 150 flowers miss it by less than a hundredth."""
    x = load_iris().data
    whole = Matrix((x - x.mean(0)) / x.std(0, ddof=1), np.zeros(150, dtype=np.int64))
    ours = rank_correlation.spearman(PooledSites(split(whole, [50, 99, 1])))
    published = [-0.1667777, 0.8818981, 0.8342888, -0.3096351, -0.2890317, 0.9376668]
    np.testing.assert_allclose(ours[np.triu_indices(4, 1)], published, atol=0.01)


def test_a_constant_column_and_nobody(rows):
    constant = rows._replace(x=np.column_stack([rows.x[:, :2], np.zeros(569)]))
    ours = rank_correlation.spearman(FixedPointSites([constant]))
    np.testing.assert_array_equal(ours[2], [0, 0, 1])
    with pytest.raises(NotIdentifiable, match="1 patients"):
        rank_correlation.spearman(PooledSites([take(rows, slice(0, 1))]))


def test_local_half_adds_over_rows(rows):
    edges = np.tile([-np.inf, -1.0, 0.0, 1.0, np.inf], (30, 1))
    scores = np.tile([-1.5, -0.5, 0.5, 1.5], (30, 1))
    check(rank_correlation.products, rows, edges=edges, scores=scores)
