"""Graph: which sites share a mask. All pairs up to 64 sites, k neighbours of each site above.

The neighbours are drawn from the roster, which no one can choose (it holds every site's fresh key): sites in a random
circle, each joined to the k/2 on either side. A site's neighbours hold the shares of its masks, t of which open one.
k and t are the smallest for which the promises of the complete graph fail with a negligible probability only. With
fewer than a third of all sites working with the server, and up to a third missing:

- secrecy, 2^-40: some honest site has t neighbours who work with the server; or the honest survivors fall apart into
  groups whose sums could be told apart, for which k/2 neighbours in a row must be missing or dishonest;
- recovery, 2^-20: some site has fewer than t neighbours who answer.

Bell, Bonawitz, Gascon, Lepoint, Raykova, Secure single-server aggregation with (poly)logarithmic overhead, CCS 2020.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common import masks

MOST_COMPLETE = 64
SECRECY_BITS = 40
RECOVERY_BITS = 20


class Degree(NamedTuple):
    """Neighbours k of a site, shares t that open a mask, and the probabilities (at most) that either promise fails."""

    neighbours: int
    shares: int
    secrecy_fails: float
    recovery_fails: float


@lru_cache(maxsize=64)
def degree(sites: int, least: int) -> Degree:
    """How many neighbours and shares a sum over so many sites takes.

    Parameters
    ----------
    sites : int
        n, of the roster.
    least : int
        T, sites that a total must cover; it is the number of shares, too, where the graph is complete.
    """
    complete = Degree(sites - 1, least, 0.0, 0.0)
    if sites <= MOST_COMPLETE or _choice(sites, largest := (sites - 2) // 2 * 2) is None:
        return complete
    low, high = 0, largest  # the smallest even k that will do, by bisection
    while high - low > 2:
        middle = (low + high) // 4 * 2
        low, high = (low, middle) if _choice(sites, middle) else (middle, high)
    return _choice(sites, high) or complete


def _choice(sites: int, k: int) -> Degree | None:
    """The fewest shares for k neighbours that keep both promises; None if none do. Exact: all sites must agree."""
    dishonest, missing = (sites - 1) // 3, sites // 3
    apart = Fraction(sites)  # some k/2 in a row of the circle are gone: a union bound over where they start
    for i in range(k // 2):
        apart *= Fraction(max(0, dishonest + missing - i), sites - i)
    of_dishonest, of_missing = (_at_least(sites - 1, marked, k) for marked in (dishonest, missing))
    for shares in range(1, k + 1):
        secrecy = sites * of_dishonest[shares] + apart
        if secrecy * 2**SECRECY_BITS <= 1:
            recovery = sites * of_missing[k - shares + 1]
            right = recovery * 2**RECOVERY_BITS <= 1
            return Degree(k, shares, float(secrecy), float(recovery)) if right else None
    return None


def _at_least(population: int, marked: int, draws: int) -> list[Fraction]:
    """P[X >= i] for i = 0..draws of the hypergeometric number X of marked among draws."""
    ways = [math.comb(marked, i) * math.comb(population - marked, draws - i) for i in range(draws + 1)]
    every = math.comb(population, draws)
    return [Fraction(tail, every) for tail in list(accumulate(reversed(ways)))[::-1]]


class Graph:
    """Who shares a mask with whom, and who holds shares of whose.

    Parameters
    ----------
    names : sequence of str
        Sites of the roster, sorted.
    seed : bytes
        Digest of the roster.
    least : int
        Sites that a total must cover.

    Attributes
    ----------
    shares : int
        Shares that open a mask.
    """

    def __init__(self, names: Sequence[str], seed: bytes, least: int) -> None:
        self.names = tuple(names)
        k, self.shares, *_ = degree(len(self.names), least)
        self._reach = k // 2 if k < len(self.names) - 1 else len(self.names)
        self._circle = _shuffled(len(self.names), seed)
        self._place = dict(zip((self.names[i] for i in self._circle), range(len(self.names)), strict=True))

    def holders(self, site: str) -> tuple[str, ...]:
        """The site itself and its neighbours, sorted; shares are numbered in this order."""
        if self._reach >= len(self.names):
            return self.names
        around = np.arange(self._place[site] - self._reach, self._place[site] + self._reach + 1) % len(self.names)
        return tuple(self.names[i] for i in np.sort(self._circle[around]))

    def neighbours(self, site: str) -> tuple[str, ...]:
        """The sites that share a mask with this one, sorted."""
        return tuple(name for name in self.holders(site) if name != site)


def _shuffled(size: int, seed: bytes) -> NDArray[np.int64]:
    """A permutation of 0..size-1 by sorting pseudorandom 64-bit keys; equal keys have a probability of 2^-40."""
    keys = np.zeros(size, np.uint64)
    masks.apply([keys], plus=[masks.digest("graph", seed)[: masks.SEED]], minus=[])
    return np.argsort(keys, kind="stable")
