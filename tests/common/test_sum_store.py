"""The store of sums: what lasts, what does not, and that no secret of a sum is ever on disk."""

import stat
import threading

import numpy as np
import pytest

from cohortium.common import masks
from cohortium.common.errors import SumRefused
from cohortium.common.sum_layout import Entry, Layout
from cohortium.common.sum_store import NEEDS_SETUP, MemoryStore, SumStore

LAYOUT = Layout((Entry("i8", 8, 0),))


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    """Opens the same store again and again, as fresh processes do."""
    memory = MemoryStore()
    return lambda: memory if request.param == "memory" else SumStore(tmp_path / "workspace", tmp_path / "runtime")


def test_numbers_rise(store):
    store().begin("study", "run", bytes(32))
    store().begin("study", "run2", bytes(32))
    assert store().last("run") == 0
    store().use("run", 3)
    assert store().last("run") == 3
    for t in (3, 2, 0, -1):
        with pytest.raises(SumRefused, match=f"number {t}"):
            store().use("run", t)
    store().use("run", 4)
    store().begin("study", "run", b"\x01" * 32)
    assert store().last("run") == 4
    assert store().last("run2") == 0


def test_keys_last_until_the_run_ends(store):
    with pytest.raises(SumRefused) as refusal:
        store().key("study", "run")
    assert refusal.value.what == NEEDS_SETUP
    store().begin("study", "run", b"\x01" * 32)
    store().begin("study", "run", b"\x02" * 32)
    assert store().key("study", "run") == b"\x02" * 32
    with pytest.raises(SumRefused, match="another study"):
        store().key("other", "run")
    with pytest.raises(SumRefused, match="another study"):
        store().begin("other", "run", bytes(32))
    assert store().key("study", "run") == b"\x02" * 32
    store().close("run")
    store().close("run")
    with pytest.raises(SumRefused) as refusal:
        store().key("study", "run")
    assert refusal.value.what == NEEDS_SETUP


def test_a_sum_is_bound_to_its_survivors(store):
    store().begin("study", "run", bytes(32))
    with pytest.raises(SumRefused, match="no masked answer"):
        store().lock(b"sum", ["a", "b"])
    for t, transcript in enumerate((b"sum", b"other", b"third"), 1):
        store().use("run", t, transcript=transcript)
    store().lock(b"sum", ["a", "b"], [b"slot"])
    store().lock(b"sum", ("a", "b"), [b"slot"])
    store().lock(b"other", ["a", "c"])
    with pytest.raises(SumRefused, match=r"other survivors \(a, b\)"):
        store().lock(b"third", ["a", "c"], [b"new slot", b"slot"])
    store().lock(b"third", ["a", "b"], [b"slot", b"new slot"])  # nothing of the refused request was kept
    for others in (["a"], ["a", "b", "c"], ["a\nb"]):
        with pytest.raises(SumRefused, match="other survivors"):
            store().lock(b"sum", others)


def test_of_overlapping_processes_one_uses_a_number(store):
    store().begin("study", "run", bytes(32))
    outcomes, start = [], threading.Barrier(4)

    def use():
        mine = store()
        start.wait()
        try:
            mine.use("run", 1)
            outcomes.append("used")
        except SumRefused:
            outcomes.append("refused")

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 3 + ["used"]


def test_the_run_key_is_private_and_a_name_is_no_path(tmp_path):
    store = SumStore(tmp_path / "workspace", tmp_path / "runtime")
    store.begin("study", "../../run", b"\x01" * 32)
    files = [path for path in (tmp_path / "runtime").rglob("*") if path.is_file()]
    assert len(files) == 1
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
    assert {path.name for path in tmp_path.iterdir()} == {"workspace", "runtime"}
    store.close("../../run")
    assert not files[0].exists()


def everything_in(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_no_secret_of_a_sum_is_on_disk(make_world, tmp_path, monkeypatch):
    secrets = []  # keys of pairs, seeds of masks, keys of shares; own seeds and numbers below

    def noted(function):
        def call(*args):
            secrets.append(function(*args))
            return secrets[-1]

        return call

    def noting_seeds(lanes, plus, minus, original=masks.apply):
        secrets.extend([*plus, *minus])
        original(lanes, plus, minus)

    monkeypatch.setattr(masks, "expand", noted(masks.expand))
    monkeypatch.setattr(masks, "derive", noted(masks.derive))
    monkeypatch.setattr(masks, "apply", noting_seeds)

    world = make_world(4, lambda name: SumStore(tmp_path / name / "workspace", tmp_path / name / "runtime"))
    share = [np.random.default_rng(0).integers(2**50, 2**58, 8)]
    whole, survivors = world.sum(LAYOUT), world.sum(LAYOUT, "survivors")
    for one in (whole, survivors):
        for name in world.names if one is whole else world.names[:3]:
            one.receive(name, world.masked(name, one.request, share))
    for name, request in world.requests(survivors).items():
        reply = world.unmask(name, request)
        survivors.receive_unmask(name, reply)
        secrets += [*reply["b"].values(), *(reply["s"][u]["h03"] for u in reply["s"])]
    np.testing.assert_array_equal(survivors.total()[0], 3 * share[0])
    np.testing.assert_array_equal(whole.total()[0], 4 * share[0])
    secrets += [value.tobytes() for value in share[0]]
    assert len(secrets) > 100

    keys = [world.stores[name].key(world.study, world.run) for name in world.names]
    for name, key in zip(world.names, keys, strict=True):
        kept = everything_in(tmp_path / name / "workspace")
        assert (b"h00" in kept) == (name != "h03")  # the survivors, where a sum was opened
        assert not any(secret in kept for secret in [*secrets, *keys])
        assert everything_in(tmp_path / name / "runtime") == key  # the run key, and nothing beside it
        world.site(name).close(world.run)
    assert not any(secret in everything_in(tmp_path) for secret in [*secrets, *keys])
