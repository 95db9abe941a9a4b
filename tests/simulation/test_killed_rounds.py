"""A coordinator killed after the sites opened a round and before it noted the total: the same survivors, or a stop."""

import json

import pytest

from cohortium.common.codec import unpack
from cohortium.common.errors import SumRefused, SumVoid
from tests.simulation.prepared import run_on_tables
from tests.simulation.test_departure import STUDY, Departing, network_sums, tables

TEXT = STUDY.format(on_departure="continue")
EVERYONE = ["a", "b", "c", "d"]
LESS = ["a", "b", "d"]


class Killed(RuntimeError):
    """The coordinator is gone."""


class Killing:
    """A transport on which the coordinator dies once the sites have answered its nth message of a kind."""

    def __init__(self, transport, kind, which):
        self.sites, self._transport, self._kind, self._left = transport.sites, transport, kind, which

    def ask(self, requests, *, timeout_s):
        replies = self._transport.ask(requests, timeout_s=timeout_s)
        if unpack(next(iter(requests.values())))["kind"] == self._kind:
            self._left -= 1
            if self._left < 0:
                raise Killed
        return replies


def without_c(transport):
    """One silence of c, in the second round of the network."""
    return Departing(transport, "c", "fedavg.update", (1,), "sum")


def killed(place, wrap):
    with pytest.raises(Killed):
        run_on_tables(place, TEXT, tables(), wrap=wrap)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The models of a run in which c misses the second round, and of one in which it does not."""
    found = {}
    for name, wrap in (("less", without_c), ("everyone", lambda transport: transport)):
        place = tmp_path_factory.mktemp(name)
        found[name] = run_on_tables(place, TEXT, tables(), wrap=wrap)["models"]
    assert found["less"] != found["everyone"]
    return found


@pytest.mark.parametrize("kind", ["unmask", "sign"])
def test_a_round_without_a_site_is_finished_over_the_same_survivors(tmp_path, undisturbed, kind):
    """c is back when the run is resumed. Killed before any site opened the round, it takes c in again."""
    killed(tmp_path, lambda transport: Killing(without_c(transport), kind, 1 if kind == "unmask" else 0))
    opened = kind == "unmask"
    resumed = run_on_tables(tmp_path, TEXT, tables(), resume=True)
    assert network_sums(tmp_path) == [EVERYONE, LESS if opened else EVERYONE, EVERYONE, EVERYONE]
    assert resumed["models"] == undisturbed["less" if opened else "everyone"]


def test_a_round_of_all_sites_waits_for_all_of_them(tmp_path, undisturbed):
    killed(tmp_path, lambda transport: Killing(transport, "unmask", 1))
    for _ in range(2):  # nothing changes for the worse by trying
        with pytest.raises(
            SumVoid, match=r"this round was opened over a, b, c, d, .* no answer from c .* resume the run"
        ):
            run_on_tables(
                tmp_path, TEXT, tables(), resume=True,
                wrap=lambda transport: Departing(transport, "c", "fedavg.update", (0, 1, 2), "sum"),
            )  # fmt: skip
    resumed = run_on_tables(tmp_path, TEXT, tables(), resume=True)
    assert network_sums(tmp_path) == [EVERYONE] * 4
    assert resumed["models"] == undisturbed["everyone"]


def test_a_round_that_fails_while_it_is_opened_is_asked_of_the_same_survivors(tmp_path, undisturbed):
    """No kill: too few shares come back, and c is silent in the next attempt."""

    def wrap(transport):
        for site in ("a", "d"):
            transport = Departing(transport, site, "fedavg.update", (1,), "unmask")
        return Departing(transport, "c", "fedavg.update", (2,), "sum")

    with pytest.raises(SumVoid, match="this round was opened over a, b, c, d"):
        run_on_tables(tmp_path, TEXT, tables(), wrap=wrap)
    assert run_on_tables(tmp_path, TEXT, tables(), resume=True)["models"] == undisturbed["everyone"]


def test_a_run_that_does_not_know_the_survivors_says_who_they_are(tmp_path):
    """Another folder of results, or a lost journal: the sites do not open the round again over others."""
    killed(tmp_path, lambda transport: Killing(without_c(transport), "unmask", 1))
    (tmp_path / "out").rename(tmp_path / "before")
    with pytest.raises(SumRefused, match=r"site a, secure sum: this was opened for other survivors \(a, b, d\)"):
        run_on_tables(tmp_path, TEXT, tables())
    sums = [json.loads(line) for line in (tmp_path / "out" / "run" / "sums.jsonl").read_text().splitlines()]
    assert [line["sites"] for line in sums if line["statistics"] == ["fedavg.update"]] == [EVERYONE]
