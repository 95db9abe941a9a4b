"""Secure sum: the masked total is the plain one, bit for bit, whoever drops out when; nothing else can be formed."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortium.common import fixed_point
from cohortium.common.errors import SumVoid
from cohortium.common.sum_layout import Entry, Layout
from cohortium.common.sum_setup import threshold

COUNTS = Layout((Entry("i8", 5, 0),))


def plain_total(layout, shares):
    """Totals by Python's integers, one element at a time."""
    totals = []
    for number, entry in enumerate(layout.entries):
        columns = zip(*(share[number].tolist() for share in shares), strict=True)
        scaled = ((Fraction(value) * Fraction(2) ** entry.bits for value in column) for column in columns)
        sums = [sum(round(value) for value in column) for column in scaled]
        dtype = {"i8": np.int64, "f8": np.float64, "w4": np.float32}[entry.kind]
        values = sums if entry.kind == "i8" else [dtype(total) * dtype(2.0**-entry.bits) for total in sums]
        totals.append(np.array(values, dtype=dtype))
    return totals


@st.composite
def federations(draw):
    """Layout and shares of 3 to 6 sites; some arrays are empty, some numbers at the edge of what fits."""
    sites = draw(st.integers(3, 6))
    entries = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["i8", "f8", "w4"]))
        bits = {"i8": 0, "f8": draw(st.integers(24, 40)), "w4": draw(st.integers(20, 40))}[kind]
        entries.append(Entry(kind, draw(st.integers(0, 9)), bits))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shares = []
    for _ in range(sites):
        share = []
        for kind, length, bits in entries:
            if kind == "i8":
                array = rng.choice([-1, 1], length) * (fixed_point.limit(sites) - rng.integers(0, 9, length))
            elif kind == "f8":
                array = rng.uniform(-0.999, 0.999, length) * fixed_point.limit(sites) * 2.0**-bits
            else:
                array = (rng.uniform(-0.999, 0.999, length) * fixed_point.weight_limit(sites)) * 2.0**-bits
                array = array.astype(np.float32)
            share.append(array)
        shares.append(share)
    return Layout(tuple(entries)), shares


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@settings(deadline=None, max_examples=40)
@given(federations())
def test_a_whole_sum_is_the_plain_sum(make_world, federation):
    layout, shares = federation
    world = make_world(len(shares))
    one = world.sum(layout)
    for name, share in zip(world.names, shares, strict=True):
        one.receive(name, world.masked(name, one.request, share))
    same(one.total(), plain_total(layout, shares))
    assert one.contributors == tuple(world.names)


@settings(deadline=None, max_examples=40)
@given(federations(), st.data())
def test_a_survivor_sum_is_the_plain_sum_of_the_survivors(make_world, federation, data):
    layout, shares = federation
    world = make_world(len(shares))
    least = threshold(len(shares), 3)
    there = data.draw(st.lists(st.sampled_from(world.names), min_size=least, unique=True))
    answers = data.draw(st.lists(st.sampled_from(there), min_size=least, unique=True))
    one = world.sum(layout, "survivors")
    for name in there:
        one.receive(name, world.masked(name, one.request, shares[world.names.index(name)]))
    requests = world.requests(one)
    assert set(requests) == set(there)
    for name in answers:
        one.receive_unmask(name, world.unmask(name, requests[name]))
    same(one.total(), plain_total(layout, [shares[world.names.index(name)] for name in there]))
    assert one.contributors == tuple(sorted(there))


def test_a_masked_answer_looks_like_noise(make_world):
    world = make_world(3)
    layout = Layout((Entry("f8", 4000, 40), Entry("w4", 4000, 29)))
    for mode in ("whole", "survivors"):
        one = world.sum(layout, mode)
        y = world.masked("h01", one.request, [np.zeros(4000), np.zeros(4000, np.float32)])["y"]
        counts = np.bincount(y, minlength=256)
        # chi-squared with 255 degrees of freedom; above 400 with probability 1e-8
        assert ((counts - y.size / 256) ** 2 / (y.size / 256)).sum() < 400


def test_equal_queries_have_other_masks_each_time(make_world):
    world = make_world(3)
    answers = [world.masked("h01", world.sum(COUNTS).request, [np.zeros(5, np.int64)])["y"] for _ in range(3)]
    answers.append(world.masked("h02", world.sum(COUNTS).request, [np.zeros(5, np.int64)])["y"])
    assert len({y.tobytes() for y in answers}) == 4


# Every way of dropping out -----------------------------------------------------------------------------------------

STATES = ("none", "late", "masked", "signed", "full")
"""Never answers; answers after it was given up; answers and is gone; signs and is gone; answers all messages."""


def known_sums(names, have, own_known, pairs_known):
    """Linear combinations of the sites' numbers that can be formed from masked answers: the left null space of masks.

    Each answer of u is x_u plus unknown masks: its own, and one with each other site, with opposite signs.
    """
    unknown = [("own", u) for u in names if u not in own_known]
    unknown += [pair for pair in itertools.combinations(names, 2) if pair not in pairs_known]
    sign = {u: [(kind == "own" and v == u) or (v == u and -1) or (kind == u) for kind, v in unknown] for u in have}
    rows = [
        [Fraction(int(entry)) for entry in sign[u]] + [Fraction(int(u == v)) for v in have] for u in have
    ]  # eliminated with the combinations that made them
    done = 0
    for column in range(len(unknown)):
        pivot = next((i for i in range(done, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[done], rows[pivot] = rows[pivot], rows[done]
        for i in range(done + 1, len(rows)):
            factor = rows[i][column] / rows[done][column]
            rows[i] = [a - factor * b for a, b in zip(rows[i], rows[done], strict=True)]
        done += 1
    return [dict(zip(have, row[len(unknown) :], strict=True)) for row in rows[done:]]


def opened(names, answers, least, insider=None, sent=()):
    """Masks that the shares in `answers` give: own ones, and pairs. An insider adds its shares of what was sent."""
    holders = {}
    for answer in answers:
        for u in answer["b"]:
            holders.setdefault(("own", u), set()).add(answer["site"])
            for d in answer["s"][u]:
                holders.setdefault(tuple(sorted((u, d))), set()).add(answer["site"])
    if insider:
        for u in sent:
            holders.setdefault(("own", u), set()).add(insider)
            for v in names:
                if v != u:
                    holders.setdefault(tuple(sorted((u, v))), set()).add(insider)
    known = {what for what, who in holders.items() if len(who) >= least}
    if insider:
        known |= {("own", insider)} | {tuple(sorted((insider, v))) for v in names if v != insider}
    return {u for kind, u in known if kind == "own"}, {pair for pair in known if pair[0] != "own"}


def play(world, states, rng):
    """One survivor sum in which each site behaves as its state says; what must come out comes out, and no more."""
    names, least = world.names, threshold(len(world.names), world.minimum)
    shares = {name: [rng.integers(-(2**58), 2**58, 5)] for name in names}
    one = world.sum(COUNTS, "survivors")
    sent = {v: world.masked(v, one.request, shares[v]) for v, s in zip(names, states, strict=True) if s != "none"}
    survivors = [v for v, s in zip(names, states, strict=True) if s in ("masked", "signed", "full")]
    for name in survivors:
        one.receive(name, sent[name])
    answers = []
    try:
        requests = world.requests(one, [v for v, s in zip(names, states, strict=True) if s in ("signed", "full")])
        for name in set(sent) - set(survivors):
            one.receive(name, sent[name])  # too late: not read
        for name, state in zip(names, states, strict=True):
            if state == "full":
                answers.append(world.unmask(name, requests[name]))
                one.receive_unmask(name, answers[-1])
        total = one.total()
    except SumVoid:
        total = None
    assert (total is not None) == (len(answers) >= least), states
    if total is not None:
        same(total, plain_total(COUNTS, [shares[name] for name in survivors]))
        assert one.contributors == tuple(survivors)

    # the server, alone and with each one site on its side, late answers included
    for insider in (None, *names):
        honest = [name for name in sent if name != insider]
        known = known_sums(names, honest, *opened(names, answers, least, insider, sent))
        among = {name for name in survivors if name != insider}
        # an insider holds a share of everything that was sent, asked or not: it stands in for one answer
        helpers = {answer["site"] for answer in answers} | ({insider} if insider else set())
        if answers and len(helpers) >= least:
            assert len(known) == 1, (states, insider)
            coefficients = known[0]
            assert {v for v, c in coefficients.items() if c} == among, (states, insider)
            assert len({c for c in coefficients.values() if c}) == 1, (states, insider)
        else:
            assert not known, (states, insider)
    return total


@pytest.mark.parametrize("sites", [3, 4])
def test_every_way_of_dropping_out(make_world, sites):
    world, rng = make_world(sites), np.random.default_rng(0)
    outcomes = [play(world, states, rng) is not None for states in itertools.product(STATES, repeat=sites)]
    # 3 of 3 sites must last; of 4 sites 3 (the fourth in any of 4 other states) or all
    assert sum(outcomes) == {3: 1, 4: 1 + 4 * 4}[sites]


def test_many_ways_of_dropping_out_of_five_and_seven(make_world):
    rng, dice = np.random.default_rng(0), random.Random(0)
    for sites, plays in ((5, 60), (7, 25)):
        world = make_world(sites)
        outcomes = [play(world, dice.choices(STATES, (1, 1, 1, 1, 10), k=sites), rng) is not None for _ in range(plays)]
        assert 0.2 < np.mean(outcomes) < 0.95  # both ends are met


def test_a_double_failure_of_seven(make_world):
    """One site never answers, another one is lost between its two messages."""
    world, rng = make_world(7), np.random.default_rng(0)
    for gone in range(7):
        states = ["full"] * 7
        states[gone], states[(gone + 1 + gone % 3) % 7] = "none", "masked"
        assert play(world, states, rng) is not None


@pytest.mark.parametrize("sites", [3, 4, 5])
def test_a_whole_sum_says_nothing_until_all_are_there(make_world, sites):
    world = make_world(sites)
    one = world.sum(COUNTS)
    answers = {name: world.masked(name, one.request, [np.arange(5)]) for name in world.names}
    for size in range(sites):
        for there in itertools.combinations(world.names, size):
            part = world.sum(COUNTS, t=one.query.t)
            for name in there:
                part.receive(name, answers[name])
            with pytest.raises(SumVoid, match="no answer"):
                part.total()
            assert not known_sums(world.names, list(there), set(world.names), set())
    assert known_sums(world.names, world.names, set(world.names), set()) == [dict.fromkeys(world.names, Fraction(1))]


def test_a_void_sum_is_asked_again(make_world):
    world = make_world(4)
    first = world.sum(COUNTS)
    for name in world.names[:3]:
        first.receive(name, world.masked(name, first.request, [np.arange(5)]))
    with pytest.raises(SumVoid, match="h03: no answer"):
        first.total()
    again = world.sum(COUNTS)
    for name in world.names:
        again.receive(name, world.masked(name, again.request, [np.arange(5)]))
    np.testing.assert_array_equal(again.total()[0], 4 * np.arange(5))


def test_a_late_answer_to_an_earlier_sum_does_not_count(make_world):
    world = make_world(3)
    first, second = world.sum(COUNTS), world.sum(COUNTS)
    late = world.masked("h00", first.request, [np.arange(5)])
    for name in world.names[1:]:
        second.receive(name, world.masked(name, second.request, [np.arange(5)]))
    second.receive("h00", late)
    with pytest.raises(SumVoid, match="another request"):
        second.total()
    second.receive("h00", world.masked("h00", second.request, [np.arange(5)]))
    np.testing.assert_array_equal(second.total()[0], 3 * np.arange(5))


def test_a_repeated_answer_counts_once(make_world):
    world = make_world(3)
    one = world.sum(COUNTS)
    for name in world.names:
        answer = world.masked(name, one.request, [np.arange(5)])
        one.receive(name, answer)
        one.receive(name, answer)
    np.testing.assert_array_equal(one.total()[0], 3 * np.arange(5))


def test_shares_that_come_after_a_first_try_complete_the_sum(make_world):
    world = make_world(4)
    one = world.sum(COUNTS, "survivors")
    for name in world.names:
        one.receive(name, world.masked(name, one.request, [np.arange(5)]))
    for name in world.names[:2]:
        one.receive_unmask(name, world.unmask(name, one.unmask_requests()[name]))
    with pytest.raises(SumVoid, match="2 sites gave shares, 3 are needed"):
        one.total()
    for name in world.names[1:3]:  # h01 is asked a second time
        one.receive_unmask(name, world.unmask(name, one.unmask_requests()[name]))
    np.testing.assert_array_equal(one.total()[0], 4 * np.arange(5))


def test_thresholds():
    # the table of the specification: 3, 3, 4, 5, 5 for 3..7; 7 for 10; 34 for 50
    expected = {3: 3, 4: 3, 5: 4, 6: 5, 7: 5, 10: 7, 50: 34}
    assert {n: threshold(n, 3) for n in expected} == expected
    assert threshold(5, 5) == 5
