"""Masks: the keys and the keystreams that hide one site's numbers until all sites' numbers are added.

Keys come from HKDF-SHA256, a mask is the AES-256-CTR keystream of a 31-byte seed over a whole buffer, made and added in
pieces that stay in cache. Pairwise masks cancel in the sum (Bonawitz et al., Practical secure aggregation, CCS 2017).
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from numpy.typing import NDArray

SEED = 31  # bytes; as an integer always below 2^255 - 19, the field of the shares
CHUNK = 1 << 17  # bytes of keystream at a time
_ZEROS = memoryview(bytes(CHUNK))
_PROTOCOL = "cohortium secure sum 1"

Part = bytes | str | int | Sequence[Any]


def digest(purpose: str, *parts: Part) -> bytes:
    """SHA-256 of a purpose and of parts, each with its type and length, so that different inputs stay different.

    Parts are bytes, texts, integers of 64 bits and sequences of them.
    """
    state = hashlib.sha256()
    for part in (_PROTOCOL, purpose, *parts):
        if isinstance(part, str):
            kind, data = b"s", part.encode()
        elif isinstance(part, int):
            kind, data = b"i", part.to_bytes(8, "little", signed=True)
        elif isinstance(part, bytes | bytearray | memoryview):
            kind, data = b"b", part
        else:
            kind, data = b"l", digest("list", *part)
        state.update(kind + len(data).to_bytes(8, "little"))
        state.update(data)
    return state.digest()


def derive(secret: bytes, salt: bytes, purpose: str, *parts: Part) -> bytes:
    """32-byte key out of a secret that need not be uniform: HKDF, RFC 5869."""
    return HKDF(SHA256(), 32, salt, digest(purpose, *parts)).derive(secret)


def expand(key: bytes, size: int, purpose: str, *parts: Part) -> bytes:
    """`size` bytes out of a uniform key, for one purpose: HKDF-Expand."""
    return HKDFExpand(SHA256(), size, digest(purpose, *parts)).derive(key)


def apply(lanes: Iterable[NDArray[Any]], plus: Sequence[bytes], minus: Sequence[bytes]) -> None:
    """Add the keystreams of the seeds `plus`, and subtract those of `minus`, in place.

    Parameters
    ----------
    lanes : iterable of flat uint64 or uint32 arrays
        One keystream runs over all of them, one after the other; arithmetic wraps.
    plus, minus : sequences of 31-byte seeds
    """
    streams = [(_keystream(seed), np.add) for seed in plus] + [(_keystream(seed), np.subtract) for seed in minus]
    scratch = np.empty(CHUNK, np.uint8)
    for lane in lanes:
        words = CHUNK // lane.itemsize
        mask = scratch.view(lane.dtype)
        for start in range(0, len(lane), words):
            part = lane[start : start + words]  # stays in cache while all masks pass over it
            for stream, add in streams:
                stream.update_into(_ZEROS[: part.nbytes], scratch)
                add(part, mask[: len(part)], out=part)


def _keystream(seed: bytes) -> Any:
    # the zero nonce is right: every seed serves one sum, and its key one stream
    return Cipher(algorithms.AES256(digest("prg", seed)), modes.CTR(bytes(16))).encryptor()
