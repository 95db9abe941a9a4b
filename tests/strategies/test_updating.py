"""Updating: likelihood-ratio tests equal to statsmodels on the pooled patients; the update that is needed is chosen."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special, stats

from cohortium.common.federation import PooledSites
from cohortium.strategies import calibration, discrimination, updating
from cohortium.strategies.rows import Scored
from tests.strategies.additivity import FixedPointSites, odd_sites

EXACT = np.arange(10_001)


def lr_tests(sites, rows):
    federation = sites(odd_sites(rows, rows.y))
    sums = federation.sum(discrimination.histogram, edges=[EXACT], folds=1)
    (fitted,) = calibration.fit(federation, sums.patients.sum(0), sums.score_sum)
    assert sums.accuracy[0, 2] == pytest.approx(fitted.updating.log_likelihood[0], abs=1e-8)
    return updating.closed_test(fitted.updating)


def cohort(intercept, slope, n=900, seed=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 1.2, n)
    y = (rng.random(n) < special.expit(intercept + slope * logits)).astype(float)
    return Scored(np.round(special.expit(logits), 4)[:, None], y, np.zeros(n, np.int64))


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_equals_statsmodels(sites):
    rows = cohort(0.4, 0.7)
    found = lr_tests(sites, rows)
    logits = special.logit(rows.score[:, 0])
    offset = sm.GLM(rows.y, np.ones(900), family=sm.families.Binomial(), offset=logits).fit(tol=1e-14)
    both = sm.Logit(rows.y, sm.add_constant(logits)).fit(disp=0, tol=1e-14)
    as_it_is = float((rows.y * logits - np.logaddexp(0, logits)).sum())
    chi2 = [2 * (both.llf - as_it_is), 2 * (both.llf - offset.llf), 2 * (offset.llf - as_it_is)]
    for test, expected, df in zip(found["tests"], chi2, (2, 1, 1), strict=True):
        assert test["chi2"] == pytest.approx(expected, abs=1e-8)
        assert test["df"] == df
        assert test["p"] == pytest.approx(stats.chi2.sf(expected, df), rel=1e-6)
    model = found["models"]["intercept_and_slope"]
    np.testing.assert_allclose([model["intercept"], model["slope"]], both.params, rtol=1e-9)
    assert found["models"]["intercept"]["intercept"] == pytest.approx(offset.params[0], abs=1e-9)


@pytest.mark.parametrize(
    ("intercept", "slope", "chosen"), [(0.0, 1.0, "none"), (0.6, 1.0, "intercept"), (0.5, 0.5, "intercept_and_slope")]
)
def test_the_update_that_is_needed_is_chosen(intercept, slope, chosen):
    assert lr_tests(PooledSites, cohort(intercept, slope, 3000))["chosen"] == chosen
