"""Quorum by name: a round of a network goes on without a site, but not without one that the study names."""

import pytest

from cohortium.client.guard import Guard
from cohortium.common.errors import SumRefused, SumVoid
from cohortium.common.study import load_study
from tests.simulation.prepared import run_on_tables
from tests.simulation.test_departure import STUDY, Departing, network_sums, tables

TEXT = STUDY.format(on_departure="continue").replace("retries = 1", 'retries = 1\nquorum = ["a", "c"]')
EVERYONE = ["a", "b", "c", "d"]


def run_without(place, site):
    def silent(transport):
        return Departing(transport, site, "fedavg.update", (1, 2), "sum")

    return run_on_tables(place, TEXT, tables(), wrap=silent)


def test_a_round_stops_without_a_site_of_the_quorum(tmp_path):
    with pytest.raises(SumVoid, match=r"no answer from c, which federation\.quorum demands"):
        run_without(tmp_path, "c")
    assert network_sums(tmp_path) == [EVERYONE]


def test_a_round_goes_on_without_another_site_and_the_results_name_who_was_there(tmp_path):
    results = run_without(tmp_path, "d")
    assert network_sums(tmp_path) == [EVERYONE, ["a", "b", "c"], ["a", "b", "c"], EVERYONE]
    rounds = results["contributors"]["train"]["fedavg.update"]
    assert rounds == [{"sites": EVERYONE, "sums": 2}, {"sites": ["a", "b", "c"], "sums": 2}]


@pytest.mark.parametrize("sites", [["a", "b", "d"], ["a"], [], None, "abc"])
def test_a_site_opens_no_round_without_the_quorum_whatever_the_coordinator_says(tmp_path, sites):
    (tmp_path / "study.toml").write_text(TEXT)
    guard = Guard(load_study(tmp_path), "a", ("*",))
    guard.survivors(["a", "c", "d"])
    with pytest.raises(SumRefused, match="in every round of a network"):
        guard.survivors(sites)
