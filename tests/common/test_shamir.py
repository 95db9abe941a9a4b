"""Shamir: any T shares give the secret, a wrong one is noticed."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortium.common import shamir
from cohortium.common.errors import SumVoid
from cohortium.common.masks import SEED


def test_the_published_example(monkeypatch):
    """f(x) = 1234 + 166 x + 94 x^2, Wikipedia, "Shamir's secret sharing", preparation of the example."""
    coefficients = iter([94, 166])  # highest power first
    monkeypatch.setattr(shamir.randomness, "randbelow", lambda below: next(coefficients))
    rows = shamir.split([(1234).to_bytes(SEED, "little")], threshold=3, holders=6)
    assert [int.from_bytes(row[0], "little") for row in rows] == [1494, 1942, 2578, 3402, 4414, 5614]
    points = {1: rows[1], 3: rows[3], 4: rows[4]}
    assert int.from_bytes(shamir.join(points, 3)[0], "little") == 1234


@given(st.integers(2, 6), st.data())
def test_any_threshold_of_holders_join(holders, data):
    threshold = data.draw(st.integers(1, holders))
    secrets = data.draw(st.lists(st.binary(min_size=SEED, max_size=SEED), min_size=1, max_size=3))
    rows = shamir.split(secrets, threshold, holders)
    who = data.draw(st.lists(st.integers(0, holders - 1), min_size=threshold, unique=True))
    assert shamir.join({i: rows[i] for i in who}, threshold) == secrets


def test_too_few_holders():
    rows = shamir.split([bytes(SEED)], 3, 5)
    with pytest.raises(SumVoid, match="2 sites"):
        shamir.join({0: rows[0], 4: rows[4]}, 3)


def test_shares_below_the_threshold_fit_every_secret():
    """The polynomial through T - 1 shares and any other secret exists, so that they say nothing about the secret."""
    rows = shamir.split([b"\x07" * SEED], 3, 5)
    points = {x: [int.from_bytes(rows[x - 1][0], "little")] for x in (2, 4)}
    for other in (0, 1, 12345):
        points[0] = [other]
        third = shamir._interpolate(points, [0, 2, 4], 1)[0].to_bytes(32, "little")
        assert shamir.join({0: [third], 1: rows[1], 3: rows[3]}, 3) == [other.to_bytes(SEED, "little")]


def test_the_polynomials_are_fresh():
    a, b = (shamir.split([bytes(SEED)] * 2, 2, 3) for _ in range(2))
    values = [share for rows in (a, b) for row in rows for share in row]
    assert len(set(values)) == len(values)


def test_one_wrong_share_is_noticed():
    rng = random.Random(0)
    rows = shamir.split([rng.randbytes(SEED) for _ in range(2)], 3, 5)
    for holder, secret in itertools.product(range(5), range(2)):
        wrong = [list(row) for row in rows]
        wrong[holder][secret] = rng.randbytes(32)
        with pytest.raises(SumVoid):
            shamir.join(dict(enumerate(wrong)), 3)
    exact = {i: [rng.randbytes(32)] for i in range(3)}  # no share to spare: the secret is no seed
    with pytest.raises(SumVoid):
        shamir.join(exact, 3)
