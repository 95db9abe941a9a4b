"""Rubin: pooled estimates as statsmodels combines them; degrees of freedom at their published limits."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.imputation.mice import MICE, MICEData

from cohortium.strategies import rubin


def test_equals_statsmodels():
    """The covariance that statsmodels' MICE combines from the fits that it keeps."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"a": rng.normal(size=120), "b": rng.normal(size=120)})
    frame["y"] = 1 + frame.a - frame.b + rng.normal(size=120)
    frame.loc[rng.random(120) < 0.2, "a"] = np.nan
    np.random.seed(3)  # noqa: NPY002  # the library draws from the global generator
    imputer = MICE("y ~ a + b", sm.OLS, MICEData(frame))
    combined = imputer.fit(2, 5)
    fits = imputer.results_list
    ours = rubin.pool(
        np.array([fit.params for fit in fits]), np.array([fit.cov_params() for fit in fits]), complete_degrees=np.inf
    )
    np.testing.assert_allclose(ours.estimates, combined.params, rtol=1e-12)
    np.testing.assert_allclose(ours.covariance, combined.cov_params(), rtol=1e-12)
    np.testing.assert_allclose(ours.missing_information, combined.frac_miss_info, rtol=1e-12)


def test_degrees_of_freedom():
    """Rubin 1987, equation 3.1.6, for endless data; Barnard & Rubin 1999, equation 3, for few."""
    estimates = np.array([[1.0], [1.4], [0.9], [1.3]])
    covariances = np.full((4, 1, 1), 0.04)
    between = np.var(estimates, ddof=1)
    ratio = 1.25 * between / 0.04
    endless = rubin.pool(estimates, covariances, np.inf)
    assert endless.degrees_of_freedom[0] == pytest.approx(3 * (1 + 1 / ratio) ** 2, rel=1e-12)
    few = rubin.pool(estimates, covariances, 20.0)
    share = ratio / (1 + ratio)
    observed = 21 / 23 * 20 * (1 - share)
    assert few.degrees_of_freedom[0] == pytest.approx(1 / (share**2 / 3 + 1 / observed), rel=1e-12)


def test_nothing_missing():
    """Equal fits: the covariance of one, and the degrees of freedom that Barnard and Rubin leave of complete data."""
    ours = rubin.pool(np.ones((3, 2)), np.tile(np.eye(2), (3, 1, 1)), 50.0)
    np.testing.assert_array_equal(ours.covariance, np.eye(2))
    np.testing.assert_allclose(ours.degrees_of_freedom, 51 / 53 * 50)
    np.testing.assert_array_equal(ours.between, 0)
