"""Score bins: even, never small, additive, and found in few sums."""

import numpy as np
import pytest

from cohortium.common.federation import PooledSites
from cohortium.strategies import score_bins
from cohortium.strategies.rows import Scored, ScoredSurvival
from tests.strategies.additivity import check, odd_sites, split
from tests.strategies.scored import patients


def linear(n: int, seed: int = 5) -> ScoredSurvival:
    rng = np.random.default_rng(seed)
    score = np.round(np.column_stack([rng.normal(size=n), 30 * rng.standard_t(3, size=n)]), 4)
    return ScoredSurvival(score=score, time=np.ones(n), event=np.ones(n))


def test_occupancy_keeps_its_contract():
    check(score_bins.occupancy, patients(90), edges=[np.array([0, 2000]), np.array([0]), np.array([0, 10, 9000])])


@pytest.mark.parametrize(("rows", "scale"), [(patients(), "probability"), (linear(700), "linear")])
def test_bins_hold_about_ten_patients_and_never_fewer(rows, scale):
    federation = PooledSites(split(rows, [len(rows.score) - 201, 200, 1]))
    edges = score_bins.edges(federation, rows.score.shape[1], scale=scale)
    assert federation.rounds <= 3
    for m, lower in enumerate(edges):
        held = np.bincount(score_bins.cell(rows.score[:, m], lower), minlength=len(lower))
        assert (np.diff(lower) > 0).all()
        assert held[held > 0].min() >= 10
        if len(np.unique(rows.score[:, m])) > 100:
            assert np.median(held) <= 15


def test_sites_do_not_matter():
    rows = patients()
    one = score_bins.edges(PooledSites([rows]), 3, scale="probability")
    many = score_bins.edges(PooledSites(odd_sites(rows, rows.y)[::-1]), 3, scale="probability")
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_exact_cells_hold_one_score_each():
    rows = linear(400)
    federation = PooledSites(split(rows, [100, 300]))
    edges = score_bins.edges(federation, 2, scale="linear", resolution="exact")
    assert federation.rounds <= 4
    for m, lower in enumerate(edges):
        assert len(lower) == len(np.unique(rows.score[:, m]))
        assert len(np.unique(score_bins.cell(rows.score[:, m], lower))) == len(lower)


def test_exact_probabilities_need_no_sum():
    federation = PooledSites([patients(20)])
    assert len(score_bins.edges(federation, 3, scale="probability", resolution="exact")[0]) == 10_001
    assert federation.rounds == 0


@pytest.mark.parametrize("resolution", ["binned", "exact"])
def test_a_cohort_of_nobody_or_one_gets_one_bin(resolution):
    for n in (0, 1):
        edges = score_bins.edges(PooledSites([linear(n)]), 2, scale="linear", resolution=resolution)
        assert [len(lower) for lower in edges] == [1, 1]


def test_a_score_on_an_edge_belongs_to_the_upper_cell():
    np.testing.assert_array_equal(score_bins.cell(np.array([0.0999, 0.1, 0.29]), np.array([0, 1000, 2900])), [0, 1, 2])


def test_low_risks_are_told_apart():
    rng = np.random.default_rng(0)
    rows = Scored(np.round(0.03 * rng.random((2000, 1)), 4), np.zeros(2000), np.zeros(2000, np.int64))
    assert len(score_bins.edges(PooledSites([rows]), 1, scale="probability")[0]) > 120
