"""Concordance pairs: differences as lifelines has them, errors by the definition and near the jackknife."""

import numpy as np
import pytest
from lifelines import datasets
from lifelines.utils import concordance_index

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import concordance, concordance_pairs, score_bins, survival
from cohortium.strategies.rows import ScoredSurvival
from tests.strategies.additivity import FixedPointSites, check, odd_sites, take

PAIRS = np.array([[0, 1], [0, 2]])


@pytest.fixture(scope="module")
def rows() -> ScoredSurvival:
    """gbsg2, 686 patients: two scores, and one that ranks as the first does."""
    frame = datasets.load_gbsg2()
    continuous = 0.05 * frame.pnodes + 0.01 * frame.tsize - 0.002 * frame.progrec - 0.004 * frame.age
    score = np.round(np.column_stack([continuous, frame.pnodes / 10, 2 * continuous]), 4)
    score[:, 2] = 2 * score[:, 0]
    return ScoredSurvival(score, frame.time.to_numpy(float), frame.cens.to_numpy(float))


def differences(federation):
    edges = score_bins.edges(federation, 3, scale="linear", resolution="exact")
    points = np.flatnonzero(survival.timeline(federation, 1.0).events)
    joint = federation.sum(concordance.joint, edges=edges, points=points, time_step=1.0).patients
    return concordance_pairs.differences(federation, joint, edges, points, PAIRS, time_step=1.0)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_difference_and_error(rows, sites):
    ours, same = differences(sites(odd_sites(rows, rows.event)))
    one, other = (concordance_index(rows.time, -rows.score[:, m], rows.event) for m in (0, 1))
    assert ours.estimate == pytest.approx(one - other, abs=1e-12)
    later = (rows.time[:, None] < rows.time) | ((rows.time[:, None] == rows.time) & (rows.event == 0))
    comparable = later & (rows.event[:, None] == 1)
    moves = []
    for m in (0, 1):
        s = rows.score[:, m]
        right = comparable * ((s[:, None] > s) + 0.5 * (s[:, None] == s))
        c = right.sum() / comparable.sum()
        moves.append(((right - c * comparable).sum(0) + (right - c * comparable).sum(1)) / comparable.sum())
    assert ours.standard_error == pytest.approx(np.sqrt(((moves[0] - moves[1]) ** 2).sum()), rel=1e-8)
    low, high = ours.confidence_interval()
    assert (high - low) / 2 == pytest.approx(1.959964 * ours.standard_error, rel=1e-6)
    assert ours.z == pytest.approx(ours.estimate / ours.standard_error)
    assert same.estimate == 0
    with pytest.raises(Undefined, match="alike"):
        _ = same.z


def test_error_agrees_with_the_jackknife(rows):
    some = take(rows, slice(0, 150))
    ours = differences(PooledSites([some]))[0]
    kept = ~np.eye(150, dtype=bool)
    without = [
        concordance_index(some.time[k], -some.score[k, 0], some.event[k])
        - concordance_index(some.time[k], -some.score[k, 1], some.event[k])
        for k in kept
    ]
    jackknife = np.sqrt(149 / 150 * np.sum((without - np.mean(without)) ** 2))
    assert ours.standard_error == pytest.approx(jackknife, rel=0.05)


def test_statistic_keeps_its_contract(rows):
    edges, points = [np.array([-9000, 0, 4000])] * 3, np.array([100, 1000])
    moves = np.random.default_rng(0).normal(size=(3, 3, 2, 3))
    check(concordance_pairs.products, rows, edges=edges, points=points, moves=moves, pairs=PAIRS, time_step=1.0)


def test_no_events(rows):
    with pytest.raises(Undefined, match="C-index"):
        differences(PooledSites([rows._replace(event=np.zeros(686))]))
