"""Linear regression and elastic nets of a continuous outcome, equal to statsmodels and scikit-learn."""

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import lasso, linear
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, check, split, take

SIZES = [200, 150, 90, 1, 0, 1]


@pytest.fixture(scope="module")
def diabetes() -> Labelled:
    """442 patients, 10 columns, disease progression after a year."""
    x, y = load_diabetes(return_X_y=True)
    fold = np.random.default_rng(0).permutation(np.arange(442) % 5)
    return Labelled((x - x.mean(0)) / x.std(0, ddof=1), (y - y.mean()) / y.std(ddof=1), fold)


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_least_squares_equals_statsmodels(diabetes, kind):
    federation = kind(split(diabetes, SIZES))
    ours = linear.fit(federation, 10)
    theirs = sm.OLS(diabetes.y, sm.add_constant(diabetes.x)).fit()
    np.testing.assert_allclose(ours.coefficients, theirs.params, atol=1e-10)
    np.testing.assert_allclose(ours.standard_errors, theirs.bse, rtol=1e-9)
    np.testing.assert_allclose(ours.p_values, theirs.pvalues, rtol=1e-7)
    np.testing.assert_allclose(ours.confidence_interval(), theirs.conf_int(), atol=1e-9)
    assert ours.r_squared == pytest.approx(theirs.rsquared, rel=1e-10)
    assert ours.residual_variance == pytest.approx(theirs.mse_resid, rel=1e-10)
    assert federation.rounds == 1


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("mixing", [1.0, 0.4])
def test_elastic_net_equals_scikit_learn(diabetes, mixing, kind):
    federation = kind(split(diabetes, SIZES))
    ours = lasso.fit(federation, 10, family="linear", n_lambda=15, folds=5, mixing=mixing)
    for penalty, coefficients in zip(ours.lambdas, ours.coefficients, strict=True):
        theirs = ElasticNet(alpha=penalty, l1_ratio=mixing, tol=1e-14, max_iter=100_000).fit(diabetes.x, diabetes.y)
        np.testing.assert_allclose(coefficients, [theirs.intercept_, *theirs.coef_], atol=1e-9)
    assert federation.rounds <= 8


def test_cross_validation_equals_scikit_learn(diabetes):
    ours = lasso.fit(PooledSites(split(diabetes, SIZES)), 10, family="linear", n_lambda=10, folds=5)
    errors = np.empty((5, 10))
    for fold in range(5):
        train, test = take(diabetes, diabetes.fold != fold), take(diabetes, diabetes.fold == fold)
        for place, penalty in enumerate(ours.lambdas):
            model = ElasticNet(alpha=penalty, l1_ratio=1, tol=1e-14, max_iter=100_000).fit(train.x, train.y)
            errors[fold, place] = np.mean((test.y - model.predict(test.x)) ** 2)
    mean = np.average(errors, axis=0, weights=np.bincount(diabetes.fold))
    np.testing.assert_allclose(ours.cv_deviance, mean, rtol=1e-8)
    assert ours.index_min == mean.argmin()


def test_what_cannot_be_fitted_says_so(diabetes):
    twice = diabetes._replace(x=np.c_[diabetes.x[:, :2], diabetes.x[:, 0]])
    with pytest.raises(NotIdentifiable, match="combination of others"):
        linear.fit(PooledSites([twice]), 3)
    with pytest.raises(NotIdentifiable, match="8 patients for 11 coefficients"):
        linear.fit(PooledSites([take(diabetes, slice(0, 8))]), 10)
    for fit in (linear.fit, lambda *a: lasso.fit(*a, family="linear", folds=5)):
        with pytest.raises(NotIdentifiable, match="one value"):
            fit(PooledSites([diabetes._replace(y=np.ones(442))]), 10)


def test_local_halves_add_over_rows(diabetes):
    check(linear.cross_products, diabetes)
    parameters = {"coefficients": np.random.default_rng(2).normal(size=(5, 11)), "held_out": np.arange(-1, 4)}
    check(lasso.terms, diabetes, working=np.ones((5, 11), dtype=bool), family="linear", **parameters)


def test_a_wide_path_ends_past_the_minimum_and_chooses_as_the_whole_one(diabetes, monkeypatch):
    rng = np.random.default_rng(1)
    wide = diabetes._replace(x=np.c_[diabetes.x, rng.normal(size=(442, 90))])
    federation = FixedPointSites(split(wide, SIZES))
    ours = lasso.fit(federation, 100, family="linear", n_lambda=20, folds=5)
    monkeypatch.setattr("cohortium.strategies.lasso_models.PAST", np.inf)
    whole = lasso.fit(PooledSites(split(wide, SIZES)), 100, family="linear", n_lambda=20, folds=5)
    length = len(ours.lambdas)
    assert ours.index == whole.index
    assert whole.index < length <= len(whole.lambdas)
    np.testing.assert_allclose(ours.coefficients, whole.coefficients[:length], atol=1e-8)
    np.testing.assert_allclose(ours.cv_deviance, whole.cv_deviance[:length], rtol=1e-8)
    assert federation.rounds <= 15
