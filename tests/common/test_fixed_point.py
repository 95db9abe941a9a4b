"""Fixed point: exact, refused before it could wrap."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortium.common import fixed_point
from cohortium.common.errors import Overflow, SumRefused


@pytest.mark.parametrize(
    ("bound", "sites", "bits"),
    # floor(61 - log2 sites - log2 bound), at most 40: by hand
    [(2.0**20, 2, 40), (2.0**20, 3, 39), (2.0**20, 4, 39), (2.0**20, 5, 38), (1.0, 50, 40), (2.0**35, 4, 24)],
)
def test_fraction_bits(bound, sites, bits):
    assert fixed_point.fraction_bits(bound, sites) == bits


@pytest.mark.parametrize(("bound", "sites"), [(2.0**36, 4), (np.inf, 4), (np.nan, 4), (0.0, 4), (-1.0, 4), (1.0, 0)])
def test_a_step_that_is_too_coarse_is_refused(bound, sites):
    with pytest.raises(SumRefused):
        fixed_point.fraction_bits(bound, sites)


@pytest.mark.parametrize(("bound", "bits"), [(1.0, 29), (0.5, 30), (2.0, 28), (3.0, 27), (2.0**-10, 39)])
def test_weight_bits(bound, bits):
    assert fixed_point.weight_bits(bound) == bits


@given(st.lists(st.floats(-(2.0**19), 2.0**19), min_size=1), st.integers(24, 40))
def test_the_error_is_half_a_step(values, bits):
    x = np.array(values)
    back = fixed_point.encode(x, bits, 3).view(np.int64).tolist()
    for value, integer in zip(values, back, strict=True):
        assert abs(Fraction(integer, 2**bits) - Fraction(value)) <= Fraction(1, 2 ** (bits + 1))


@given(st.integers(1, 64), st.sampled_from([-1, 1]))
def test_all_sites_at_the_limit_do_not_wrap(sites, sign):
    largest = fixed_point.limit(sites)
    encoded = fixed_point.encode(np.array([sign * largest]), 0, sites)
    total = np.zeros(1, np.uint64)
    for _ in range(sites):
        total += encoded
    assert total.view(np.int64)[0] == sign * largest * sites

    largest = min(2**29, (2**31 - 1) // sites)
    assert largest == fixed_point.weight_limit(sites)
    share = np.float32(largest)
    share = share if float(share) <= largest else np.nextafter(share, np.float32(0))
    encoded = fixed_point.encode_weights(np.array([sign * share]), 0, sites)
    total = np.zeros(1, np.uint32)
    for _ in range(sites):
        total += encoded
    assert total.view(np.int32)[0] == sign * int(share) * sites


@pytest.mark.parametrize("sites", [1, 3, 4, 7, 64])
def test_one_beyond_the_limit_is_refused(sites):
    largest = 2**61 // sites
    for value in (largest + 1, -largest - 1, np.iinfo(np.int64).min, np.iinfo(np.int64).max):
        with pytest.raises(Overflow):
            fixed_point.encode(np.array([0, value]), 0, sites)
    edge = np.ldexp(1.0, 61) / sites * (1 + 1e-15)
    for value in (edge, -edge, 1e300, 1e308):
        with pytest.raises(Overflow):
            fixed_point.encode(np.array([value * 2.0**-30, 0.0]), 30, sites)
    with pytest.raises(Overflow):
        fixed_point.encode_weights(np.array([1.001 * fixed_point.weight_limit(sites)], np.float32), 0, sites)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    for encode, dtype in ((fixed_point.encode, np.float64), (fixed_point.encode_weights, np.float32)):
        x = np.zeros(70_000, dtype)  # more than one block
        x[-1] = value
        with pytest.raises(SumRefused, match="not finite") as refusal:
            encode(x, 30, 3)
        assert not isinstance(refusal.value, Overflow)  # a wider bound would not help


def test_an_error_names_the_field_and_no_value():
    with pytest.raises(Overflow) as refusal:
        fixed_point.encode(np.array([123456789.0]), 40, 3, "logistic.terms")
    assert refusal.value.what == "logistic.terms"
    assert "123" not in str(refusal.value)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint64, np.bool_, np.complex128])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(SumRefused, match="dtype"):
        fixed_point.encode(np.zeros(2, dtype), 0, 3)


def test_counts_have_no_fraction():
    with pytest.raises(SumRefused, match="fraction"):
        fixed_point.encode(np.ones(2, np.int64), 1, 3)


def test_shapes_and_empty_arrays_pass():
    assert fixed_point.encode(np.ones((2, 3)), 30, 3).shape == (2, 3)
    assert fixed_point.decode(fixed_point.encode(np.empty(0), 30, 3), 30).shape == (0,)
    x = np.array([[0.5, -0.25]], np.float32)
    np.testing.assert_array_equal(fixed_point.decode_weights(fixed_point.encode_weights(x, 29, 3), 29), x)
    np.testing.assert_array_equal(fixed_point.decode(fixed_point.encode(x.astype(float), 40, 3), 40), x)
