"""Graph: complete where it is small; above, k neighbours and t shares whose failure is as rare as is said."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import hypergeom

from cohortium.common.sum_graph import Graph, degree
from cohortium.common.sum_layout import Entry, Layout
from cohortium.common.sum_setup import threshold

NAMES = [f"s{i:04d}" for i in range(1000)]


@pytest.mark.parametrize("sites", [3, 10, 64, 65, 100])
def test_few_sites_are_all_neighbours(sites):
    graph = Graph(NAMES[:sites], b"roster", threshold(sites, 3))
    assert graph.holders(NAMES[1]) == tuple(NAMES[:sites])
    assert graph.shares == threshold(sites, 3)


def test_many_sites_have_k_neighbours_each():
    sites = 200
    graph = Graph(NAMES[:sites], b"roster", threshold(sites, 3))
    k = degree(sites, threshold(sites, 3)).neighbours
    near = {name: set(graph.neighbours(name)) for name in graph.names}
    assert all(len(others) == k < sites - 1 for others in near.values())
    assert all(u in near[v] for u in near for v in near[u])
    assert all(name in graph.holders(name) for name in near)
    other = Graph(NAMES[:sites], b"another roster", threshold(sites, 3))
    assert any(set(other.neighbours(name)) != near[name] for name in near)
    assert Graph(NAMES[:sites], b"roster", threshold(sites, 3)).holders("s0005") == graph.holders("s0005")


@pytest.mark.parametrize("sites", [200, 300])
def test_the_probabilities_are_those_of_the_hypergeometric_distribution(sites):
    k, shares, secrecy, recovery = degree(sites, threshold(sites, 3))
    dishonest, missing = (sites - 1) // 3, sites // 3
    run = math.prod((dishonest + missing - i) / (sites - i) for i in range(k // 2))
    assert secrecy == pytest.approx(sites * (hypergeom.sf(shares - 1, sites - 1, dishonest, k) + run), rel=1e-6)
    assert recovery == pytest.approx(sites * hypergeom.sf(k - shares, sites - 1, missing, k), rel=1e-6)
    assert secrecy <= 2**-40
    assert recovery <= 2**-20


@pytest.mark.parametrize("mode", ["whole", "survivors"])
def test_a_sum_over_sparse_neighbours(make_world, monkeypatch, mode):
    """Nine sites on a circle of four neighbours each stand for hundreds; two are missing from a survivor sum."""
    monkeypatch.setattr("cohortium.common.sum_graph.MOST_COMPLETE", 8)
    monkeypatch.setattr("cohortium.common.sum_graph.degree", lambda sites, least: (4, 3, 0.0, 0.0))
    world = make_world(9)
    layout = Layout((Entry("i8", 5, 0),))
    for gone in itertools.islice(itertools.combinations(world.names, 2), 0, None, 5):
        one = world.sum(layout, mode)
        for i, name in enumerate(world.names):
            reply = world.masked(name, one.request, [np.arange(5) * (i + 1)])
            assert mode == "whole" or len(reply["blobs"]) == 5
            if mode == "whole" or name not in gone:
                one.receive(name, reply)
        if mode == "survivors":
            for name, request in world.requests(one).items():
                one.receive_unmask(name, world.unmask(name, request))
        there = [i + 1 for i, name in enumerate(world.names) if mode == "whole" or name not in gone]
        np.testing.assert_array_equal(one.total()[0], np.arange(5) * sum(there))
