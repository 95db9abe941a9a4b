"""Correlation: equal to numpy's on pooled rows; pruning leaves no correlated pair and drops nothing without cause."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import correlation, moments, screening
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split, take


@pytest.fixture(scope="module")
def rows() -> Matrix:
    data = load_breast_cancer()
    x = (data.data - data.data.mean(0)) / data.data.std(0, ddof=1)
    return Matrix(x=x, group=1 - data.target)


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equals_numpy(rows, kind):
    federation = kind(odd_sites(rows, rows.group))
    np.testing.assert_allclose(correlation.gram(federation), np.corrcoef(rows.x.T), atol=1e-12)
    assert federation.rounds == 1


def test_columns_standardised_elsewhere_are_put_right(rows):
    other = rows._replace(x=rows.x * 1.7 + 0.8)  # as when the moments come from another cohort
    np.testing.assert_allclose(correlation.gram(PooledSites([other])), np.corrcoef(rows.x.T), atol=1e-12)


def test_published_iris():
    """R 4.3: cor(iris[, 1:4]); scikit-learn's copy differs from Fisher's in two rows, which the digits below allow."""
    x = load_iris().data
    whole = Matrix(x=x, group=np.zeros(150, dtype=np.int64))
    z = moments.fit(PooledSites([whole]), 4).standardise(x)
    ours = correlation.gram(PooledSites(split(whole._replace(x=z), [50, 99, 1])))
    published = [-0.1176, 0.8718, 0.8179, -0.4284, -0.3661, 0.9629]
    np.testing.assert_allclose(ours[np.triu_indices(4, 1)], published, atol=5e-5)


def test_a_constant_column_correlates_with_nothing(rows):
    ours = correlation.gram(FixedPointSites([rows._replace(x=np.column_stack([rows.x[:, :2], np.zeros(569)]))]))
    np.testing.assert_array_equal(ours[2], [0, 0, 1])


def test_pruned_set_is_that_of_the_pooled_analysis(rows):
    t = screening.t_test(PooledSites([rows]), 30).t
    kept = correlation.prune(correlation.gram(FixedPointSites(split(rows, [249, 171, 100, 49]))), t, 0.9)
    pooled = np.corrcoef(rows.x.T)
    np.testing.assert_array_equal(kept, correlation.prune(pooled, t, 0.9))
    among = np.abs(pooled[np.ix_(kept, kept)]) - np.eye(len(kept))
    assert among.max() < 0.9
    for dropped in np.setdiff1d(np.arange(30), kept):
        better = kept[np.abs(t[kept]) > np.abs(t[dropped])]
        assert np.abs(pooled[dropped, better]).max() >= 0.9
    assert (np.diff(np.abs(t[kept])) <= 0).all()


def test_prune_by_order():
    r = np.array([[1, 0.95, 0], [0.95, 1, 0.5], [0, 0.5, 1]])
    t = np.array([1.0, -3.0, 2.0])
    assert correlation.prune(r, t, 0.9).tolist() == [1, 2]
    assert correlation.prune(r, t, 0.9, keep="first").tolist() == [0, 2]
    assert correlation.prune(r, t, 0.4).tolist() == [1]
    assert correlation.prune(np.empty((0, 0)), np.empty(0), 0.9).tolist() == []


def test_nobody(rows):
    with pytest.raises(NotIdentifiable, match="1 patients"):
        correlation.gram(PooledSites([take(rows, slice(0, 1))]))


def test_local_half_adds_over_rows(rows):
    check(correlation.cross_products, rows)
