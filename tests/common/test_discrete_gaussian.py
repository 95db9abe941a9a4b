"""Discrete Gaussian: the samples follow the law itself, to the last bit of the words they are made of."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy import stats

from cohortium.common import discrete_gaussian as module
from cohortium.common.discrete_gaussian import Keystream, discrete_gaussian

SAMPLES = 400_000


def probabilities(sigma):
    """Exact law within 12 sigma, by its definition (Canonne, Kamath & Steinke 2020, definition 1)."""
    y = np.arange(-12 * sigma, 12 * sigma + 1)
    weight = np.exp(-(y**2) / (2 * sigma**2))
    return y, weight / weight.sum()


def drawn(sigma, size=SAMPLES, key=b"k" * 32):
    return discrete_gaussian(sigma, size, Keystream(key))


@pytest.mark.parametrize("sigma", [1, 2, 4, 37])
def test_frequencies_are_those_of_the_law(sigma):
    y, p = probabilities(sigma)
    expected = p * SAMPLES
    common = expected >= 10
    observed = np.bincount(drawn(sigma) - y[0], minlength=len(y))[common]
    rest = SAMPLES - observed.sum()
    f_obs, f_exp = [*observed, rest], [*expected[common], SAMPLES - expected[common].sum()]
    assert stats.chisquare(f_obs, f_exp).pvalue > 1e-3  # one known stream: no luck is involved


@pytest.mark.parametrize("sigma", [1, 4, 1000, 1 << 20, 1 << 24])
def test_moments(sigma):
    x = drawn(sigma) / sigma
    y, p = probabilities(min(sigma, 1000))
    variance, fourth = [(p * (y / min(sigma, 1000)) ** k).sum() for k in (2, 4)]
    assert abs(x.mean()) < 4 * math.sqrt(variance / SAMPLES)
    assert abs((x**2).mean() - variance) < 4 * math.sqrt((fourth - variance**2) / SAMPLES)
    assert abs((x**4).mean() - fourth) < 4 * math.sqrt(96 / SAMPLES)  # var(z^4) = 105 - 9


@pytest.mark.parametrize("sigma", [4, 1 << 20])
def test_tails(sigma):
    x = np.abs(drawn(sigma)) / sigma
    for far in (2.0, 3.0, 4.0):
        y, p = probabilities(sigma) if sigma < 100 else (None, None)
        chance = 2 * stats.norm.sf(far) if y is None else p[np.abs(y) >= far * sigma].sum()
        expected = chance * SAMPLES
        assert abs(np.count_nonzero(x >= far) - expected) < 4 * math.sqrt(expected) + 1


def test_large_sigmas_use_every_residue():
    """No holes: the low bits are as even as those of a wide Gaussian are."""
    low = drawn(1 << 20) & 255
    assert stats.chisquare(np.bincount(low, minlength=256)).pvalue > 1e-3


def test_a_stream_gives_its_samples_again_and_another_gives_others():
    assert (drawn(9, 5000) == drawn(9, 5000)).all()
    assert (drawn(9, 5000) != drawn(9, 5000, b"other key of thirty-two bytes!!!")).any()
    assert (discrete_gaussian(9, 100, Keystream()) != discrete_gaussian(9, 100, Keystream())).any()


@pytest.mark.parametrize("sigma", [1, 5, 1 << 13, 1 << 24])
def test_doubles_decide_only_what_exact_arithmetic_decides_the_same(monkeypatch, sigma):
    fast = drawn(sigma, 600)
    monkeypatch.setattr(module, "_MARGIN", 1.0)  # everything is undecided
    assert (drawn(sigma, 600) == fast).all()


class Scripted:
    """A stream of chosen words."""

    def __init__(self, *words):
        self.left = list(words)

    def words(self, count):
        assert count == 1
        return np.array([self.left.pop(0)], np.uint64)


@pytest.mark.parametrize(("step", "smaller"), [(0, False), (-1, True)])
def test_more_bits_are_drawn_where_64_do_not_decide(step, smaller):
    """u shares 128 bits with exp(-2/3), but for the last: only a third word tells them apart."""
    with mpmath.workprec(400):
        bits = int(mpmath.floor(mpmath.exp(mpmath.mpf(-2) / 3) * mpmath.mpf(2) ** 128))
    stream = Scripted((bits + step) & (2**64 - 1), 2**64 - 1)
    below = module._exact_below(bits >> 64, 2, 3, stream)
    assert below is smaller
    assert len(stream.left) == int(smaller)  # the last word was needed in one case only


@pytest.mark.parametrize("whole", [1, 7])
def test_a_magnitude_at_the_edge_of_two(whole):
    """u = exp(-whole / 5), cut after 128 bits, lies just below it: |y| is `whole`, and one less just above."""
    with mpmath.workprec(400):
        bits = int(mpmath.floor(mpmath.exp(mpmath.mpf(-whole) / 5) * mpmath.mpf(2) ** 128))
    for last, expected in ((0, whole), (2**64 - 1, None)):
        stream = Scripted(bits & (2**64 - 1), last, *[0] * 4)
        found = module._exact_magnitude(5, bits >> 64, stream)
        with mpmath.workprec(600):
            u = mpmath.mpf((bits << 64) + last) / mpmath.mpf(2) ** 192
            assert found == int(mpmath.floor(-5 * mpmath.log(u)))
        assert expected in (None, found)


def test_a_word_of_zeros_is_followed_by_more():
    assert module._exact_magnitude(1, 0, Scripted(1 << 63)) == math.floor(65 * math.log(2))


@pytest.mark.parametrize("sigma", [0, -3, (1 << 24) + 1, 2.5, Fraction(7, 2)])
def test_a_sigma_out_of_range(sigma):
    with pytest.raises(ValueError, match="must be an integer"):
        drawn(sigma, 10)
