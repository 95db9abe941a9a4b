"""Masks: the keystream is AES-256 in counter mode, and what is added can be taken away."""

import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from cohortium.common import masks

SEED = bytes(range(31))


def keystream(seed: bytes, size: int) -> bytes:
    """AES-256 of the block numbers 0, 1, ...: NIST SP 800-38A, section 6.5, written out."""
    blocks = b"".join(number.to_bytes(16, "big") for number in range(-(-size // 16)))
    encryptor = Cipher(algorithms.AES256(masks.digest("prg", seed)), modes.ECB()).encryptor()
    return (encryptor.update(blocks) + encryptor.finalize())[:size]


@pytest.mark.parametrize("wide", [0, 1, 5, masks.CHUNK // 8 - 1, masks.CHUNK // 8 + 3])
@pytest.mark.parametrize("narrow", [0, 1, 7, masks.CHUNK // 4 + 1])
def test_the_stream_runs_over_both_lanes(wide, narrow):
    lanes = np.zeros(wide, np.uint64), np.zeros(narrow, np.uint32)
    masks.apply(lanes, plus=[SEED], minus=[])
    assert lanes[0].tobytes() + lanes[1].tobytes() == keystream(SEED, 8 * wide + 4 * narrow)


def test_what_is_added_can_be_taken_away():
    rng = np.random.default_rng(0)
    lanes = rng.integers(0, 2**63, 40_000).astype(np.uint64), rng.integers(0, 2**32, 50_001).astype(np.uint32)
    before = [lane.copy() for lane in lanes]
    seeds = [bytes([i]) * 31 for i in range(4)]
    masks.apply(lanes, plus=seeds[:2], minus=seeds[2:])
    assert all((lane != old).mean() > 0.99 for lane, old in zip(lanes, before, strict=True))
    masks.apply(lanes, plus=[], minus=[seeds[1]])
    masks.apply(lanes, plus=[seeds[3], seeds[2]], minus=[seeds[0]])
    for lane, old in zip(lanes, before, strict=True):
        np.testing.assert_array_equal(lane, old)


leaves = st.one_of(st.binary(max_size=8), st.text(max_size=4), st.integers(-(2**62), 2**62))
parts = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


@given(st.lists(parts, max_size=4), st.lists(parts, max_size=4))
def test_different_parts_have_different_digests(one, other):
    assert (masks.digest("x", *one) == masks.digest("x", *other)) == (one == other)


def test_near_misses_differ():
    inputs = [(), ("",), (b"",), ((),), ("a", "b"), ("ab",), (b"ab",), (("a", "b"),), (("a",), "b"), (0,), (bytes(8),)]
    digests = [masks.digest("x", *parts) for parts in inputs] + [masks.digest("y")]
    assert all(a != b for a, b in itertools.combinations(digests, 2))


def test_expanded_keys_differ_by_purpose_and_size():
    key = bytes(32)
    assert len(masks.expand(key, 31, "mask", b"t")) == 31
    assert masks.expand(key, 32, "mask", b"t") != masks.expand(key, 32, "share", b"t")
    assert masks.derive(key, b"salt", "pair", "a", "b") != masks.derive(key, b"other", "pair", "a", "b")
