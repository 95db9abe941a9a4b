"""Screening: equal to scipy's t-tests on pooled rows, at any scale."""

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer

from cohortium.common.federation import PooledSites
from cohortium.strategies import screening
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, odd_sites, split


@pytest.fixture(scope="module")
def rows() -> Matrix:
    """breast_cancer, 8 % missing, scales from 1e-12 to 1e12, then a constant column and one that is the class."""
    data = load_breast_cancer()
    x = data.data * np.logspace(-12, 12, 30)
    x[np.random.default_rng(5).random(x.shape) < 0.08] = np.nan
    group = 1 - data.target
    return Matrix(x=np.column_stack([x, np.full(569, 0.3), group]), group=group)


@pytest.mark.parametrize(("variances", "equal"), [("pooled", True), ("welch", False)])
def test_equals_scipy(rows, variances, equal):
    federation = FixedPointSites(odd_sites(rows, rows.group))
    ours = screening.t_test(federation, 32, variances=variances)
    one, zero = rows.x[rows.group == 1, :30], rows.x[rows.group == 0, :30]
    theirs = stats.ttest_ind(one, zero, equal_var=equal, nan_policy="omit")
    np.testing.assert_allclose(ours.t[:30], theirs.statistic, rtol=1e-12)
    np.testing.assert_allclose(ours.degrees_of_freedom[:30], theirs.df, rtol=1e-12)
    np.testing.assert_allclose(ours.p[:30], theirs.pvalue, rtol=1e-10)  # the tail multiplies what t has lost
    assert federation.rounds == 2


def test_published_sleep_data():
    """Student, Biometrika 6:1, 1908; as R 4.3 prints t.test(extra ~ group, data = sleep), var.equal T and F."""
    extra = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0, 1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    rows = Matrix(x=np.array(extra)[:, None], group=np.repeat([0, 1], 10))
    federation = PooledSites(split(rows, [7, 0, 13]))
    student, welch = (screening.t_test(federation, 1, variances=kind) for kind in ("pooled", "welch"))
    assert -student.t[0] == pytest.approx(-1.8608, abs=5e-5)
    assert student.p[0] == pytest.approx(0.07919, abs=5e-6)
    assert welch.degrees_of_freedom[0] == pytest.approx(17.776, abs=5e-4)
    assert welch.p[0] == pytest.approx(0.07939, abs=5e-6)


def test_columns_without_a_test(rows):
    for variances in ("pooled", "welch"):
        ours = screening.t_test(PooledSites([rows]), 32, variances=variances)
        assert np.isnan([ours.t[30], ours.p[30]]).all()  # constant
        assert (ours.t[31], ours.p[31]) == (np.inf, 0)  # the class itself
    alone = rows._replace(group=(np.arange(569) == 0).astype(np.int64))
    assert np.isnan(screening.t_test(PooledSites([alone]), 32).p).all()


def test_screen_takes_the_largest_t_below_the_threshold(rows):
    ours = screening.t_test(PooledSites(split(rows, [249, 171, 100, 49])), 32)
    kept = screening.screen(ours, 0.05)
    assert kept[0] == 31
    assert set(kept) == set(np.flatnonzero(ours.p < 0.05))
    assert (np.diff(np.abs(ours.t[kept][1:])) <= 0).all()
    np.testing.assert_array_equal(screening.screen(ours, 0.05, keep_at_most=5), kept[:5])
    assert screening.screen(ours, 1.1).tolist().count(30) == 0  # the constant column, even at a threshold above 1


def test_ties_go_by_column_order(rows):
    twins = rows._replace(x=rows.x[:, [0, 1, 0]])
    result = screening.t_test(PooledSites([twins]), 3)
    assert screening.screen(result, 0.05).tolist() == [0, 2, 1]
