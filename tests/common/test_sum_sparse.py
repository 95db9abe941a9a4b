"""Survivor sums of more than 64 sites as they are, the graph included: the total of the named survivors, or none."""

import numpy as np
import pytest

from cohortium.common.errors import SumVoid
from cohortium.common.sum_graph import degree
from cohortium.common.sum_layout import Entry, Layout
from cohortium.common.sum_setup import threshold
from tests.common.conftest import World

LAYOUT = Layout((Entry("i8", 3, 0),))


def numbers(place):
    """Of one site: a bit of its own, so that the total says which sites are in it."""
    return np.where(np.arange(3) == place // 40, 1 << place % 40, 0)


# above 64 sites all are still neighbours where fewer would not keep the promises; 105 is a graph with gaps
@pytest.mark.parametrize(("sites", "neighbours"), [(70, 69), (105, 102)])
def test_drop_outs_at_every_step(sites, neighbours):
    """Sites miss the sum, others the signatures, others the shares; those who answered first are in the total."""
    least = threshold(sites, 3)
    assert degree(sites, least).neighbours == neighbours
    world = World(sites)
    one = world.sum(LAYOUT, "survivors")
    away = set(world.names[::4])
    survivors = sorted(set(world.names) - away)
    for place, name in enumerate(world.names):
        if name not in away:
            if len(one.contributors) == least - 1:
                with pytest.raises(SumVoid, match=f"{least - 1} sites answered, {least} are needed"):
                    one.sign_requests()
            reply = world.masked(name, one.request, [numbers(place)])
            assert len(reply["blobs"]) == neighbours + 1
            one.receive(name, reply)

    shares = degree(sites, least).shares
    enough = shares + sites - 1 - neighbours  # of them so many hold shares of each
    unsigned, silent = set(survivors[:3]), set(survivors[: len(survivors) - enough])
    signing = one.sign_requests()
    assert sorted(signing) == survivors
    for signed, name in enumerate(name for name in survivors if name not in unsigned):
        if signed == least - 1:
            with pytest.raises(SumVoid, match=f"{least - 1} survivors signed, {least} are needed"):
                one.unmask_requests()
        one.receive_signature(name, world.sign(name, signing[name]))
    one.receive(next(iter(away)), {"site": "late"})  # after the survivors are named nobody joins

    opening = {name: request for name, request in one.unmask_requests().items() if name not in silent}
    for answered, (name, request) in enumerate(opening.items()):
        if answered == shares - 2:
            with pytest.raises(SumVoid, match=f"{shares} are needed|not complete"):
                one.total()
        one.receive_unmask(name, world.unmask(name, request))
    assert one.contributors == tuple(survivors)
    expected = sum(numbers(place) for place, name in enumerate(world.names) if name not in away)
    np.testing.assert_array_equal(one.total()[0], expected)
