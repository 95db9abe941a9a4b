"""A coordinator that breaks the protocol: each attack opens one site's numbers where a rule is off, and fails with it.

What is off in a test is named there: a store that forgets, peers' keys that are not checked, masks that are left out.
"""

import importlib.machinery
import io
import zipfile

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.cli.build import build_fab_from_files

from cohortium.client import bundle_gate
from cohortium.common import bundle, masks, shamir, sum_setup
from cohortium.common.errors import SumRefused, SumVoid
from cohortium.common.secure_sum import SiteSums
from cohortium.common.sum_cohort import Cohort, rows_of
from cohortium.common.sum_layout import Entry, Layout
from cohortium.common.sum_store import MemoryStore
from tests.common.conftest import World

LAYOUT = Layout((Entry("i8", 3, 0),))


class Forgetful(MemoryStore):
    """A store that binds its site to nothing it answered."""

    def last(self, run):
        return 0

    def use(self, *_args, **_kwargs):
        pass

    def lock(self, *_args, **_kwargs):
        pass


def numbers(world):
    """Three counts of each site."""
    return {name: [np.array([10 + i, 20 + i, 7 * i])] for i, name in enumerate(world.names)}


def added(replies):
    """What all answers add up to, still as a buffer."""
    total = np.zeros(LAYOUT.words[0], np.uint64)
    for reply in replies:
        total += LAYOUT.lanes(reply["y"])[0]
    return total.view(np.uint8)


def total_of(world, names, arrays, *, run, cohorts=None, store=None):
    """A whole-roster sum over some of the sites, as a coordinator asks for it in a run of its own."""
    roster = sum_setup.roster_of(world.site(name).hello(world.study, run, patients=40) for name in names)
    one = world.sum(LAYOUT, run=run, roster=roster)
    for name in names:
        of_site = [] if cohorts is None else [cohorts[name]]
        one.receive(name, world.site(name).masked(one.request, lambda name=name: arrays[name], of_site))
    return one.total()[0]


# --- differences of two sums ----------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_the_difference_of_two_rosters_is_one_site(frozen):
    world = World(4, lambda _: MemoryStore() if frozen else Forgetful())
    x = numbers(world)
    cohorts = {name: Cohort("train", rows_of(b"secret", [f"{name}{i}" for i in range(30)]), 5) for name in world.names}
    everyone = total_of(world, world.names, x, run="r1", cohorts=cohorts)
    if frozen:
        with pytest.raises(SumRefused, match="summed over other sites"):
            total_of(world, world.names[1:], x, run="r2", cohorts=cohorts)
    else:
        others = total_of(world, world.names[1:], x, run="r2", cohorts=cohorts)
        np.testing.assert_array_equal(everyone - others, x[world.names[0]][0])


@pytest.mark.parametrize("frozen", [False, True])
def test_the_difference_of_two_cohorts_is_one_patient(frozen):
    world = World(3, lambda _: MemoryStore() if frozen else Forgetful())
    rows = np.random.default_rng(1).integers(0, 9, (30, 3))
    ids = [f"p{i}" for i in range(30)]

    def total(run, patients):
        x = {name: [rows[:patients].sum(axis=0)] if name == world.names[0] else [np.ones(3, int)] for name in rows_at}
        cohorts = {name: Cohort("train", rows_of(name.encode(), ids[: rows_at[name] or patients]), 5) for name in x}
        return total_of(world, world.names, x, run=run, cohorts=cohorts)

    rows_at = {world.names[0]: 0, world.names[1]: 30, world.names[2]: 30}
    before = total("r1", 30)
    if frozen:
        with pytest.raises(SumRefused, match="fewer than minimum_count = 5"):
            total("r2", 29)
        with pytest.raises(SumRefused, match="approve it"):  # many patients fewer: for a person to decide
            total("r3", 20)
    else:
        np.testing.assert_array_equal(before - total("r2", 29), rows[29])


# --- another query, another key, the same number twice --------------------------------------------------------


def test_one_site_given_another_query_than_the_others():
    """Parameters at which the other sites' numbers vanish leave the victim's alone; then no mask cancels."""
    world = World(4)
    x = numbers(world)
    victim, *others = world.names
    share = {b"as asked": lambda name: x[name], b"zero": lambda _: [np.zeros(3, int)]}
    plain = x[victim][0] + sum(share[b"zero"](name)[0] for name in others)
    np.testing.assert_array_equal(plain, x[victim][0])  # without masks
    asked = {name: b"as asked" if name == victim else b"zero" for name in world.names}
    sums = {parameters: world.sum(LAYOUT, parameters=parameters, t=1) for parameters in share}
    replies = {name: world.masked(name, sums[p].request, share[p](name)) for name, p in asked.items()}
    for name, reply in replies.items():
        sums[b"as asked"].receive(name, reply)
    assert set(sums[b"as asked"].rejected) == set(others)
    with pytest.raises(SumVoid, match="masks do not cancel"):
        LAYOUT.decode(added(replies.values()), sites=4)


@pytest.mark.parametrize("checked", [False, True])
def test_a_forged_peer_key(checked):
    """A coordinator that plays all peers of a site knows every mask of its answer."""
    world = World(3)
    victim, *peers = world.names
    x = numbers(world)[victim]
    played = {name: X25519PrivateKey.generate() for name in peers}
    forger = Ed25519PrivateKey.generate()
    hellos = [sum_setup.hello(world.study, world.run, name, key, forger, patients=40) for name, key in played.items()]
    roster = tuple(sorted([*(entry for entry in world.roster if entry.site == victim), *hellos]))
    one = world.sum(LAYOUT, roster=roster)
    pins = dict(world.pins) if checked else world.pins | dict.fromkeys(peers, forger.public_key().public_bytes_raw())
    site = SiteSums(
        site=victim, identity=world.identities[victim], pins=pins, minimum_sites=3, store=world.stores[victim]
    )
    if checked:
        with pytest.raises(SumRefused, match="not signed by its identity"):
            site.masked(one.request, lambda: x)
        return
    reply = site.masked(one.request, lambda: x)
    salt = sum_setup.roster_digest(world.study, world.run, roster)
    known = [sum_setup.pair_keys(roster, salt, name, key, {victim})[victim] for name, key in played.items()]
    buffer = added([reply])
    masks.apply(
        LAYOUT.lanes(buffer), plus=[], minus=[masks.expand(key, masks.SEED, "mask", reply["tid"]) for key in known]
    )
    np.testing.assert_array_equal(LAYOUT.decode(buffer, sites=1)[0], x[0])


@pytest.mark.parametrize("remembers", [False, True])
def test_a_replayed_sum(remembers):
    """Two answers under the same masks differ by what changed at the site in between."""
    world = World(3, lambda _: MemoryStore() if remembers else Forgetful())
    name = world.names[0]
    before, after = np.array([10, 20, 30]), np.array([11, 20, 31])
    request = world.sum(LAYOUT).request
    first = world.masked(name, request, [before])
    if remembers:
        with pytest.raises(SumRefused, match="was answered or passed over"):
            world.masked(name, request, [after])
        return
    second = world.masked(name, request, [after])
    change = LAYOUT.lanes(second["y"])[0] - LAYOUT.lanes(first["y"])[0]
    np.testing.assert_array_equal(change[:3].view(np.int64), after - before)


# --- shares and late answers ----------------------------------------------------------------------------------


def joined(world, replies, pick):
    """The seed behind the sites' shares of it."""
    columns = {world.names.index(name): [pick(reply)] for name, reply in replies.items()}
    return shamir.join(columns, 3)[0]


@pytest.mark.parametrize("locked", [False, True])
def test_shares_of_a_site_both_as_missing_and_as_there(locked):
    """A site said to be missing has its common masks opened, one said to be there its own: both together open it."""
    world = World(4, lambda _: MemoryStore() if locked else Forgetful())
    x = numbers(world)
    *others, victim = world.names
    one = world.sum(LAYOUT, "survivors")
    masked = {name: world.masked(name, one.request, x[name]) for name in world.names}
    without, with_all = one, world.sum(LAYOUT, "survivors", t=one.query.t, slot=one.query.slot)
    for name in others:
        without.receive(name, masked[name])
    for name, reply in masked.items():
        with_all.receive(name, reply)
    missing = {name: world.unmask(name, request) for name, request in world.requests(without).items()}
    np.testing.assert_array_equal(
        sum(x[name][0] for name in others),
        [without.receive_unmask(name, reply) for name, reply in missing.items()] and without.total()[0],
    )
    if locked:
        for name in others:
            with pytest.raises(SumRefused, match="opened for other survivors"):
                world.unmask(name, with_all.unmask_requests()[name])
        return
    there = {name: world.unmask(name, with_all.unmask_requests()[name]) for name in others}
    own = joined(world, there, lambda reply: reply["b"][victim])
    common = [joined(world, missing, lambda reply, u=u: reply["s"][u][victim]) for u in others]
    buffer = added([masked[victim]])
    masks.apply(LAYOUT.lanes(buffer), plus=common, minus=[own])  # the victim is last: it took its common masks away
    np.testing.assert_array_equal(LAYOUT.decode(buffer, sites=1)[0], x[victim][0])


def test_a_late_answer_to_a_sum_that_was_given_up():
    """With it the sum over all less the sum over the survivors is the late site: it is not read, and not opened."""
    world = World(4)
    x = numbers(world)
    *others, late = world.names
    one = world.sum(LAYOUT, "survivors")
    masked = {name: world.masked(name, one.request, x[name]) for name in world.names}
    for name in others:
        one.receive(name, masked[name])
    for name, request in world.requests(one).items():
        one.receive_unmask(name, world.unmask(name, request))
    survivors = one.total()[0]
    one.receive(late, masked[late])
    assert one.contributors == tuple(others)
    np.testing.assert_array_equal(one.total()[0], survivors)
    # a coordinator that does read it: asked again for all four, the sites have answered for three
    again = world.sum(LAYOUT, "survivors", t=one.query.t, slot=one.query.slot)
    for name, reply in masked.items():
        again.receive(name, reply)
    for name in others:
        with pytest.raises(SumRefused, match="opened for other survivors"):
            world.unmask(name, again.unmask_requests()[name])
    # nor does it fit the retry, whose masks are others
    retry = world.sum(LAYOUT, "survivors")
    retry.receive(late, masked[late])
    assert late in retry.rejected
    with pytest.raises(SumVoid, match="masks do not cancel"):
        LAYOUT.decode(added([masked[late], *(world.masked(n, retry.request, x[n]) for n in others)]), sites=4)


# --- code -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_a_bundle_that_brings_its_own_client_app(tmp_path):
    """Unpacked first on the import path, its app would answer for the hospital; it is refused, none is written."""
    code = {
        "cohortium/__init__.py": b"",
        "cohortium/client/__init__.py": b"",
        "cohortium/client/app.py": b"app = 'mine'",
    }
    attack = build_fab_from_files(bundle.files() | code)[0]
    zipfile.ZipFile(io.BytesIO(attack)).extractall(tmp_path / "unpacked")
    found = importlib.machinery.PathFinder.find_spec("app", [str(tmp_path / "unpacked/cohortium/client")])
    assert found is not None
    assert found.loader.get_code("app") is not None
    with pytest.raises(SumRefused, match="no code is taken from a bundle"):
        bundle_gate.install_from_fab(attack, tmp_path / "installed")
    assert not (tmp_path / "installed").exists()
    assert bundle_gate.get_load_client_app_fn()("id", "1", "hash").__class__.__module__.startswith("flwr")
