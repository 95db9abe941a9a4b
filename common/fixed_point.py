"""Fixed point: real numbers as integers that add exactly, for sums that must be equal to the last bit.

A float64 x travels as rint(x 2^f) in two's complement in a uint64, a count as itself (f = 0), a network weight
(float32) as rint(x 2^f) in a uint32. Integer addition modulo 2^64 has no order and no rounding, so a masked total is
the plain total. What would not fit is refused at the site before the cast: nothing wraps, clips or rounds silently.

Rounding error of a total over n sites: at most n 2^-(f+1).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import Overflow, SumRefused

MOST_BITS = 40
LEAST_BITS = 24  # f = 24 already costs 6e-8 in logistic coefficients; below it a fit would be no fit
HEAD_ROOM = 61  # a right total stays below 2^61 in magnitude: two spare bits tell a wrong one
WEIGHT_BITS = 29  # the same two spare bits in 32
_BLOCK = 1 << 16  # elements handled at a time: the temporaries stay in cache


def fraction_bits(bound: float, sites: int) -> int:
    """Fraction bits f for float64 elements of at most `bound` in magnitude at each of `sites` sites.

    Raises
    ------
    SumRefused
        Fewer than 24 bits are left.
    """
    if not 0 < bound < math.inf or sites < 1:
        raise SumRefused("fixed point", f"bound {bound:g} over {sites} sites: both must be positive and finite")
    bits = math.floor(HEAD_ROOM - math.log2(sites) - math.log2(bound))
    if bits < LEAST_BITS:
        raise SumRefused(
            "fixed point",
            f"a bound of {bound:g} over {sites} sites leaves {bits} fraction bits, {LEAST_BITS} are needed; "
            "standardise the variables or lower the bound",
        )
    return min(MOST_BITS, bits)


def weight_bits(bound: float) -> int:
    """Fraction bits of network weights of at most `bound` in magnitude: 29 - log2(bound), rounded down."""
    if not 2.0**-64 <= bound <= 2.0**64:
        raise SumRefused("fixed point", f"bound {bound:g} on network weights is outside 2^-64 to 2^64")
    return WEIGHT_BITS - math.ceil(math.log2(bound))


def limit(sites: int) -> int:
    """Largest magnitude of one site's integer in 64 bits, so that the sum over any of the sites stays within 2^61."""
    return (1 << HEAD_ROOM) // sites


def weight_limit(sites: int) -> int:
    """Largest magnitude of one site's integer in 32 bits.

    That is the bound itself (2^29) up to three sites. Above, a site is held to (2^31 - 1) / n, so that no sum can wrap
    whatever the sites' factors are; a weighted mean (factors n_u / N) rarely meets this, and is asked again with a
    doubled bound where it does.
    """
    return min(1 << WEIGHT_BITS, ((1 << 31) - 1) // sites)


def encode(values: NDArray[Any], bits: int, sites: int, what: str = "a sum") -> NDArray[np.uint64]:
    """Integers modulo 2^64 of int64 counts (bits = 0) or float64 numbers.

    Parameters
    ----------
    values : array of int64 or float64
    bits : int
        Fraction bits; 0 for counts.
    sites : int
        Number of sites of the roster; sets the head-room.
    what : str
        Public name for the error text.

    Raises
    ------
    Overflow
        An element exceeds 2^61 / sites once scaled. The text holds no value.
    SumRefused
        An element is not a finite number, or the dtype is another.
    """
    out = np.empty(values.size, np.uint64)
    encode_into(out, values, bits, sites, what)
    return out.reshape(values.shape)


def encode_weights(values: NDArray[np.float32], bits: int, sites: int, what: str = "a sum") -> NDArray[np.uint32]:
    """Integers modulo 2^32 of float32 network weights; arguments and errors as for `encode`."""
    out = np.empty(values.size, np.uint32)
    encode_into(out, values, bits, sites, what)
    return out.reshape(values.shape)


def encode_into(out: NDArray[Any], values: NDArray[Any], bits: int, sites: int, what: str) -> None:
    """Encode into a flat uint64 lane (from int64 or float64) or uint32 lane (from float32)."""
    lane = out.dtype.itemsize
    if values.dtype not in ((np.int64, np.float64) if lane == 8 else (np.float32,)):
        raise SumRefused(what, f"elements of dtype {values.dtype} do not travel here; use int64, float64 or float32")
    if values.dtype == np.int64 and bits:
        raise SumRefused(what, "counts travel with no fraction bits")
    largest = limit(sites) if lane == 8 else weight_limit(sites)
    signed = out.view(np.int64 if lane == 8 else np.int32)
    flat = values.reshape(-1)
    scratch = np.empty(min(_BLOCK, flat.size), values.dtype)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        if values.dtype.kind == "f":
            scaled = scratch[: len(part)]
            with np.errstate(over="ignore"):  # an infinite product is refused below
                np.multiply(part, values.dtype.type(2.0**bits), out=scaled)  # by a power of two: exact
            part = np.rint(scaled, out=scaled)
        _within(part, largest, what)
        signed[start : start + len(part)] = part


def decode(total: NDArray[np.uint64], bits: int) -> NDArray[np.float64]:
    """Float64 numbers of a total of `encode`; the integers themselves are ``total.view(np.int64)``."""
    return np.multiply(total.view(np.int64), 2.0**-bits, dtype=np.float64)


def decode_weights(total: NDArray[np.uint32], bits: int) -> NDArray[np.float32]:
    """Float32 numbers of a total of `encode_weights`."""
    return total.view(np.int32).astype(np.float32) * np.float32(2.0**-bits)


def _within(part: NDArray[Any], largest: int, what: str) -> None:
    # never abs(part) > largest: the magnitude of the smallest int64 is negative. Python compares a float and an int
    # exactly, and a NaN fails every comparison.
    low, high = part.min().item(), part.max().item()
    if low >= -largest and high <= largest:
        return
    if not (math.isfinite(low) and math.isfinite(high)):
        raise SumRefused(
            what, "a number is not finite; nothing was sent. Look for missing values in the prepared table"
        )
    raise Overflow(what, "a number does not fit the range of this sum; nothing was sent. Ask again with a wider bound")
