"""Meta-analysis: equal to statsmodels on the sites' own fits."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import meta_analysis
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, check, take
from tests.strategies.test_restricted_likelihood import restricted_maximum


@pytest.fixture(scope="module")
def sites() -> list[Labelled]:
    """Five sites that disagree about the first predictor, agree about the second; one that can fit nothing."""
    rng = np.random.default_rng(8)
    parts = []
    for slope, n in zip((0.2, 0.8, 1.4, -0.3, 1.0), (150, 220, 90, 180, 130), strict=True):
        x = rng.standard_normal((n, 2))
        y = (rng.random(n) < 1 / (1 + np.exp(-(slope * x[:, 0] + 0.4 * x[:, 1] - 0.2)))).astype(float)
        parts.append(Labelled(x, y, np.zeros(n, dtype=np.int64)))
    return [*parts, take(parts[0], slice(0, 6))]


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equals_combine_effects_on_the_local_fits(sites, kind):
    federation = kind(sites)
    ours = meta_analysis.fit(federation, 2)
    local = [sm.Logit(part.y, sm.add_constant(part.x)).fit(disp=0, method="newton", tol=1e-14) for part in sites[:5]]
    for k in range(3):
        theirs = combine_effects(
            np.array([fit.params[k] for fit in local]), np.array([fit.bse[k] ** 2 for fit in local]), method_re="dl"
        )
        assert ours.q[k] == pytest.approx(theirs.q, abs=1e-8)
        assert ours.tau2[k] == pytest.approx(max(theirs.tau2, 0), abs=1e-9)
        assert ours.i2[k] == pytest.approx(max(theirs.i2, 0), abs=1e-9)
        assert ours.common[k] == pytest.approx(theirs.mean_effect_fe, abs=1e-9)
        assert ours.common_errors[k] == pytest.approx(theirs.sd_eff_w_fe, rel=1e-9)
        if theirs.tau2 > 0:
            assert ours.coefficients[k] == pytest.approx(theirs.mean_effect_re, abs=1e-9)
            assert ours.standard_errors[k] == pytest.approx(theirs.sd_eff_w_re, rel=1e-9)
        else:  # of which statsmodels would take the negative value
            assert ours.coefficients[k] == pytest.approx(theirs.mean_effect_fe, abs=1e-9)
    assert ours.tau2[1] > 0.1
    assert (ours.sites, ours.patients, federation.rounds) == (5, 770, 3)
    half = stats.t.ppf(0.975, 3) * np.sqrt(ours.tau2 + ours.standard_errors**2)
    np.testing.assert_allclose(ours.prediction_interval()[:, 1] - ours.coefficients, half, rtol=1e-12)


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_by_reml_is_the_restricted_maximum_over_the_local_fits(sites, kind):
    federation = kind(sites)
    ours = meta_analysis.fit(federation, 2, between="reml")
    local = [sm.Logit(part.y, sm.add_constant(part.x)).fit(disp=0, method="newton", tol=1e-14) for part in sites[:5]]
    b, v = np.array([fit.params for fit in local]), np.array([fit.bse**2 for fit in local])
    theirs = np.array([restricted_maximum(b[:, k], v[:, k]) for k in range(3)])
    np.testing.assert_allclose(ours.tau2, theirs, rtol=1e-6, atol=1e-9)  # half the digits, as of every minimum
    w = 1 / (v + ours.tau2)
    np.testing.assert_allclose(ours.coefficients, (w * b).sum(0) / w.sum(0), rtol=1e-9)
    np.testing.assert_allclose(ours.standard_errors, w.sum(0) ** -0.5, rtol=1e-9)
    assert ours.tau2[1] > 0.1
    assert federation.rounds <= 7


def test_two_sites_are_too_few(sites):
    with pytest.raises(NotIdentifiable, match="2 sites have a fit of their own"):
        meta_analysis.fit(PooledSites([*sites[:2], sites[5]]), 2)


def test_statistics_keep_their_contract(sites):
    check(meta_analysis.able, sites[0])
    check(meta_analysis.sums, sites[0], rtol=1e-9, tau2=np.array([0.0, 0.1, 0.2]), centre=np.array([0.0, 0.5, 0.3]))
    at = {"tau2": np.array([0.0, 0.1, 0.2]), "centre": np.array([0.0, 0.5, 0.3]), "unit": np.array([30.0, 20.0, 40.0])}
    check(meta_analysis.restricted, sites[0], rtol=1e-9, **at)
