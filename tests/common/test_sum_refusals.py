"""What a site refuses, whatever the server asks, and what the server discards, whatever a site answers."""

import contextlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortium.common import sum_setup, sum_survivors
from cohortium.common.errors import Overflow, SumRefused, SumVoid, WireError
from cohortium.common.sum_layout import DTYPE, Entry, Layout
from cohortium.common.sum_setup import Hello
from cohortium.common.sum_store import NEEDS_SETUP

LAYOUT = Layout((Entry("i8", 5, 0), Entry("f8", 2, 40)))
SHARE = [np.arange(5), np.array([0.5, -0.25])]
OTHER_KEY = X25519PrivateKey.generate()


def never(*args):
    raise AssertionError("a refused request must not be computed")


@pytest.fixture
def world(make_world):
    return make_world(4)


def survivor_sum(world):
    one = world.sum(LAYOUT, "survivors")
    for name in world.names:
        one.receive(name, world.masked(name, one.request, SHARE))
    return one


# The roster ----------------------------------------------------------------------------------------------------------


def tampered(world, what):
    """A roster in which the server changed something about h01."""
    roster = {entry.site: entry for entry in world.roster}
    genuine, identity = roster["h01"], world.identities["h01"]
    if what == "forged key":
        roster["h01"] = genuine._replace(key=OTHER_KEY.public_key().public_bytes_raw())
    elif what == "signed by another identity":
        roster["h01"] = sum_setup.hello(
            world.study, world.run, "h01", OTHER_KEY, Ed25519PrivateKey.generate(), patients=40
        )
    elif what == "of another run":
        roster["h01"] = sum_setup.hello(world.study, "run0", "h01", OTHER_KEY, identity, patients=40)
    elif what == "of another study":
        roster["h01"] = sum_setup.hello("study 0", world.run, "h01", OTHER_KEY, identity, patients=40)
    elif what == "another site's":
        roster["h01"] = roster["h02"]._replace(site="h01")
    elif what == "of an unknown site":
        roster["h99"] = sum_setup.hello(
            world.study, world.run, "h99", OTHER_KEY, Ed25519PrivateKey.generate(), patients=40
        )
    elif what == "of small order":
        small = genuine._replace(key=bytes(32))
        roster["h01"] = small._replace(sig=identity.sign(small.statement(world.study, world.run)))
    elif what == "of more patients":
        roster["h01"] = genuine._replace(patients=400)
    elif what == "too few":
        del roster["h01"], roster["h02"]
    return tuple(roster[name] for name in sorted(roster))


ALTERED = (
    "forged key",
    "signed by another identity",
    "of another run",
    "of another study",
    "another site's",
    "of an unknown site",
    "of small order",
    "of more patients",
    "too few",
)


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_roster(world, what):
    one = world.sum(LAYOUT, roster=tampered(world, what))
    with pytest.raises(SumRefused) as refusal:
        world.site("h00").masked(one.request, never)
    assert refusal.value.what == "roster"
    world.masked("h00", world.sum(LAYOUT, t=one.query.t).request, SHARE)  # the number was not used up


def test_a_roster_that_does_not_hold_my_key(world):
    old = world.roster
    world.site("h00").hello(world.study, world.run, patients=40)
    for roster in (old, old[1:]):
        with pytest.raises(SumRefused) as refusal:
            world.site("h00").masked(world.sum(LAYOUT, roster=roster).request, never)
        assert refusal.value.what == NEEDS_SETUP


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 0, 1, 2]])
def test_a_roster_out_of_order(world, order):
    request = world.sum(LAYOUT).request
    with pytest.raises(WireError):
        world.site("h00").masked({**request, "roster": [request["roster"][i] for i in order]}, never)


def test_a_run_without_set_up_and_a_run_of_another_study(world):
    with pytest.raises(SumRefused) as refusal:
        world.site("h00").masked(world.sum(LAYOUT, run="run2").request, never)
    assert refusal.value.what == NEEDS_SETUP
    with pytest.raises(SumRefused, match="another study"):
        world.site("h00").masked(world.sum(LAYOUT, study="study 0").request, never)
    with pytest.raises(SumRefused, match="another study"):
        world.site("h00").hello("study 0", world.run, patients=40)


def test_a_run_that_was_closed(world):
    world.site("h00").close(world.run)
    with pytest.raises(SumRefused) as refusal:
        world.site("h00").masked(world.sum(LAYOUT).request, never)
    assert refusal.value.what == NEEDS_SETUP


def test_more_sites_than_a_roster_takes():
    many = [Hello(f"s{i:04d}", bytes(32), 40, bytes(64))._asdict() for i in range(4097)]
    assert len(sum_setup.read_roster(many[:4096])) == 4096
    with pytest.raises(WireError, match="at most 4096"):
        sum_setup.read_roster(many)


# The number of a sum -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["whole", "survivors"])
def test_a_number_serves_once(world, mode):
    one = world.sum(LAYOUT, mode)
    world.masked("h00", one.request, SHARE)
    for again in (one, world.sum(LAYOUT, t=one.query.t), world.sum(LAYOUT, t=one.query.t, statistic="cox.terms")):
        with pytest.raises(SumRefused, match=f"number {one.query.t}"):
            world.site("h00").masked(again.request, never)


def test_a_lower_number_is_refused_even_after_a_new_set_up(world):
    world.masked("h00", world.sum(LAYOUT, t=10).request, SHARE)
    world.roster = world.set_up()
    with pytest.raises(SumRefused, match="number 9"):
        world.site("h00").masked(world.sum(LAYOUT, t=9).request, never)
    world.masked("h00", world.sum(LAYOUT, t=11).request, SHARE)


# What is summed ------------------------------------------------------------------------------------------------------

MISFITS = {
    "an array is missing": SHARE[:1],
    "an array too many": [*SHARE, SHARE[0]],
    "wrong length": [SHARE[0][:4], SHARE[1]],
    "numbers for counts": [SHARE[0].astype(float), SHARE[1]],
    "weights for numbers": [SHARE[0], SHARE[1].astype(np.float32)],
    "nan": [SHARE[0], np.array([np.nan, 0])],
    "infinite": [SHARE[0], np.array([0, np.inf])],
    "smallest int64": [np.array([0, 0, 0, 0, np.iinfo(np.int64).min]), SHARE[1]],
    "count beyond 2^61 / 4": [np.full(5, 2**59 + 1), SHARE[1]],
    "number beyond 2^61 / 4": [SHARE[0], np.array([-(2.0**19) - 1, 0])],
}


@pytest.mark.parametrize("share", MISFITS.values(), ids=MISFITS)
def test_arrays_that_do_not_fit(world, share):
    one = world.sum(LAYOUT)
    with pytest.raises(SumRefused) as refusal:
        world.site("h00").masked(one.request, lambda: share)
    assert refusal.value.what.startswith("moments.first")
    assert not {"524289", "576460752303423489", "9223372036854775808"} & set(str(refusal.value).split())
    world.masked("h00", world.sum(LAYOUT, t=one.query.t).request, SHARE)  # the number was not used up


def test_an_overflow_names_its_array(world):
    with pytest.raises(Overflow) as refusal:
        world.site("h00").masked(world.sum(LAYOUT).request, lambda: [SHARE[0], np.array([0, 1e9])])
    assert refusal.value.array == 1


ODD = {
    "parameters": {"parameters": b"others"},
    "statistic": {"statistic": "moments.second"},
    "slot": {"slot": ("external",)},
    "layout": {"layout": Layout((Entry("i8", 5, 0), Entry("f8", 2, 39)))},
    "number": {"t": 1000},
    "mode": {"mode": "survivors"},
}


@pytest.mark.parametrize("terms", [*ODD.values(), {"roster": 3}], ids=[*ODD, "roster"])
def test_a_site_given_another_query_spoils_the_total(world, terms):
    """Model inconsistency: the odd one's masks differ, so that the others' numbers cannot be told either."""
    if "roster" in terms:
        terms = {"roster": world.roster[:3]}
    one = world.sum(LAYOUT)
    odd = world.sum(**{"layout": LAYOUT, "t": one.query.t, **terms})
    replies = {name: world.masked(name, (odd if name == "h01" else one).request, SHARE) for name in world.names}
    for name, reply in replies.items():
        one.receive(name, reply)
    with pytest.raises(SumVoid, match="h01: answered another request"):
        one.total()
    one.receive("h01", {**replies["h01"], "tid": replies["h00"]["tid"]})  # even if the odd one lies about it
    with pytest.raises(SumVoid, match="do not cancel"):
        one.total()


def test_a_minimum_of_sites_that_differs_is_noticed(world):
    one = world.sum(LAYOUT, "survivors")
    world.minimum = 4
    one.receive("h00", world.masked("h00", one.request, SHARE))
    assert "minimum of sites" in one.rejected["h00"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"site": "h01"}, "another site"),
        ({"y": np.zeros(3, np.uint8)}, "another size"),
        ({"y": np.zeros(LAYOUT.nbytes, np.int64)}, "another size"),
        ({"y": None}, "another size"),
        ({"blobs": {}}, "without shares"),
        ({"tid": None}, "another request"),
    ],
)
def test_a_malformed_answer_counts_as_none(world, change, reason):
    one = world.sum(LAYOUT, "survivors")
    one.receive("h00", {**world.masked("h00", one.request, SHARE), **change})
    assert reason in one.rejected["h00"]
    assert one.contributors == ()


@pytest.mark.parametrize("entry", [Entry("i8", 2, 0), Entry("f8", 2, 30), Entry("w4", 2, 29)])
def test_a_total_beyond_what_sites_may_send_is_discarded(world, entry):
    """A site that leaves out the check of its own numbers is noticed by the spare bits."""
    layout = Layout((entry,))
    one = world.sum(layout)
    for name in world.names:
        reply = world.masked(name, one.request, [np.zeros(2, DTYPE[entry.kind])])
        if name == "h02":
            reply["y"] = reply["y"].copy()
            lane = layout.lanes(reply["y"])[entry.kind == "w4"]
            lane[1] ^= lane.dtype.type(1 << (8 * lane.itemsize - 1))  # adds the highest bit
        one.receive(name, reply)
    with pytest.raises(SumVoid, match="larger than"):
        one.total()


# Opening a survivor sum ----------------------------------------------------------------------------------------------


def test_the_shares_keep_both_invariants(world):
    one = world.sum(LAYOUT, "survivors")
    for name in world.names[:3]:
        one.receive(name, world.masked(name, one.request, SHARE))
    for name, request in world.requests(one).items():
        reply = world.unmask(name, request)
        assert set(reply["b"]) == {"h00", "h01", "h02"}  # none of a missing site's own mask
        assert set(reply["s"]) == {"h00", "h01", "h02"}
        assert all(set(shares) == {"h03"} for shares in reply["s"].values())  # none between two survivors
        assert reply == world.unmask(name, request)  # the same again


@pytest.mark.parametrize(
    ("survivors", "match"),
    [
        (["h00", "h01"], "at least 3"),
        (["h01", "h02", "h03"], "this one"),
        (["h00", "h02", "h01"], "sorted"),
        (["h00", "h01", "h01"], "sorted"),
        (["h00", "h01", "h99"], "of the roster"),
        (["h00", "h01", 3], "of the roster"),
        ([], "this one"),
    ],
)
def test_survivors_that_are_none(world, survivors, match):
    request = survivor_sum(world).unmask_requests()["h00"]
    blobs = {str(u): request["blobs"].get(u, b"") for u in survivors}
    with pytest.raises(SumRefused, match=match):
        world.site("h00").unmask({**request, "survivors": survivors, "blobs": blobs})


def test_one_set_of_survivors_a_sum(world):
    one = survivor_sum(world)
    request = one.unmask_requests()["h00"]
    world.unmask("h00", request)
    tid = one.query.transcript(3)
    for fewer in (["h00", "h01", "h02"], ["h00", "h01", "h03"]):
        blobs = {u: request["blobs"][u] for u in fewer}
        with pytest.raises(WireError, match="no signatures"):
            world.unmask("h00", {**request, "survivors": fewer, "blobs": blobs})
        signed = {u: sum_survivors.sign(world.identities[u], tid, fewer) for u in fewer}  # even if all of them lied
        with pytest.raises(SumRefused, match="other survivors"):
            world.unmask("h00", {**request, "survivors": fewer, "blobs": blobs, "signatures": signed})
    world.unmask("h00", request)


def test_shares_of_another_holder_or_sum_do_not_open(world):
    one, other = survivor_sum(world), survivor_sum(world)
    request, foreign = one.unmask_requests()["h00"], one.unmask_requests()["h01"]["blobs"]
    earlier, right = other.unmask_requests()["h00"]["blobs"], request["blobs"]["h02"]
    flipped = bytes([right[0] ^ 1]) + right[1:]
    for wrong in (foreign["h02"], earlier["h02"], flipped, request["blobs"]["h01"], right[:-1], b"", b"short", None, 7):
        with pytest.raises(SumRefused, match="h02 does not open"):
            world.site("h00").unmask({**request, "blobs": {**request["blobs"], "h02": wrong}})
    with pytest.raises(WireError):
        world.site("h00").unmask({**request, "blobs": {u: request["blobs"][u] for u in ("h00", "h01", "h02")}})


@pytest.mark.parametrize(
    "change", [{"statistic": "cox.terms"}, {"t": 999}, {"parameters_digest": bytes(32)}, {"slot": ["external"]}]
)
def test_opening_under_other_terms(world, change):
    request = survivor_sum(world).unmask_requests()["h00"]
    with pytest.raises(SumRefused, match="does not open"):
        world.site("h00").unmask({**request, **change})


def test_a_whole_sum_is_never_opened(world):
    request = survivor_sum(world).unmask_requests()["h00"]
    with pytest.raises(WireError):
        world.site("h00").unmask({**request, "mode": "whole"})


def test_a_site_that_never_answered_opens_nothing(world):
    one = world.sum(LAYOUT, "survivors")
    for name in world.names[:3]:
        one.receive(name, world.masked(name, one.request, SHARE))
    with pytest.raises(SumRefused, match="this one"):
        world.site("h03").unmask(world.requests(one)["h00"])


@pytest.mark.parametrize("spoil", [{"b": {}}, {"b": None}, {"b": {f"h0{i}": bytes(32) for i in range(4)}}])
def test_wrong_shares_discard_the_sum(world, spoil):
    one = survivor_sum(world)
    for name, request in one.unmask_requests().items():
        reply = world.unmask(name, request)
        one.receive_unmask(name, {**reply, **spoil} if name == "h02" else reply)
    with pytest.raises(SumVoid):
        one.total()


def test_too_few_answers_make_no_survivor_sum(world):
    one = world.sum(LAYOUT, "survivors")
    for name in world.names[:2]:
        one.receive(name, world.masked(name, one.request, SHARE))
    with pytest.raises(SumVoid, match="2 sites answered, 3 are needed"):
        one.unmask_requests()
    with pytest.raises(SumVoid, match="not been asked"):
        one.total()


# Anything at all -----------------------------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def requests(make_world):
    world = make_world(3)
    return world, world.sum(LAYOUT, t=999).request, survivor_sum(world).unmask_requests()["h00"]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_request_of_anything_gets_a_typed_error(requests, data):
    world, masked, unmask = requests
    request = dict(data.draw(st.sampled_from([masked, unmask])))
    field, value = data.draw(st.sampled_from(sorted(request))), data.draw(anything)
    inside = data.draw(st.booleans())
    if inside and isinstance(request[field], list) and request[field]:
        request[field] = [*request[field][:-1], value]
    elif inside and isinstance(request[field], dict):
        request[field] = {**request[field], "h01": value}
    else:
        request[field] = value
    site = world.site("h00")
    for answer in (
        lambda: site.masked(request, lambda: SHARE),
        lambda: site.sign(request),
        lambda: site.unmask(request),
    ):
        with contextlib.suppress(SumRefused, WireError):  # what else is raised fails the test
            answer()


@pytest.mark.parametrize("name", ["", "a\nb", "\ud800", "x" * 201, None, 3])
def test_names_that_are_none(world, name, monkeypatch):
    monkeypatch.setattr(world.stores["h00"], "begin", never)
    with pytest.raises(WireError):
        world.site("h00").hello(name, "run9", patients=40)
    with pytest.raises(WireError):
        world.site("h00").hello(world.study, name, patients=40)
    with pytest.raises(WireError):
        world.sum(LAYOUT, study=name)
