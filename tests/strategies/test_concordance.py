"""Concordance: equal to lifelines and to the definitions pair by pair, within its bound when binned."""

import numpy as np
import pytest
from lifelines import datasets
from lifelines.utils import concordance_index

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import concordance, score_bins, survival
from cohortium.strategies.rows import ScoredSurvival
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split, take

HORIZONS = np.array([365, 1000, 1825])
BASELINE = np.array([[0.98, 0.8, 0.55], [0.95, 0.7, 0.4]])


@pytest.fixture(scope="module")
def rows() -> ScoredSurvival:
    """gbsg2, 686 patients: a continuous score, and the number of nodes (many ties)."""
    frame = datasets.load_gbsg2()
    continuous = 0.05 * frame.pnodes + 0.01 * frame.tsize - 0.002 * frame.progrec - 0.004 * frame.age
    score = np.round(np.column_stack([continuous, frame.pnodes / 10]), 4)
    return ScoredSurvival(score, frame.time.to_numpy(float), frame.cens.to_numpy(float))


def tables(federation, resolution):
    edges = score_bins.edges(federation, 2, scale="linear", resolution=resolution)
    total = survival.timeline(federation, 1.0)
    points = concordance.points(total, HORIZONS)
    return edges, total, points, federation.sum(concordance.joint, edges=edges, points=points, time_step=1.0).patients


def pair_by_pair(score, time, event):
    """Concordant and comparable pairs of each patient, by the definition."""
    concordant, comparable = np.zeros((2, len(time)))
    for i in np.flatnonzero(event == 1):
        later = (time > time[i]) | ((time == time[i]) & (event == 0))
        right = (score < score[i]) + 0.5 * (score == score[i])
        concordant[later] += right[later]
        comparable[later] += 1
        concordant[i] += right[later].sum()
        comparable[i] += later.sum()
    return concordant, comparable


def uncensored(time, event, at):
    """Probability of not being censored up to `at`, deaths leaving first (the definition, one time after another)."""
    probability = 1.0
    for t in np.unique(time[(event == 0) & (time <= at)]):
        staying = (time >= t).sum() - ((time == t) & (event == 1)).sum()
        probability *= 1 - ((time == t) & (event == 0)).sum() / staying
    return probability


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_exact_cells_equal_lifelines(rows, sites):
    federation = sites(odd_sites(rows, rows.event))
    edges, *_, joint = tables(federation, "exact")
    for m, lower in enumerate(edges):
        score = rows.score[:, m]
        ours = concordance.harrell(joint[m, :, :, : len(lower)], np.ones(len(lower), bool))
        assert ours.estimate == pytest.approx(concordance_index(rows.time, -score, rows.event), abs=1e-12)
        assert ours.bound == 0
        a, b = pair_by_pair(score, rows.time, rows.event)
        error = 2 * np.sqrt(((a - a.sum() / b.sum() * b) ** 2).sum()) / b.sum()
        assert ours.standard_error == pytest.approx(error, rel=1e-10)


def test_standard_error_agrees_with_the_jackknife(rows):
    some = take(rows, slice(0, 150))
    edges, *_, joint = tables(PooledSites([some]), "exact")
    ours = concordance.harrell(joint[0, :, :, : len(edges[0])], np.ones(len(edges[0]), bool))
    kept = ~np.eye(150, dtype=bool)
    without = [concordance_index(some.time[k], -some.score[k, 0], some.event[k]) for k in kept]
    jackknife = np.sqrt(149 / 150 * np.sum((without - np.mean(without)) ** 2))
    assert ours.standard_error == pytest.approx(jackknife, rel=0.03)


def test_bins_stay_within_their_bound(rows):
    edges, *_, joint = tables(PooledSites(split(rows, [600, 86])), "binned")
    for m, lower in enumerate(edges):
        single = score_bins.widths(lower, "linear") == 1
        ours = concordance.harrell(joint[m, :, :, : len(lower)], single)
        exact = concordance_index(rows.time, -rows.score[:, m], rows.event)
        assert abs(ours.estimate - exact) <= ours.bound + 1e-12
        assert ours.bound < 0.02


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_auc_at_equals_the_definition(rows, sites):
    edges, total, points, joint = tables(sites(odd_sites(rows, rows.event)), "exact")
    probability = concordance.observed(total)
    for m, horizon in np.ndindex(2, 3):
        at = HORIZONS[horizon]
        cases = (rows.time <= at) & (rows.event == 1)
        controls = rows.score[rows.time > at, m]
        weights = [1 / uncensored(rows.time, rows.event, t) for t in rows.time[cases]]
        right = [(controls < s).mean() + 0.5 * (controls == s).mean() for s in rows.score[cases, m]]
        ours = concordance.auc_at(joint[m, :, :, : len(edges[m])], points, probability, int(at))
        assert ours == pytest.approx(np.average(right, weights=weights), abs=1e-12)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_brier_equals_the_definition(rows, sites):
    federation = sites(odd_sites(rows, rows.event))
    total = survival.timeline(federation, 1.0)
    ours = concordance.brier(federation, total, HORIZONS, BASELINE, time_step=1.0)
    own = np.array([uncensored(rows.time, rows.event, t) for t in rows.time])
    for m, h in np.ndindex(2, 3):
        predicted = BASELINE[m, h] ** np.exp(rows.score[:, m])
        gone = (rows.time <= HORIZONS[h]) & (rows.event == 1)
        here = (rows.time > HORIZONS[h]) / uncensored(rows.time, rows.event, HORIZONS[h])
        errors = np.where(gone, predicted**2 / np.where(gone, own, 1), 0) + here * (1 - predicted) ** 2
        assert ours[m, h] == pytest.approx(errors.mean(), abs=1e-11)


def test_golden_scikit_survival(rows):
    """scikit-survival 0.28.0: cumulative_dynamic_auc and brier_score, survival_train = survival_test = gbsg2."""
    federation = PooledSites(split(rows, [300, 386]))
    edges, total, points, joint = tables(federation, "exact")
    probability = concordance.observed(total)
    ours = [concordance.auc_at(joint[0, :, :, : len(edges[0])], points, probability, int(at)) for at in HORIZONS]
    np.testing.assert_allclose(ours, [0.7442194250311167, 0.7277365060938781, 0.7034333602620735], atol=1e-12)
    brier = concordance.brier(federation, total, HORIZONS, BASELINE, time_step=1.0)[0]
    np.testing.assert_allclose(brier, [0.0797510043962769, 0.21255885201352712, 0.22196835192305303], atol=1e-12)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_within_site_compares_patients_of_one_site(rows, sites):
    shares = odd_sites(rows, rows.event)
    federation = sites(shares)
    found = concordance.within_site(federation)
    assert federation.rounds == 1
    for m in range(2):
        parts = [pair_by_pair(site.score[:, m], site.time, site.event) for site in shares]
        a, b = (np.concatenate(values) for values in zip(*parts, strict=True))
        assert found[m].estimate == pytest.approx(a.sum() / b.sum(), rel=1e-12)
        error = 2 * np.sqrt(((a - a.sum() / b.sum() * b) ** 2).sum()) / b.sum()
        assert found[m].standard_error == pytest.approx(error, rel=1e-9)
    one = concordance.within_site(PooledSites([rows]))[0]
    assert one.estimate == pytest.approx(concordance_index(rows.time, -rows.score[:, 0], rows.event), abs=1e-12)


def test_statistics_keep_their_contract(rows):
    some = take(rows, slice(0, 80))
    points = np.unique(some.time[some.event == 1]).astype(np.int64)
    check(concordance.joint, some, edges=[np.array([-9000, 0, 4000]), np.array([0])], points=points, time_step=1.0)
    check(concordance.pairs_within_site, some, time_step=None)
    check(
        concordance.squared_errors,
        some,
        horizons=HORIZONS,
        baseline_survival=BASELINE,
        points=points,
        observed=np.linspace(1, 0.5, len(points)),
        observed_at_horizon=np.array([0.9, 0.7, 0.0]),
        time_step=1.0,
    )


def test_figures_that_do_not_exist(rows):
    lost = PooledSites([rows._replace(event=np.zeros(686))])
    edges, total, points, joint = tables(lost, "binned")
    with pytest.raises(Undefined, match="C-index"):
        concordance.harrell(joint[0, :, :, : len(edges[0])], np.zeros(len(edges[0]), bool))
    with pytest.raises(Undefined, match="C-index"):
        concordance.within_site(lost)
    for at in (1000, 10**6):
        with pytest.raises(Undefined, match="followed beyond"):
            concordance.auc_at(joint[0], points, concordance.observed(total), at)
    assert np.isnan(concordance.brier(lost, total, np.array([10**6]), BASELINE[:, :1], time_step=1.0)).all()


def test_cases_that_nobody_could_have_been_observed_at_have_no_auc():
    patients = np.zeros((3, 2, 4), dtype=np.int64)  # deaths at both points, nobody followed beyond the second
    patients[1:, 1] = [[1, 0, 2, 0], [0, 3, 0, 1]]
    with pytest.raises(Undefined, match="followed beyond"):
        concordance.auc_at(patients, np.array([0, 1]), np.array([1.0, 0.0]), 1)


def test_golden_rossi():
    """lifelines 0.30.3: concordance_index(week, -(prio - age / 10), arrest)."""
    frame = datasets.load_rossi()
    score = np.round((frame.prio - frame.age / 10).to_numpy(float), 4)[:, None]
    rows = ScoredSurvival(score, frame.week.to_numpy(float), frame.arrest.to_numpy(float))
    assert concordance.within_site(PooledSites([rows]))[0].estimate == pytest.approx(0.6060776854069795, abs=1e-12)
