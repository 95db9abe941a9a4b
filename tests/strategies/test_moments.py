"""Moments: equal to the pooled ones at any scale, to the last bit for every split into sites."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_breast_cancer

from cohortium.common.errors import SumRefused
from cohortium.common.federation import PooledSites
from cohortium.strategies import moments
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split


@pytest.fixture(scope="module")
def rows() -> Matrix:
    """breast_cancer with columns of 1e-12 to 1e12, 8 % missing, one constant, one without values."""
    data = load_breast_cancer()
    rng = np.random.default_rng(5)
    x = data.data * np.logspace(-12, 12, 30)
    x[:, 3] += 1e6 * x[:, 3].std()  # a mean far from zero
    x[rng.random(x.shape) < 0.08] = np.nan
    x = np.column_stack([x, np.full(569, 0.1), np.full(569, np.nan)])
    return Matrix(x=x, group=1 - data.target)


def test_equal_the_pooled_moments_of_numpy(rows):
    ours = moments.fit(PooledSites(odd_sites(rows, rows.group)), 32)
    present = rows.x[:, :30]
    np.testing.assert_array_equal(ours.n, (~np.isnan(rows.x)).sum(0))
    np.testing.assert_allclose(ours.mean[:30], np.nanmean(present, axis=0), rtol=1e-14)
    # column 3: numpy rounds x - mean to 1e-16 * mean, a millionth of which is the spread
    np.testing.assert_allclose(np.delete(ours.sd, 3)[:29], np.delete(np.nanstd(present, axis=0, ddof=1), 3), rtol=1e-13)
    assert ours.mean[30] == 0.1
    assert (ours.sd[30], ours.n[31], ours.mean[31], ours.sd[31]) == (0, 0, 0, 0)


def test_equal_exact_rational_arithmetic(rows):
    values = [Fraction(v) for v in rows.x[~np.isnan(rows.x[:, 3]), 3]]
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    ours = moments.fit(PooledSites(split(rows, [400, 169])), 32)
    assert ours.mean[3] == float(mean)
    # x and its mean are 1e6 standard deviations from zero: 2**-53 * 1e6 is what x - mean can resolve
    assert ours.sd[3] == pytest.approx(float(variance) ** 0.5, rel=1e-10)


@pytest.mark.parametrize("sizes", [[569], [0, 568, 1], [1] * 60 + [509]])
def test_sites_change_no_bit(rows, sizes):
    one = moments.fit(PooledSites([rows]), 32)
    many = moments.fit(FixedPointSites(split(rows, sizes)[::-1]), 32)
    np.testing.assert_array_equal(many.mean, one.mean)
    np.testing.assert_array_equal(many.sd, one.sd)


def test_groups_and_their_union(rows):
    federation = PooledSites(odd_sites(rows, rows.group))
    parts = moments.fit_groups(federation, 32, groups=2)
    assert federation.rounds == 2
    assert [part.patients for part in parts] == [357, 212]
    for code, part in enumerate(parts):
        np.testing.assert_allclose(part.mean[:30], np.nanmean(rows.x[rows.group == code, :30], axis=0), rtol=1e-14)
    union, whole = moments.pooled(parts), moments.fit(federation, 32)
    np.testing.assert_allclose(union.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(union.sd, whole.sd, rtol=1e-9, atol=1e-17)  # column 3; 0.1 is no binary fraction


def test_bound_is_attained_by_one_outlier():
    x = np.zeros((50, 1))
    x[7] = 1
    ours = moments.fit(PooledSites([Matrix(x, np.zeros(50, dtype=np.int64))]), 1)
    np.testing.assert_allclose(np.abs(ours.standardise(x)).max(), ours.bound, rtol=1e-14)


def test_constant_columns_standardise_to_zero_and_missing_stays_missing():
    x = np.array([[0.1, 1], [0.1, np.nan], [0.1, 3]])
    z = moments.fit(PooledSites([Matrix(x, np.zeros(3, dtype=np.int64))]), 2).standardise(x)
    np.testing.assert_allclose(z, [[0, -(0.5**0.5)], [0, np.nan], [0, 0.5**0.5]])


def test_values_beyond_the_accumulator_are_refused_without_telling_them(rows):
    for value in (np.inf, -1e19):
        spoiled = rows._replace(x=np.where(np.arange(32) == 4, value, rows.x))
        with pytest.raises(SumRefused, match="column 4 holds a value beyond") as refusal:
            moments.fit(PooledSites([spoiled]), 32)
        assert "inf" not in str(refusal.value)


def test_local_half_adds_over_rows(rows):
    centre = np.zeros((1, 32))
    check(moments.power_sums, rows, centre=centre, power=1)
    check(moments.power_sums, rows, centre=np.ones((2, 32)), power=2)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(arrays(np.float64, (6, 2), elements=some.floats(-1e12, 1e12, allow_subnormal=False)))
def test_mean_is_correctly_rounded(x):
    x = np.where(np.abs(x) < 1e-20, 0, x)  # below 2**-107 the last bits of a double fall off the accumulator
    ours = moments.fit(PooledSites([Matrix(x[:2], np.zeros(2, int)), Matrix(x[2:], np.zeros(4, int))]), 2)
    assert ours.mean.tolist() == [float(sum(map(Fraction, column)) / 6) for column in x.T]


@pytest.mark.parametrize("power", [0, 3, 40])
def test_other_powers_do_not_leave(power):
    rows = Matrix(np.ones((3, 1)), np.zeros(3, np.int64))
    with pytest.raises(SumRefused, match="no other power"):
        moments.power_sums.local(rows, centre=np.zeros((1, 1)), power=power)
