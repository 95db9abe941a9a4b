"""Chained: equal to scikit-learn's IterativeImputer with linear regressions, on old and on new rows."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # what makes the next import possible
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LinearRegression

from cohortium.common.federation import PooledSites
from cohortium.strategies import chained, moments, triangle
from cohortium.strategies.chained import Incomplete
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split, take

TARGETS = np.array([0, 2, 3, 5, 6])


@pytest.fixture(scope="module")
def rows() -> Incomplete:
    """Eight columns of breast_cancer in units from 1e-3 to 1e3, a constant one and a twin; gaps in five."""
    data = load_breast_cancer()
    x = data.data[:, [0, 1, 4, 5, 6, 7, 8, 9]] * np.logspace(-3, 3, 8)
    x = np.column_stack([x, np.full(569, 0.7), x[:, 1] * 2])
    rng = np.random.default_rng(5)
    for target, share in zip(TARGETS, (0.1, 0.3, 0.05, 0.2, 0.2), strict=True):
        x[rng.random(569) < share, target] = np.nan
    return Incomplete(x=x, key=rng.integers(-(2**63), 2**63, 569))


def reference(x: np.ndarray, cycles: int) -> IterativeImputer:
    imputer = IterativeImputer(
        LinearRegression(), max_iter=cycles, tol=0, imputation_order="ascending", initial_strategy="mean"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of cycles
        return imputer.fit(x)


def fitted(federation, rows, cycles, **more):
    known = known_moments(federation, rows.x.shape[1])
    return chained.fit(federation, known, known.mean, TARGETS, cycles, **more)


def known_moments(federation, columns):
    """Of the known values, whose rows are `Matrix` in a study."""
    return moments.fit(
        PooledSites(Matrix(site.x, np.zeros(len(site.x), np.int64)) for site in federation.sites), columns
    )


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equals_iterative_imputer(rows, kind):
    train, new = take(rows, slice(0, 400)), rows.x[400:]
    federation = kind(odd_sites(train, train.key % 2))
    chain = fitted(federation, train, 10)
    theirs = reference(train.x, 10)
    sd = np.nanstd(train.x, axis=0).clip(1e-12)
    for x in (train.x, new):  # new rows: a site that took no part
        np.testing.assert_allclose(
            chained.complete(Incomplete(x, np.zeros(len(x), np.int64)), chain) / sd, theirs.transform(x) / sd, atol=1e-9
        )
    assert federation.rounds == 10 * 5


def test_known_values_stay_to_the_last_bit(rows):
    chain = fitted(PooledSites([rows]), rows, 2)
    done, known = chained.complete(rows, chain), ~np.isnan(rows.x)
    np.testing.assert_array_equal(done[known], rows.x[known])
    assert np.isfinite(done).all()


def test_a_line_is_found_by_hand():
    """Gaps of y = 1 + 2 x are filled with 1 + 2 x."""
    x = np.column_stack([np.arange(6.0), 1 + 2 * np.arange(6.0)])
    gaps = x.copy()
    gaps[[1, 4], 1] = np.nan
    lines = Incomplete(gaps, np.arange(6))
    known = known_moments(PooledSites([lines]), 2)
    chain = chained.fit(PooledSites([lines]), known, known.mean, np.array([1]), 1)
    np.testing.assert_allclose(chained.complete(lines, chain), x, atol=1e-12)


def test_a_column_without_gaps_in_training_is_filled_elsewhere(rows):
    whole = rows._replace(x=np.nan_to_num(rows.x, nan=1.0))
    chain = fitted(PooledSites([whole]), whole, 1)
    new = take(whole, slice(0, 3))._replace(x=whole.x[:3].copy())
    new.x[1, 2] = np.nan
    expected = LinearRegression().fit(np.delete(whole.x, 2, 1), whole.x[:, 2]).predict(np.delete(whole.x, 2, 1)[1:2])
    assert chained.complete(new, chain)[1, 2] == pytest.approx(expected[0], rel=1e-6)


def test_all_values_missing_and_nobody(rows):
    gone = rows._replace(x=rows.x.copy())
    gone.x[:, 3] = np.nan
    assert np.isfinite(chained.complete(gone, fitted(PooledSites([gone]), gone, 2))).all()
    nobody = take(rows, slice(0, 0))
    assert np.isfinite(fitted(PooledSites([nobody]), nobody, 1).coefficients).all()


def test_the_order_of_patients_and_their_neighbours_change_nothing(rows):
    chain = fitted(PooledSites([rows]), rows, 3)
    other = fitted(PooledSites([take(rows, slice(None, None, -1))]), rows, 3)
    np.testing.assert_allclose(chain.coefficients, other.coefficients, atol=1e-9)
    alone = np.vstack([chained.complete(take(rows, slice(i, i + 1)), chain) for i in range(20)])
    np.testing.assert_array_equal(alone, chained.complete(rows, chain)[:20])


def test_local_half_adds_over_rows(rows):
    chain = fitted(PooledSites([rows]), rows, 1, rng=np.random.default_rng(1))
    check(chained.products, rows, chain=chain._asdict(), target=3)


# --- multiple imputation --------------------------------------------------------------------------------------


def test_draws_do_not_depend_on_the_sites(rows):
    """The same rows at one site and at three: the same equations, the same filled values."""
    one, three = (
        fitted(PooledSites(sites), rows, 3, rng=np.random.default_rng([1, 2]), imputation=2)
        for sites in ([rows], split(rows, [300, 0, 269]))
    )
    np.testing.assert_allclose(one.coefficients, three.coefficients, atol=1e-8)
    np.testing.assert_allclose(one.spread, three.spread, atol=1e-8)
    scale = np.nanstd(rows.x, axis=0).clip(1e-12)
    np.testing.assert_allclose(chained.complete(rows, one) / scale, chained.complete(rows, three) / scale, atol=1e-7)


def test_numbers_of_a_patient_are_normal_and_its_own():
    key = np.random.default_rng(0).integers(-(2**63), 2**63, 20_000)
    drawn = np.stack([chained.normal(key, i, e) for i in range(2) for e in range(3)])
    np.testing.assert_array_equal(drawn[0], chained.normal(key, 0, 0))
    assert all(stats.kstest(numbers, "norm").pvalue > 1e-3 for numbers in drawn)
    assert np.abs(np.corrcoef(drawn) - np.eye(6)).max() < 0.03
    neighbours = chained.normal(np.arange(20_000), 0, 0)  # keys that differ by one
    assert stats.kstest(neighbours, "norm").pvalue > 1e-3


def test_a_drawn_regression_has_the_posterior_of_the_textbook():
    """Mean and covariance of the draws are those of least squares: statsmodels, Student's t with n - k degrees."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 2))
    z = np.column_stack([x @ [1.0, -0.5] + rng.normal(size=60), x])
    at = chained.Products(np.asarray(60), z.sum(axis=0), triangle.upper(z.T @ z))
    drawn = np.array([chained.regression(at, 0, rng)[0] for _ in range(4000)])
    ols = sm.OLS(z[:, 0], sm.add_constant(z[:, 1:])).fit()
    np.testing.assert_allclose(drawn[:, [0, 2, 3]].mean(axis=0), ols.params, atol=0.01)
    covariance = ols.cov_params() * ols.df_resid / (ols.df_resid - 2)  # of a multivariate t
    np.testing.assert_allclose(np.cov(drawn[:, [0, 2, 3]].T), covariance, atol=0.1 * np.diag(covariance).max())
    assert not drawn[:, 1].any()
