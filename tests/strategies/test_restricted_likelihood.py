"""Restricted likelihood: metafor's published example, a numerical maximum, and sums that are enough for both."""

import numpy as np
import pytest
from scipy import optimize

from cohortium.common.federation import PooledSites
from cohortium.strategies import meta_analysis, restricted_likelihood
from cohortium.strategies.meta_analysis import Sums
from cohortium.strategies.restricted_likelihood import Restricted

BCG = np.array([
    [4, 119, 11, 128], [6, 300, 29, 274], [3, 228, 11, 209], [62, 13536, 248, 12619], [33, 5036, 47, 5761],
    [180, 1361, 372, 1079], [8, 2537, 10, 619], [505, 87886, 499, 87892], [29, 7470, 45, 7232], [17, 1699, 65, 1600],
    [186, 50448, 141, 27197], [5, 2493, 3, 2338], [27, 16886, 29, 17825],
])  # fmt: skip
"""Tuberculosis with and without, vaccinated and not, in 13 trials: dat.bcg of metafor (Colditz et al., JAMA 1994)."""


class Asked:
    """Estimates and variances, (sites, k), and how often sums of them were asked for."""

    def __init__(self, estimates, variances, fraction_bits=None):
        self.pairs, self.sums = list(zip(estimates, variances, strict=True)), 0
        self.rounded = PooledSites([], fraction_bits=fraction_bits)._rounded

    def _add(self, kind, parts):
        self.sums += 1
        return kind(*(np.sum([self.rounded(field) for field in fields], axis=0) for fields in zip(*parts, strict=True)))

    def plain(self, tau2, centre):
        return self._add(Sums, [meta_analysis.contribution(b, v, tau2, centre) for b, v in self.pairs])

    def restricted(self, tau2, centre, unit):
        parts = [restricted_likelihood.contribution(b, v, tau2, centre, unit) for b, v in self.pairs]
        return self._add(Restricted, parts)

    def pooled(self):
        (b, _), *_ = self.pairs
        return meta_analysis.pool(self.plain, len(b), len(self.pairs), 0, self.restricted)


def bcg():
    a, b, c, d = BCG.T
    return np.log(a / (a + b) / (c / (c + d)))[:, None], (1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))[:, None]


def restricted_maximum(b: np.ndarray, v: np.ndarray) -> float:
    """Maximum of the restricted log-likelihood as it is written down: on a grid, then by golden section."""

    def minus(tau2):
        w = 1 / (v + tau2)
        mean = w @ b / w.sum()
        return (np.log(v + tau2).sum() + np.log(w.sum()) + w @ (b - mean) ** 2) / 2

    grid = np.concatenate([[0], np.geomspace(1e-4 * v.min(), 1e3 * (v.max() + b.var()), 400)])
    best = int(np.argmin([minus(tau2) for tau2 in grid]))
    if best == 0:
        return 0.0
    found = optimize.minimize_scalar(minus, bounds=grid[[best - 1, best + 1]], method="bounded", options={"xatol": 0})
    return found.x


@pytest.mark.parametrize("fraction_bits", [None, 40])
def test_golden_bcg_of_metafor(fraction_bits):
    """rma(yi, vi, data = dat.bcg) as printed in metafor's documentation: REML is its default."""
    asked = Asked(*bcg(), fraction_bits)
    found = asked.pooled()
    assert found.tau2[0] == pytest.approx(0.3132, abs=5e-5)
    assert found.coefficients[0] == pytest.approx(-0.7145, abs=5e-5)
    assert found.standard_errors[0] == pytest.approx(0.1798, abs=5e-5)
    assert found.q[0] == pytest.approx(152.2330, abs=5e-5)
    assert found.confidence_interval()[0] == pytest.approx([-1.0669, -0.3622], abs=5e-5)
    assert asked.sums <= 5


@pytest.mark.parametrize("fraction_bits", [None, 40])
def test_equals_a_numerical_maximum(fraction_bits):
    """Any heterogeneity, from none to far more than the estimates' variance, side by side; effects of any size."""
    rng = np.random.default_rng(12)
    tau = np.repeat([0.0, 0.02, 0.2, 1.0, 5.0], 8)
    for sites, scale in ((3, 1.0), (5, 1e-3), (9, 1e3)):
        v = rng.gamma(2, 0.05, (sites, len(tau)))
        b = 0.5 + rng.standard_normal(v.shape) * np.sqrt(v + tau**2)
        asked = Asked(b * scale, v * scale**2, fraction_bits)
        found = asked.pooled()
        theirs = np.array([restricted_maximum(b[:, k], v[:, k]) for k in range(len(tau))])
        assert 8 < (theirs > 0).sum() < len(tau)
        typical = sites / (1 / v).sum(axis=0)
        # a search for a minimum sees half the digits
        np.testing.assert_allclose(found.tau2 / scale**2, theirs, rtol=2e-6, atol=2e-6 * typical.min())
        weights = 1 / (v + found.tau2 / scale**2)
        mean = (weights * b).sum(axis=0) / weights.sum(axis=0)
        np.testing.assert_allclose(found.coefficients / scale, mean, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(found.standard_errors / scale, weights.sum(axis=0) ** -0.5, rtol=1e-8)
        np.testing.assert_allclose(found.spread, (weights * (b - mean) ** 2).sum(axis=0), rtol=1e-7)
        # the restricted score, as it is written down, vanishes
        squares, p = (weights**2 * (b - mean) ** 2).sum(0), weights.sum(0) - (weights**2).sum(0) / weights.sum(0)
        assert (np.abs(squares - p) * np.where(found.tau2 > 0, 1 / p, 0)).max() < 1e-8
        assert asked.sums <= 8


def test_one_site_has_no_variance_between():
    found = Asked(np.array([[0.4]]), np.array([[0.1]])).pooled()
    assert (found.tau2[0], found.coefficients[0]) == (pytest.approx(0, abs=1e-12), pytest.approx(0.4))
