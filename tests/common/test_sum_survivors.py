"""Who the survivors of a sum are: the same for all of them, signed by enough of them, once a sum and once a round."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cohortium.common import sum_survivors
from cohortium.common.errors import SumRefused, SumVoid, WireError
from cohortium.common.sum_layout import Entry, Layout

LAYOUT = Layout((Entry("i8", 5, 0),))
SHARE = [np.arange(5)]


@pytest.fixture
def world(make_world):
    return make_world(4)


def departed(world):
    """A sum of three of four sites, and the request to open it at h00, signed by all three."""
    one = world.sum(LAYOUT, "survivors")
    for name in world.names:
        reply = world.masked(name, one.request, SHARE)
        if name != "h03":
            one.receive(name, reply)
    return one, world.requests(one)["h00"]


def test_a_sum_without_a_site_needs_the_signatures_of_enough_survivors(world):
    _, request = departed(world)
    right = request["signatures"]
    stranger = sum_survivors.sign(Ed25519PrivateKey.generate(), b"x", ["h00"])
    missing = {**{name: right[name] for name in ("h00", "h01")}, "h03": right["h02"]}
    for wrong in ({}, missing, {**right, "h02": stranger}, {**right, "h02": right["h01"]}, {**right, "h02": None}):
        with pytest.raises(SumRefused, match=r"[02] survivors signed"):
            world.unmask("h00", {**request, "signatures": wrong})
    for nothing in (None, [], b""):
        with pytest.raises(WireError, match="no signatures"):
            world.unmask("h00", {**request, "signatures": nothing})
    world.unmask("h00", {**request, "signatures": {**right, "h03": b"not one of them", "h99": 3}})


def test_signatures_of_another_sum_or_of_other_survivors_do_not_count(world):
    _, earlier = departed(world)
    _, request = departed(world)
    with pytest.raises(SumRefused, match="0 survivors signed"):
        world.unmask("h00", {**request, "signatures": earlier["signatures"]})


def test_a_site_signs_one_set_of_survivors_a_sum(world):
    one, _ = departed(world)
    terms = {**one.query.plain(), "parameters_digest": one.query.parameters_digest}
    same = {**terms, "survivors": ["h00", "h01", "h02"]}
    assert world.sign("h00", same) == world.sign("h00", same)
    with pytest.raises(SumRefused, match=r"other survivors \(h00, h01, h02\)"):
        world.sign("h00", {**terms, "survivors": ["h00", "h01", "h03"]})
    with pytest.raises(SumRefused, match="no site is missing"):
        world.sign("h00", {**terms, "survivors": world.names})
    with pytest.raises(SumRefused, match="at least 3"):
        world.sign("h00", {**terms, "survivors": ["h00", "h01"]})
    with pytest.raises(SumRefused, match="no masked answer"):
        world.sign("h00", {**same, "statistic": "another"})
    with pytest.raises(WireError):
        world.sign("h00", terms)


def test_a_site_that_opened_a_sum_over_all_signs_no_other_survivors(world):
    one = world.sum(LAYOUT, "survivors")
    for name in world.names:
        one.receive(name, world.masked(name, one.request, SHARE))
    world.unmask("h00", one.unmask_requests()["h00"])
    terms = {**one.query.plain(), "parameters_digest": one.query.parameters_digest}
    with pytest.raises(SumRefused, match="other survivors"):
        world.sign("h00", {**terms, "survivors": ["h00", "h01", "h02"]})


def test_a_round_is_opened_for_one_set_of_survivors_in_whichever_sum(world):
    one, request = departed(world)
    world.unmask("h00", request)
    again = world.sum(LAYOUT, "survivors", slot=one.query.slot)
    for name in world.names:
        again.receive(name, world.masked(name, again.request, SHARE))
    with pytest.raises(SumRefused, match=r"other survivors \(h00, h01, h02\)"):
        world.unmask("h00", again.unmask_requests()["h00"])
    same = world.sum(LAYOUT, "survivors", slot=one.query.slot, among=one.contributors)
    for name in world.names:
        same.receive(name, world.masked(name, same.request, SHARE))
    for name, request in world.requests(same).items():
        same.receive_unmask(name, world.unmask(name, request))
    np.testing.assert_array_equal(same.total()[0], 3 * SHARE[0])


def test_too_few_signatures_void_the_sum(world):
    one = world.sum(LAYOUT, "survivors")
    for name in world.names[:3]:
        one.receive(name, world.masked(name, one.request, SHARE))
    with pytest.raises(SumVoid, match="2 survivors signed, 3 are needed"):
        world.requests(one, signers=["h00", "h01"])
    one.receive_signature("h03", {"site": "h03", "sig": bytes(64)})  # not a survivor
    one.receive_signature("h02", {"site": "h01", "sig": bytes(64)})
    one.receive_signature("h02", {"site": "h02", "sig": 7})
    with pytest.raises(SumVoid, match="2 survivors signed"):
        one.unmask_requests()
