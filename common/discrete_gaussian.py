"""Discrete Gaussian: exact samples of integer noise for sums under differential privacy, from a cryptographic stream.

P(y) is proportional to exp(-y^2 / (2 sigma^2)) on the integers. A two-sided geometric proposal with P(|y| >= k) =
exp(-k / sigma) is kept with probability exp(-(|y| - sigma)^2 / (2 sigma^2)) (Canonne, Kamath & Steinke, The discrete
Gaussian for differential privacy, NeurIPS 2020, algorithm 3 with t = sigma).

Both steps compare a uniform real number, of which 64 bits are drawn, with the exponential of a rational. Doubles
decide where their error cannot matter; where it could (once in millions), more bits are drawn and decimal arithmetic of
as many digits as it takes decides. The samples therefore follow the law itself, with none of the holes that noise made
of doubles has (Mironov, On significance of the least significant bits for differential privacy, CCS 2012).
"""

import math
import secrets
from decimal import Context, Decimal, localcontext

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

LARGEST_SIGMA = 1 << 24
"""Above it, doubles would leave too many proposals undecided."""

_BLOCK = 1 << 15  # proposals at a time: the temporaries stay in cache
_MARGIN = 2.0**-44  # several times the error of a logarithm below 44.4, and of an exponential below 1, in doubles


class Keystream:
    """Words of an AES-256-CTR keystream.

    Parameters
    ----------
    key : bytes, optional
        32 bytes; unset: from the operating system, which is what noise that leaves a site must use. A known key makes
        a known stream, for tests.
    """

    def __init__(self, key: bytes | None = None) -> None:
        key = secrets.token_bytes(32) if key is None else key
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` uniform words of 64 bits, (count,)."""
        return np.frombuffer(self._cipher.update(bytes(8 * count)), "<u8")


def discrete_gaussian(sigma: int, size: int, stream: Keystream) -> NDArray[np.int64]:
    """Independent samples, (size,).

    Parameters
    ----------
    sigma : int
        1 to 2^24. The standard deviation is sigma up to a relative 1e-7 at sigma = 1, and 1e-60 from sigma = 4 on.
    size : int
    stream : Keystream

    Raises
    ------
    ValueError
        `sigma` is outside its range.
    """
    if not 1 <= sigma <= LARGEST_SIGMA or sigma != int(sigma):
        raise ValueError(f"sigma = {sigma}: must be an integer from 1 to {LARGEST_SIGMA}")
    samples = np.empty(size, np.int64)
    filled = 0
    while filled < size:
        # 76 % of the proposals are kept
        kept = _proposals(sigma, min(_BLOCK, 64 + (size - filled) * 4 // 3), stream)[: size - filled]
        samples[filled : filled + len(kept)] = kept
        filled += len(kept)
    return samples


def _proposals(sigma: int, count: int, stream: Keystream) -> NDArray[np.int64]:
    """Those of `count` proposals that are kept, in order."""
    size = _magnitudes(sigma, stream.words(count), stream)
    kept = _accepted(sigma, size, stream.words(count), stream)
    negative = np.unpackbits(stream.words(-(-count // 64)).view(np.uint8), count=count).view(np.bool_)
    kept &= ~(negative & (size == 0))  # or zero would come twice as often
    return np.where(negative, -size, size)[kept]


def _magnitudes(sigma: int, words: NDArray[np.uint64], stream: Keystream) -> NDArray[np.int64]:
    """|y| with P(|y| >= k) = exp(-k / sigma): the whole part of -sigma log u."""
    # the half keeps the logarithm of word 0 finite; that word is always undecided
    word = words.astype(np.float64) + 0.5
    real = sigma * (64 * math.log(2) - np.log(word))
    whole = np.floor(real)
    above = real - whole
    margin = sigma * (_MARGIN + 1 / word)  # of the logarithm, and of the bits that are not drawn yet
    undecided = np.flatnonzero((above <= margin) | (above >= 1 - margin))
    found = whole.astype(np.int64)
    for i in undecided:
        found[i] = _exact_magnitude(sigma, int(words[i]), stream)
    return found


def _accepted(sigma: int, size: NDArray[np.int64], words: NDArray[np.uint64], stream: Keystream) -> NDArray[np.bool_]:
    """Whether u < exp(-(|y| - sigma)^2 / (2 sigma^2)), for each proposal."""
    chance = np.exp(-(((size - sigma) / sigma) ** 2) / 2)
    distance = chance - (words.astype(np.float64) + 0.5) * 2.0**-64
    found = distance > 0
    for i in np.flatnonzero(np.abs(distance) <= _MARGIN):
        found[i] = _exact_below(int(words[i]), (int(size[i]) - sigma) ** 2, 2 * sigma**2, stream)
    return found


def _exact_magnitude(sigma: int, word: int, stream: Keystream) -> int:
    """The whole part of -sigma log u, where u begins with the 64 bits of `word`."""
    bits = 64
    while True:
        with localcontext(_digits(bits)):
            slack = Decimal(10) ** -(bits // 3)
            ends = [-sigma * (Decimal(u) / (1 << bits)).ln() for u in (word + 1, word) if u]
            low, high = math.floor(ends[0] - slack), math.floor(ends[-1] + slack)
        if low == high and word:
            return low
        word, bits = (word << 64) | int(stream.words(1)[0]), bits + 64


def _exact_below(word: int, numerator: int, denominator: int, stream: Keystream) -> bool:
    """Whether u < exp(-numerator / denominator), where u begins with the 64 bits of `word`."""
    bits = 64
    while True:
        with localcontext(_digits(bits)):
            slack = Decimal(10) ** -(bits // 3)
            chance = (-Decimal(numerator) / denominator).exp() * (1 << bits)
            if word + 1 <= chance - slack:
                return True
            if word >= chance + slack:
                return False
        word, bits = (word << 64) | int(stream.words(1)[0]), bits + 64


def _digits(bits: int) -> Context:
    """Decimal arithmetic whose error is far below the slack: ln and exp are correctly rounded to all its digits."""
    return Context(prec=bits + 40)
