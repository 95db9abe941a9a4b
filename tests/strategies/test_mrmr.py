"""mRMR: the features, in order, that an independent implementation chooses on the pooled rows."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.feature_selection import f_classif

from cohortium.common.federation import PooledSites
from cohortium.strategies import correlation, mrmr, screening
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, odd_sites


@pytest.fixture(scope="module")
def rows() -> Matrix:
    data = load_breast_cancer()
    return Matrix(x=(data.data - data.data.mean(0)) / data.data.std(0, ddof=1), group=1 - data.target)


def independent(x: np.ndarray, y: np.ndarray, keep: int) -> list[int]:
    """F over mean |r| with the chosen ones, at least .001, correlations pair by pair."""
    relevance = f_classif(x, y)[0]
    chosen = [int(relevance.argmax())]
    while len(chosen) < keep:
        best, best_quotient = -1, -1.0
        for candidate in range(x.shape[1]):
            if candidate in chosen:
                continue
            redundancy = np.mean([abs(np.corrcoef(x[:, candidate], x[:, other])[0, 1]) for other in chosen])
            quotient = relevance[candidate] / max(redundancy, 1e-3)
            if quotient > best_quotient:
                best, best_quotient = candidate, quotient
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equals_an_independent_implementation(rows, kind):
    sites = odd_sites(rows, rows.group)
    t = screening.t_test(kind(sites), 30).t
    np.testing.assert_allclose(t**2, f_classif(rows.x, rows.group)[0], rtol=1e-11)
    ours = mrmr.select(t**2, correlation.gram(kind(sites)), 20)
    assert ours.tolist() == independent(rows.x, rows.group, 20)


def test_an_example_by_hand():
    """The twin of the best is as relevant and says nothing new: F / |r| is 90 / 1 against 10 / .1."""
    r = np.array([[1, 1, 0.1], [1, 1, 0.1], [0.1, 0.1, 1]])
    assert mrmr.select(np.array([91.0, 90.0, 10.0]), r, 2).tolist() == [0, 2]


def test_columns_without_a_test_and_perfect_ones():
    assert mrmr.select(np.array([np.nan, 2.0, 1.0]), np.eye(3), 3).tolist() == [1, 2]
    assert mrmr.select(np.array([1.0, np.inf, np.inf]), np.eye(3), 2).tolist() == [1, 2]
    assert mrmr.select(np.empty(0), np.empty((0, 0)), 2).tolist() == []
