"""Shares on their way: one site's seeds as Shamir shares, each holder's encrypted for that holder only.

The server carries them from maker to holder and can read none. A share that opens proves to its holder that the maker
took part in this very sum, under this very transcript.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cohortium.common import masks, shamir
from cohortium.common.errors import SumRefused

NONCE = 12  # bytes, random; a key serves one blob


def seal(
    maker: str, seeds: Mapping[str, bytes], keys: Mapping[str, bytes], transcript: bytes, threshold: int
) -> dict[str, bytes]:
    """For each holder one blob: its share of every seed, in the sorted order of the holders.

    Parameters
    ----------
    seeds : mapping of holder to 31 bytes
        The holders are the maker and its neighbours. In the maker's own place its own mask's seed, in another's the
        seed of their common mask.
    keys : mapping of site to 32 bytes
        What the maker shares with each.
    """
    names = sorted(seeds)
    rows = shamir.split([seeds[name] for name in names], threshold, len(names))
    blobs = {}
    for holder, row in zip(names, rows, strict=True):
        nonce = os.urandom(NONCE)
        cipher, bound_to = _cipher(keys[holder], transcript, maker, holder)
        blobs[holder] = nonce + cipher.encrypt(nonce, b"".join(row), bound_to)
    return blobs


def unseal(maker: str, holder: str, blob: Any, key: bytes, transcript: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """The shares in one blob, by place; `names` are the maker's holders, sorted.

    Raises
    ------
    SumRefused
        The maker did not make it for this holder and this sum.
    """
    cipher, bound_to = _cipher(key, transcript, maker, holder)
    try:
        row = cipher.decrypt(blob[:NONCE], blob[NONCE:], bound_to)
    except (InvalidTag, TypeError, ValueError):
        raise SumRefused(
            "secure sum", f"the share of site {maker} does not open: it was made for another sum"
        ) from None
    if len(row) != len(names) * shamir.SHARE:
        raise SumRefused("secure sum", f"the share of site {maker} is incomplete")
    return {name: row[place * shamir.SHARE :][: shamir.SHARE] for place, name in enumerate(names)}


def _cipher(key: bytes, transcript: bytes, maker: str, holder: str) -> tuple[AESGCM, bytes]:
    """Cipher of one blob, and the data that it authenticates beside it."""
    return AESGCM(masks.expand(key, 32, "share", transcript, maker, holder)), masks.digest(
        "blob", transcript, maker, holder
    )
