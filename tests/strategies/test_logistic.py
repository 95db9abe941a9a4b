"""Logistic regression: equal to the pooled fit, additive, and honest about what it cannot fit."""

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.datasets import load_breast_cancer

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import logistic
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split, take

COLUMNS = [1, 4, 8]  # mean texture, smoothness, symmetry: a model without separation


@pytest.fixture(scope="module")
def rows() -> Labelled:
    data = load_breast_cancer()
    x = data.data[:, COLUMNS]
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    return Labelled(x=x, y=1.0 - data.target, fold=np.zeros(len(x), dtype=np.int64))


def pooled(rows: Labelled) -> sm.Logit:
    return sm.Logit(rows.y, sm.add_constant(rows.x)).fit(disp=0, method="newton", tol=1e-14)


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equals_the_pooled_fit_of_statsmodels(rows, kind):
    federation = kind(odd_sites(rows, rows.y))
    ours, theirs = logistic.fit(federation, predictors=3), pooled(rows)
    np.testing.assert_allclose(ours.coefficients, theirs.params, rtol=1e-10)  # six sites, steps of 2**-38
    np.testing.assert_allclose(ours.standard_errors, theirs.bse, rtol=1e-9)
    np.testing.assert_allclose(ours.confidence_interval(), theirs.conf_int(), rtol=1e-9)
    np.testing.assert_allclose(ours.p_values, theirs.pvalues, rtol=1e-9)
    assert ours.log_likelihood == pytest.approx(theirs.llf, rel=1e-12)
    assert ours.aic == pytest.approx(theirs.aic, rel=1e-12)
    assert (ours.patients, ours.events) == (569, 212)
    assert federation.rounds == 7


def test_a_harder_fit_equals_the_pooled_one():
    """Six predictors of risks near 0 and 1; separation is near but not there."""
    data = load_breast_cancer()
    x = data.data[:, [1, 4, 5, 8, 9, 11]]
    rows = Labelled((x - x.mean(0)) / x.std(0, ddof=1), 1.0 - data.target, np.zeros(569, dtype=np.int64))
    federation = FixedPointSites(split(rows, [249, 171, 100, 49]))
    ours, theirs = logistic.fit(federation, predictors=6), pooled(rows)
    np.testing.assert_allclose(ours.coefficients, theirs.params, rtol=1e-9)
    np.testing.assert_allclose(ours.standard_errors, theirs.bse, rtol=1e-9)
    assert federation.rounds <= 10


def test_published_estimates_of_spector_and_mazzeo():
    """Greene, Econometric Analysis, 7th ed., table 17.1, as in statsmodels' documentation (GPA, TUCE, PSI)."""
    data = sm.datasets.spector.load()
    x, y = data.exog.to_numpy(), data.endog.to_numpy()
    mean, sd = x.mean(0), x.std(0)
    rows = Labelled((x - mean) / sd, y, np.zeros(32, dtype=np.int64))
    ours = logistic.fit(PooledSites(split(rows, [10, 1, 21])), predictors=3)
    slopes, errors = ours.coefficients[1:] / sd, ours.standard_errors[1:] / sd
    np.testing.assert_allclose(slopes, [2.8261, 0.0952, 2.3787], atol=5e-5)  # printed with four decimals
    np.testing.assert_allclose(errors, [1.263, 0.142, 1.065], atol=5e-4)
    assert ours.coefficients[0] - slopes @ mean == pytest.approx(-13.0213, abs=5e-5)
    assert ours.log_likelihood == pytest.approx(-12.890, abs=5e-4)


def test_intercept_alone(rows):
    ours = logistic.fit(PooledSites([take(rows, slice(0, 300))._replace(x=np.empty((300, 0)))]), predictors=0)
    events = rows.y[:300].sum()
    np.testing.assert_allclose(ours.coefficients, [np.log(events / (300 - events))], rtol=1e-12)
    np.testing.assert_allclose(ours.standard_errors, [np.sqrt(1 / events + 1 / (300 - events))], rtol=1e-9)


@pytest.mark.parametrize("sizes", [[569], [284, 285], [1] * 60 + [509]])
def test_sites_do_not_matter(rows, sizes):
    one = logistic.fit(PooledSites([rows]), predictors=3)
    many = logistic.fit(PooledSites(split(rows, sizes)[::-1]), predictors=3)
    np.testing.assert_allclose(many.coefficients, one.coefficients, rtol=1e-12)  # summation order only


def test_local_half_adds_over_rows(rows):
    check(logistic.terms, rows, coefficients=np.array([0.5, -1.0, 2.0, 0.0]))
    check(logistic.terms, rows._replace(x=np.empty((569, 0))), coefficients=np.array([700.0]))


def test_separation_is_named_not_returned(rows):
    separated = rows._replace(x=np.column_stack([rows.x, rows.y]))
    federation = FixedPointSites(split(separated, [300, 269]))
    with pytest.raises(NotIdentifiable, match=r"marker separates the outcome.*lasso"):
        logistic.fit(federation, predictors=4, names=["texture", "smoothness", "symmetry", "marker"])


def test_quasi_separation_by_a_rare_finding(rows):
    rare = np.zeros(569)
    rare[np.flatnonzero(rows.y)[:3]] = 1
    federation = FixedPointSites([rows._replace(x=np.column_stack([rows.x, (rare - rare.mean()) / rare.std()]))])
    with pytest.raises(NotIdentifiable, match="separates"):
        logistic.fit(federation, predictors=4)


def test_coarse_sums_still_end(rows):
    """At 28 bits the decrement never falls below 1e-9: what is left is rounding, and the fit says what it can."""
    federation = PooledSites(split(rows, [300, 269]), fraction_bits=28)
    np.testing.assert_allclose(logistic.fit(federation, predictors=3).coefficients, pooled(rows).params, atol=1e-8)
    assert federation.rounds <= 9


def test_collinear_and_constant_columns_are_named(rows):
    doubled = rows._replace(x=np.column_stack([rows.x, rows.x[:, 0] - 2 * rows.x[:, 1]]))
    with pytest.raises(NotIdentifiable, match="predictor 0 and predictor 1 and predictor 3 determine each other"):
        logistic.fit(FixedPointSites([doubled]), predictors=4)
    with pytest.raises(NotIdentifiable, match="predictor 3 has one value"):
        logistic.fit(FixedPointSites([rows._replace(x=np.column_stack([rows.x, np.zeros(569)]))]), predictors=4)


def test_one_class_and_nobody(rows):
    with pytest.raises(NotIdentifiable, match="no patient has the outcome"):
        logistic.fit(PooledSites([rows._replace(y=np.zeros(569))]), predictors=3)
    with pytest.raises(NotIdentifiable, match="all 569 patients have"):
        logistic.fit(PooledSites([rows._replace(y=np.ones(569))]), predictors=3)
    with pytest.raises(NotIdentifiable, match="no site has a patient"):
        logistic.fit(PooledSites([take(rows, slice(0, 0))]), predictors=3)
