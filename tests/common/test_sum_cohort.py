"""Frozen cohorts: no two sums of one site differ by a few patients, whichever run, study or statistic asks."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cohortium.common.errors import SumRefused
from cohortium.common.sum_cohort import Cohort, Frozen, admit, differing, rows_of
from cohortium.common.sum_layout import Entry, Layout
from cohortium.common.sum_store import MemoryStore, SumStore

LAYOUT = Layout((Entry("i8", 2, 0),))
SECRET = bytes(32)


def cohort(numbers, part="train", *, least=10, approved=False):
    return Cohort(part, rows_of(SECRET, [f"p{i}" for i in numbers]), least, approved)


def frozen(numbers, part="train", roster=b"abc"):
    return Frozen(part, roster, cohort(numbers).rows)


def test_patients_are_told_apart_without_their_names():
    assert rows_of(SECRET, ["a", "b"]) == rows_of(SECRET, ["b", "a"])
    assert rows_of(SECRET, ["a", "b"]) != rows_of(b"\1" * 32, ["a", "b"])
    assert differing(cohort(range(50)).rows, cohort(range(3, 52)).rows) == (5, 47)
    assert differing(b"", cohort(range(7)).rows) == (7, 0)


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        (cohort(range(50)), ""),
        (cohort(range(49)), "fewer than minimum_count"),
        (cohort(range(49), approved=True), "fewer than minimum_count"),
        (cohort(range(1, 51), approved=True), "fewer than minimum_count"),
        (cohort(range(40)), "approve --cohort"),
        (cohort(range(40), approved=True), ""),
        (cohort(range(60, 90)), "approve --cohort"),
        (cohort(range(60, 90), approved=True), ""),
        (cohort(range(49), "internal", approved=True), "fewer than minimum_count"),
        (cohort(range(40), "internal"), "approve --cohort"),
        (cohort(range(50, 53), "internal"), ""),  # the disjoint parts of a study
        (cohort([], "internal"), ""),
    ],
)
def test_a_cohort_beside_another(asked, refused):
    if not refused:
        admit(asked, b"abc", [frozen(range(50))])
        return
    with pytest.raises(SumRefused, match=refused):
        admit(asked, b"abc", [frozen(range(50))])


def test_the_same_patients_are_summed_with_the_same_sites():
    for asked in (cohort(range(50)), cohort(range(50), "internal"), cohort(range(20), approved=True)):
        with pytest.raises(SumRefused, match="over other sites"):
            admit(asked, b"abd", [frozen(range(50))])
    admit(cohort(range(60, 90), approved=True), b"abd", [frozen(range(50))])


@pytest.fixture(params=["memory", "disk"])
def world(request, make_world, tmp_path):
    if request.param == "memory":
        return make_world(4, lambda name: MemoryStore())
    return make_world(4, lambda name: SumStore(tmp_path / name / "workspace", tmp_path / name / "runtime"))


def ask(world, patients, **terms):
    one = world.sum(LAYOUT, **terms)
    site = world.site("h00")
    return site.masked(one.request, lambda: [np.arange(2)], [patients])


def test_a_site_freezes_at_its_first_answer_whether_or_not_the_sum_ends(world):
    ask(world, cohort(range(50)))  # nobody else answers
    ask(world, cohort(range(50)), statistic="cox.terms")
    with pytest.raises(SumRefused, match="fewer than minimum_count"):
        ask(world, cohort(range(49)))
    world.t -= 1  # and the refused number was not used
    ask(world, cohort(range(50)), mode="survivors")
    ask(world, cohort(range(50, 60), "internal"))
    assert {kept.part for kept in world.stores["h00"].frozen()} == {"train", "internal"}
    assert len(world.stores["h00"].frozen()) == 2


def test_differencing_of_two_cohorts_in_another_run_of_another_study(world):
    ask(world, cohort(range(50)))
    world.run, world.study = "run2", "another study"
    world.roster = world.set_up("run2")
    with pytest.raises(SumRefused, match="fewer than minimum_count"):
        ask(world, cohort(range(49)))
    ask(world, cohort(range(50)))


def test_differencing_of_two_rosters(world):
    ask(world, cohort(range(50)))
    world.roster = tuple(entry for entry in world.roster if entry.site != "h03")
    with pytest.raises(SumRefused, match="over other sites"):
        ask(world, cohort(range(50)))


def test_a_roster_in_which_a_name_has_another_key(world):
    ask(world, cohort(range(50)))
    world.identities["h03"] = Ed25519PrivateKey.generate()
    world.pins = world.pins | {"h03": world.identities["h03"].public_key().public_bytes_raw()}
    world.roster = world.set_up()
    with pytest.raises(SumRefused, match="other keys"):
        ask(world, cohort(range(50)))


def test_the_secret_lasts_and_is_the_sites_own(tmp_path):
    def store(name):
        return SumStore(tmp_path / name, tmp_path / name / "runtime")

    assert store("a").secret() == store("a").secret() != store("b").secret()
    assert len(store("a").secret()) == 32
