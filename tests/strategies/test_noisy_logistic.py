"""Noisy logistic: one patient moves the sum no further than declared; without noise it climbs to the pooled fit."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cohortium.common.errors import SumRefused
from cohortium.common.federation import PooledSites
from cohortium.strategies import noisy_logistic
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import check, odd_sites, take


@pytest.fixture(scope="module")
def rows() -> Labelled:
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, (4000, 3))
    y = (rng.random(4000) < 1 / (1 + np.exp(-(0.4 + x @ [1.2, -0.8, 0.0])))).astype(float)
    return Labelled(x=x, y=y, fold=np.zeros(4000, np.int64))


def test_adds_over_rows(rows):
    check(noisy_logistic.gradient, take(rows, slice(0, 200)), coefficients=np.array([0.1, 2.0, -1.0, 0.3]), clip=0.7)


def test_without_noise_it_is_near_the_pooled_fit(rows):
    ours = noisy_logistic.fit(PooledSites(odd_sites(rows, rows.y)), 3, clip=10.0, rounds=60)
    theirs = sm.Logit(rows.y, sm.add_constant(rows.x)).fit(disp=0).params
    np.testing.assert_allclose(ours, theirs, atol=0.02)  # a tenth of a standard error at this size is 0.006


wild = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(np.float64, (2, 4), elements=wild),
    arrays.arrays(np.float64, 5, elements=wild),
    st.floats(1e-3, 1000),
)
def test_replacing_one_patient_moves_no_further_than_declared(x, coefficients, clip):
    """Two patients as different as doubles can be; the others cancel."""
    told = [
        noisy_logistic.gradient.local(
            Labelled(x=x[i : i + 1], y=np.array([float(i)]), fold=np.zeros(1, np.int64)),
            coefficients=coefficients,
            clip=clip,
        )
        for i in (0, 1)
    ]
    assert told[0].gradient.dtype == np.int64
    moved = np.linalg.norm((told[0].gradient - told[1].gradient).astype(float))
    assert moved <= noisy_logistic.gradient.sensitivity(told[0], coefficients=coefficients, clip=clip)


@pytest.mark.parametrize("clip", [0, -1.0, float("nan"), float("inf"), 1e9])
def test_a_clip_that_is_none(rows, clip):
    with pytest.raises(SumRefused, match="clip must be"):
        noisy_logistic.gradient.local(rows, coefficients=np.zeros(4), clip=clip)
