"""Quantiles: equal to numpy's up to the 32 bits they stop at, exact for integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer

from cohortium.common.federation import PooledSites
from cohortium.strategies import quantiles
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split

QUARTILES = [0.25, 0.5, 0.75]
CUT = 2.0**-20  # relative: 20 bits of fraction are kept


@pytest.fixture(scope="module")
def rows() -> Matrix:
    """breast_cancer on many scales and both signs, 8 % missing, ties, an integer column and one without values."""
    data = load_breast_cancer()
    rng = np.random.default_rng(5)
    x = data.data * np.logspace(-12, 12, 30)
    x[:, 7:12] -= np.median(x[:, 7:12], axis=0)
    x[:, 4] = np.round(data.data[:, 4], 2)
    x[rng.random(x.shape) < 0.08] = np.nan
    age = rng.integers(-90, 90, 569).astype(float)
    return Matrix(x=np.column_stack([x, age, np.full(569, np.nan)]), group=1 - data.target)


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equal_numpys_quantiles(rows, kind):
    federation = kind(odd_sites(rows, rows.group))
    ours = quantiles.fit(federation, QUARTILES)
    assert federation.rounds == 4
    expected = np.nanquantile(rows.x[:, :31], QUARTILES, axis=0).T
    extent = np.nanmax(np.abs(rows.x[:, :31]), axis=0)[:, None] * 1e-3  # where the two neighbours differ in sign
    assert (np.abs(ours[:31] - expected) <= CUT * np.maximum(np.abs(expected), extent)).all()
    np.testing.assert_array_equal(ours[30], expected[30])  # integers
    assert np.isnan(ours[31]).all()


def test_median_imputation_as_in_scikit_learn(rows):
    ours = quantiles.fit(PooledSites(split(rows, [249, 171, 100, 49])), [0.5])[:31, 0]
    theirs = SimpleImputer(strategy="median").fit(rows.x[:, :31]).statistics_
    np.testing.assert_allclose(ours[np.arange(31) < 7], theirs[:7], rtol=CUT)
    np.testing.assert_array_equal(ours[30], theirs[30])


def test_groups(rows):
    ours = quantiles.fit_groups(PooledSites(odd_sites(rows, rows.group)), QUARTILES, groups=2)
    for code in (0, 1):
        expected = np.nanquantile(rows.x[rows.group == code, :7], QUARTILES, axis=0).T
        np.testing.assert_allclose(ours[code, :7], expected, rtol=CUT)


@pytest.mark.parametrize("sizes", [[569], [0, 568, 1], [1] * 60 + [509]])
def test_sites_change_no_bit(rows, sizes):
    one = quantiles.fit(PooledSites([rows]), QUARTILES)
    np.testing.assert_array_equal(quantiles.fit(PooledSites(split(rows, sizes)[::-1]), QUARTILES), one)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    arrays(np.int64, some.tuples(some.integers(1, 9), some.just(2)), elements=some.integers(-(2**21), 2**21)),
    some.lists(some.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=3),
)
def test_integers_are_exact_at_all_ranks(x, probabilities):
    federation = PooledSites([Matrix(x.astype(np.float64), np.zeros(len(x), dtype=np.int64))])
    np.testing.assert_array_equal(quantiles.fit(federation, probabilities), np.quantile(x, probabilities, axis=0).T)


def test_a_long_value_is_shown_to_six_digits_only():
    x = np.array([[np.pi, -np.pi, np.pi * 1e300, -np.pi * 1e-300, -0.0]])
    shown = quantiles.fit(PooledSites([Matrix(x, np.zeros(1, dtype=np.int64))]), [0.5])[:, 0]
    assert (shown[:4] != x[0, :4]).all()
    np.testing.assert_allclose(shown, x[0], rtol=CUT)


def test_local_halves_add_over_rows(rows):
    check(quantiles.top_bytes, rows, groups=2)
    some_cells = np.unique(np.random.default_rng(1).integers(0, 2 * 32 * 256, 300))
    check(quantiles.next_bytes, rows, groups=2, cells=some_cells, depth=1)


def test_no_columns_at_all(rows):
    nothing = rows._replace(x=np.empty((569, 0)))
    assert quantiles.fit(PooledSites([nothing]), QUARTILES).shape == (0, 3)


@given(some.integers(-(10**6) + 1, 10**6 - 1), some.integers(-12, 12))
def test_a_value_of_six_digits_is_found_exactly(digits, exponent):
    value = float(f"{digits}e{exponent}")
    rows = Matrix(x=np.full((3, 1), value), group=np.zeros(3, dtype=np.int64))
    assert quantiles.fit(PooledSites([rows]), [0.5])[0, 0] == value


def test_the_shortest_decimal_of_an_interval():
    low, high = np.array([0.69999, 0.0, 123.4, 1e300, 5e-324]), np.array([0.70001, 1e-9, 123.6, 1e300, 5e-324])
    np.testing.assert_array_equal(quantiles.shortest_decimal(low, high)[:3], [0.7, 0.0, 123.4])
    assert quantiles.shortest_decimal(low, high)[3] == 1e300
    assert (quantiles.shortest_decimal(low, high) >= low).all()
