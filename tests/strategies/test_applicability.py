"""Applicability: statsmodels' covariance gives the interval and the weighted Mahalanobis distance of its own data."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special, stats

from cohortium.strategies import applicability


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(2)
    raw = rng.normal([60.0, 3.0, 0.2], [9.0, 1.5, 0.05], (400, 3)) @ np.array([[1, 0, 0], [0.02, 1, 0], [0, 0.1, 1]])
    y = (rng.random(400) < special.expit(-6 + 0.1 * raw[:, 0] + 0.3 * raw[:, 1])).astype(float)
    centre, scale = raw.mean(0), raw.std(0)
    fit = sm.GLM(y, sm.add_constant(raw), family=sm.families.Binomial()).fit(tol=1e-13)
    matrix = applicability.standardised(np.asarray(fit.cov_params()), centre, scale, intercept=True)
    return raw, (raw - centre) / scale, fit, matrix


def test_standard_error_is_that_of_get_prediction(fitted):
    raw, z, fit, matrix = fitted
    prediction = fit.get_prediction(sm.add_constant(raw))
    theirs = prediction.linpred.summary_frame(alpha=0.05)
    ours = applicability.standard_error(z, matrix, intercept=True)
    np.testing.assert_allclose(ours, theirs["mean_se"], rtol=1e-9)
    half = (theirs["mean_ci_upper"] - theirs["mean_ci_lower"]) / 2
    np.testing.assert_allclose(applicability.half_width(None) * ours, half, rtol=1e-9)
    assert applicability.half_width(5.0) == pytest.approx(2.570582, abs=1e-6)  # any table of Student's t


def test_squared_distance_is_mahalanobis_about_the_weighted_mean(fitted):
    raw, z, fit, matrix = fitted
    weight = fit.fittedvalues * (1 - fit.fittedvalues)
    middle, spread = np.average(raw, axis=0, weights=weight), np.cov(raw.T, aweights=weight, ddof=0)
    theirs = np.einsum("ni,ij,nj->n", raw - middle, np.linalg.inv(spread), raw - middle)
    known = applicability.remembered(matrix, intercept=True)
    assert known.information == pytest.approx(weight.sum(), rel=1e-8)
    ours = applicability.squared_distance(z, matrix, intercept=True, known=known)
    np.testing.assert_allclose(ours, theirs, rtol=1e-7)
    assert np.average(ours, weights=weight) == pytest.approx(3.0)  # p, whatever the distribution


def test_of_a_cox_model_events_are_the_information():
    covariance = np.diag([0.01, 0.02])  # 100 and 50 patients' worth
    known = applicability.remembered(covariance, intercept=False, events=100)
    z = np.array([[2.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(applicability.squared_distance(z, covariance, intercept=False, known=known), [4.0, 2.0])
    np.testing.assert_allclose(applicability.standard_error(z, covariance, intercept=False), [0.2, 0.02**0.5])


def test_normal_patients_are_called_unusual_once_in_a_thousand():
    z = np.random.default_rng(1).standard_normal((20000, 4))
    share = ((z**2).sum(1) > applicability.farthest_likely(4)).mean()
    assert stats.binom.cdf(share * 20000, 20000, applicability.RARE) < 0.999


def test_a_few_far_columns_of_many_are_chance():
    z = np.random.default_rng(1).standard_normal((3000, 100))
    told = np.array([len(applicability.far_columns(row)) > 0 for row in z])
    assert (np.abs(z) > 3).any(1).mean() > 0.2
    assert told.mean() < 3 * applicability.RARE
    z[0, :5] = [3.5, -4.0, 3.2, 3.1, 6.0]
    np.testing.assert_array_equal(applicability.far_columns(z[0])[:3], [4, 1, 0])
