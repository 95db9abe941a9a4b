"""Time-dependent accuracy: equal to scikit-survival; standard errors agree with the jackknife."""

import numpy as np
import pytest
from lifelines import datasets
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc, integrated_brier_score
from sksurv.util import Surv

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import concordance, score_bins, survival, time_dependent
from cohortium.strategies.rows import ScoredSurvival
from tests.strategies.additivity import FixedPointSites, odd_sites, take

HORIZON = 1825


@pytest.fixture(scope="module")
def rows() -> ScoredSurvival:
    """gbsg2, 686 patients: a continuous score, and the number of nodes (many ties)."""
    frame = datasets.load_gbsg2()
    continuous = 0.05 * frame.pnodes + 0.01 * frame.tsize - 0.002 * frame.progrec - 0.004 * frame.age
    score = np.round(np.column_stack([continuous, frame.pnodes / 10]), 4)
    return ScoredSurvival(score, frame.time.to_numpy(float), frame.cens.to_numpy(float))


def tables(federation, resolution="exact", step=1.0):
    horizons = survival.time_cell(np.array([HORIZON]), step)
    edges = score_bins.edges(federation, 2, scale="linear", resolution=resolution)
    total = survival.timeline(federation, step)
    points = concordance.points(total, horizons)
    joint = federation.sum(concordance.joint, edges=edges, points=points, time_step=step).patients
    return total, points, [joint[m, :, :, : len(lower)] for m, lower in enumerate(edges)], edges


def pooled(rows):
    return Surv.from_arrays(rows.event == 1, rows.time)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_uno_equals_scikit_survival(rows, sites):
    total, points, joint, _ = tables(sites(odd_sites(rows, rows.event)))
    for m in range(2):
        ours = time_dependent.uno(joint[m], np.ones(joint[m].shape[2], bool), points, total, before=HORIZON)
        theirs = concordance_index_ipcw(pooled(rows), pooled(rows), rows.score[:, m], tau=HORIZON)[0]
        assert ours.estimate == pytest.approx(theirs, abs=1e-12)
        assert ours.bound == 0


def test_auc_equals_scikit_survival(rows):
    total, points, joint, _ = tables(PooledSites(odd_sites(rows, rows.event)))
    for m in range(2):
        theirs = cumulative_dynamic_auc(pooled(rows), pooled(rows), rows.score[:, m], [HORIZON])[0][0]
        assert time_dependent.auc_at(joint[m], points, total, HORIZON).estimate == pytest.approx(theirs, abs=1e-12)


def test_errors_agree_with_the_jackknife(rows):
    some = take(rows, slice(0, 200))
    total, points, joint, _ = tables(PooledSites([some]))
    uno = time_dependent.uno(joint[0], np.ones(joint[0].shape[2], bool), points, total, before=HORIZON)
    area = time_dependent.auc_at(joint[0], points, total, HORIZON)
    without = []
    for i in range(200):
        kept = take(some, np.arange(200) != i)
        one = pooled(kept)
        without.append(
            [
                concordance_index_ipcw(one, one, kept.score[:, 0], tau=HORIZON)[0],
                cumulative_dynamic_auc(one, one, kept.score[:, 0], [HORIZON])[0][0],
            ]
        )
    jackknife = np.sqrt(199 / 200 * ((without - np.mean(without, 0)) ** 2).sum(0))
    assert uno.standard_error == pytest.approx(jackknife[0], rel=0.03)
    assert area.standard_error == pytest.approx(jackknife[1], rel=0.03)


def reweighted(rows, weight, power, before):
    """Uno's C (power 2) or the AUC at `before` (power 1) where each patient counts with a weight, by the definition."""
    time, event, score = rows.time, rows.event == 1, rows.score[:, 0]
    free = {}
    alive = 1.0
    for t in np.unique(time):
        staying = weight[(time > t) | ((time == t) & ~event)].sum()
        alive *= 1 - weight[(time == t) & ~event].sum() / staying if staying else 1.0
        free[t] = alive
    first = event[:, None] & (time[:, None] < before if power == 2 else time[:, None] <= before)
    first = first & (time > before if power == 1 else (time[:, None] < time) | ((time[:, None] == time) & ~event))
    pairs = first * (weight * np.array([max(free[t], 1e-9) ** -power for t in time]))[:, None] * weight
    won = (score[:, None] > score) + 0.5 * (score[:, None] == score)
    return (pairs * won).sum() / pairs.sum()


def test_errors_are_derivatives_by_each_patients_weight(rows):
    # every day is a point: patients censored on different days are not taken together
    some = take(rows, slice(0, 80))
    federation = PooledSites([some])
    total, points = survival.timeline(federation, 1.0), np.unique(some.time).astype(np.int64)
    points = np.union1d(points, [HORIZON + 1])
    edges = score_bins.edges(federation, 2, scale="linear", resolution="exact")
    joint = federation.sum(concordance.joint, edges=edges, points=points, time_step=1.0).patients[0][
        :, :, : len(edges[0])
    ]
    uno = time_dependent.uno(joint, np.ones(joint.shape[2], bool), points, total, before=HORIZON)
    area = time_dependent.auc_at(joint, points, total, HORIZON)
    for ours, power in ((uno, 2), (area, 1)):
        moved = []
        for i in range(80):
            step = 1e-4 * (np.arange(80) == i)
            moved.append(
                (reweighted(some, 1 + step, power, HORIZON) - reweighted(some, 1 - step, power, HORIZON)) / 2e-4
            )
        assert ours.estimate == pytest.approx(reweighted(some, np.ones(80), power, HORIZON), abs=1e-12)
        assert ours.standard_error == pytest.approx(np.sqrt(np.square(moved).sum()), rel=1e-6)


def test_errors_without_censoring_are_those_of_harrell(rows):
    everyone = PooledSites([rows._replace(event=np.ones(686))])
    total, points, joint, _ = tables(everyone)
    single = np.ones(joint[0].shape[2], bool)
    uno, harrell = time_dependent.uno(joint[0], single, points, total), concordance.harrell(joint[0], single)
    assert uno.estimate == pytest.approx(harrell.estimate, abs=1e-12)
    assert uno.standard_error == pytest.approx(harrell.standard_error, rel=1e-10)


def test_bins_stay_within_their_bound(rows):
    total, points, joint, edges = tables(PooledSites([rows]), "binned")
    for m, lower in enumerate(edges):
        single = score_bins.widths(lower, "linear") == 1
        ours = time_dependent.uno(joint[m], single, points, total, before=HORIZON)
        exact = concordance_index_ipcw(pooled(rows), pooled(rows), rows.score[:, m], tau=HORIZON)[0]
        assert abs(ours.estimate - exact) <= ours.bound + 1e-12


def test_brier_scores_equal_scikit_survival(rows):
    federation = PooledSites(odd_sites(rows, rows.event))
    total = survival.timeline(federation, 1.0)
    cells = time_dependent.evaluation_cells((HORIZON,), 1.0)
    assert (len(cells), cells[-1]) == (32, HORIZON)
    cells = cells[cells >= rows.time[rows.time > 0].min()]  # scikit-survival takes no time before the first
    baseline = np.exp(-0.0004 * cells)[None]
    scores = concordance.brier(federation, total, cells, baseline, time_step=1.0)[0]
    predicted = baseline ** np.exp(rows.score[:, [0]])
    np.testing.assert_allclose(scores, brier_score(pooled(rows), pooled(rows), predicted, cells)[1], atol=1e-12)
    theirs = integrated_brier_score(pooled(rows), pooled(rows), predicted, cells)
    assert time_dependent.integrated(scores, cells) == pytest.approx(theirs, abs=1e-12)
    exit_ = survival.at_risk(total.exits)
    curve = survival.kaplan_meier(np.arange(len(exit_), dtype=float), total.events, exit_)
    null = np.tile(curve.survival[np.searchsorted(curve.time[1:], cells, side="right")], (686, 1))
    expected = brier_score(pooled(rows), pooled(rows), null, cells)[1]
    np.testing.assert_allclose(time_dependent.null_brier(total, cells), expected, atol=1e-12)


def test_golden_scikit_survival(rows):
    """scikit-survival 0.28.0: concordance_index_ipcw, survival_train = survival_test = gbsg2, tau = 1825."""
    total, points, joint, _ = tables(PooledSites([rows]))
    ours = time_dependent.uno(joint[0], np.ones(joint[0].shape[2], bool), points, total, before=HORIZON)
    assert ours.estimate == pytest.approx(0.6632659989718513, abs=1e-12)


def test_figures_that_do_not_exist(rows):
    late = ScoredSurvival(np.array([[3.0, 1], [2, 1], [1, 1]]), np.array([1.0, 5, 5]), np.array([1.0, 0, 0]))
    total, points, joint, _ = tables(PooledSites([late]))
    with pytest.raises(Undefined, match="followed beyond"):
        time_dependent.auc_at(joint[0], points, total, HORIZON)
    # the last patients leave on one day, one with the event and one without: nobody can be observed beyond
    together = late._replace(event=np.array([1.0, 1, 0]))
    total, points, joint, _ = tables(PooledSites([together]))
    with pytest.raises(Undefined, match="observed any more"):
        time_dependent.uno(joint[0], np.ones(joint[0].shape[2], bool), points, total)
    nobody = PooledSites([take(rows, slice(0, 5))._replace(event=np.zeros(5))])
    total, points, joint, _ = tables(nobody)
    with pytest.raises(Undefined, match="C-index"):
        time_dependent.uno(joint[0], np.ones(joint[0].shape[2], bool), points, total)
    with pytest.raises(Undefined, match="later horizon"):
        time_dependent.integrated(np.ones(1), np.ones(1))
    assert np.isnan(time_dependent.null_brier(total, np.array([10**6]))).all()
    assert len(time_dependent.evaluation_cells((), 1.0)) == 0
