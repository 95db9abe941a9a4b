"""Shamir: a secret in shares, of which any T give it back and fewer say nothing about it.

Field: integers modulo 2^255 - 19. Holder i (0, 1, ...) gets the polynomial's value at i + 1; a secret is the value
at 0. Shamir, How to share a secret, CACM 1979.
"""

import secrets as randomness
from collections.abc import Mapping, Sequence

from cohortium.common.errors import SumVoid
from cohortium.common.masks import SEED

PRIME = 2**255 - 19
SHARE = 32  # bytes


def split(secrets: Sequence[bytes], threshold: int, holders: int) -> list[list[bytes]]:
    """Shares of several 31-byte secrets, ``[holder][secret]``, each on a fresh random polynomial."""
    polynomials = [
        [*(randomness.randbelow(PRIME) for _ in range(threshold - 1)), int.from_bytes(secret, "little")]
        for secret in secrets
    ]
    return [[_value(p, holder + 1).to_bytes(SHARE, "little") for p in polynomials] for holder in range(holders)]


def join(shares: Mapping[int, Sequence[bytes]], threshold: int) -> list[bytes]:
    """Secrets from the shares of at least `threshold` holders.

    Parameters
    ----------
    shares : mapping of holder to its shares, one a secret, in one order for all
    threshold : int

    Raises
    ------
    SumVoid
        Too few holders, or shares that do not belong together: every share beyond the threshold must lie on the
        polynomial of the others, and the secret must be 31 bytes.
    """
    holders = sorted(shares)
    if len(holders) < threshold:
        raise SumVoid(f"{len(holders)} sites gave shares, {threshold} are needed; ask the others again")
    points = {holder + 1: [int.from_bytes(share, "little") for share in shares[holder]] for holder in holders}
    used, spare = list(points)[:threshold], list(points)[threshold:]
    for x in spare:
        if _interpolate(points, used, x) != points[x]:
            raise SumVoid("the shares of a sum do not belong together: a site answered wrongly; the sum is discarded")
    found = _interpolate(points, used, 0)
    if any(value >> 8 * SEED for value in found):
        raise SumVoid("the shares of a sum give no mask: a site answered wrongly; the sum is discarded")
    return [value.to_bytes(SEED, "little") for value in found]


def _value(polynomial: Sequence[int], x: int) -> int:
    total = 0
    for (
        coefficient
    ) in polynomial:  # Horner, highest power first; x is small, so that one division at the end is cheaper
        total = total * x + coefficient
    return total % PRIME


def _interpolate(points: Mapping[int, Sequence[int]], used: Sequence[int], at: int) -> list[int]:
    # Lagrange: one weight a used point, the same for every secret
    weights = []
    for i in used:
        above = below = 1
        for j in used:
            if j != i:
                above, below = above * (at - j) % PRIME, below * (i - j) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    columns = zip(*(points[i] for i in used), strict=True)
    return [sum(w * y for w, y in zip(weights, column, strict=True)) % PRIME for column in columns]
