"""Survival calibration: slope equal to lifelines' Cox model, observed risk to its Kaplan-Meier, benefit to counts."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter, datasets

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import concordance, score_bins, survival, survival_calibration
from cohortium.strategies.rows import ScoredSurvival
from tests.strategies.additivity import FixedPointSites, check, odd_sites

HORIZON = 1095
BASELINE = np.array([[0.82], [0.7]])


@pytest.fixture(scope="module")
def rows() -> ScoredSurvival:
    """gbsg2, 686 patients: a continuous score, and the number of nodes (many ties)."""
    frame = datasets.load_gbsg2()
    continuous = 0.05 * frame.pnodes + 0.01 * frame.tsize - 0.002 * frame.progrec - 0.004 * frame.age
    score = np.round(np.column_stack([continuous, frame.pnodes / 10]), 4)
    return ScoredSurvival(score, frame.time.to_numpy(float), frame.cens.to_numpy(float))


def tables(federation, resolution="exact"):
    edges = score_bins.edges(federation, 2, scale="linear", resolution=resolution)
    points = concordance.points(survival.timeline(federation, 1.0), np.array([HORIZON]))
    joint = federation.sum(concordance.joint, edges=edges, points=points, time_step=1.0).patients
    sums = federation.sum(survival_calibration.cell_sums, edges=edges, baseline_survival=BASELINE)
    return points, [
        (joint[m, :, :, : len(lower)], sums.score[m, : len(lower)], sums.risk[m, 0, : len(lower)])
        for m, lower in enumerate(edges)
    ]


def observed(rows, members):
    return 1 - float(KaplanMeierFitter().fit(rows.time[members], rows.event[members]).predict(HORIZON))


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_slope_equals_lifelines(rows, sites):
    _, joint = tables(sites(odd_sites(rows, rows.event)))
    for m, (patients, score, _) in enumerate(joint):
        frame = pd.DataFrame({"x": rows.score[:, m], "t": rows.time, "e": rows.event})
        theirs = CoxPHFitter().fit(frame, "t", "e", fit_options={"precision": 1e-11}).summary.loc["x"]
        ours = survival_calibration.slope(patients, score)
        assert ours.value == pytest.approx(theirs["coef"], rel=1e-9)
        assert ours.standard_error == pytest.approx(theirs["se(coef)"], rel=1e-8)
        assert ours.confidence_interval()[1] == pytest.approx(theirs["coef upper 95%"], rel=1e-8)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_risk_at_the_horizon(rows, sites):
    points, joint = tables(sites(odd_sites(rows, rows.event)))
    for m, (patients, _, risk) in enumerate(joint):
        found = survival_calibration.at_horizon(patients, points, risk, HORIZON, minimum_count=5)
        predicted = 1 - BASELINE[m, 0] ** np.exp(rows.score[:, m])
        everyone = np.ones(686, bool)
        assert found.expected == pytest.approx(predicted.mean(), abs=1e-11)
        assert found.observed == pytest.approx(observed(rows, everyone), abs=1e-12)
        assert found.ratio == pytest.approx(found.observed / found.expected)
        curve = KaplanMeierFitter().fit(rows.time, rows.event)
        n = curve.event_table.at_risk[curve.event_table.index <= HORIZON]
        d = curve.event_table.observed[curve.event_table.index <= HORIZON]
        error = (1 - found.observed) * np.sqrt((d / (n * (n - d))).sum()) / found.observed
        assert np.log(found.ratio_interval[1] / found.ratio) == pytest.approx(1.959963984540054 * error, rel=1e-9)
        order, start = np.sort(rows.score[:, m]), 0
        assert sum(row[4] for row in found.curve) == 686
        for mean, share, lower, upper, count in found.curve:
            members = (rows.score[:, m] >= order[start]) & (rows.score[:, m] <= order[start + count - 1])
            assert members.sum() == count
            assert mean == pytest.approx(predicted[members].mean(), abs=1e-11)
            assert share == pytest.approx(observed(rows, members), abs=1e-12)
            assert lower <= share <= upper
            start += count
        assert 5 <= len(found.curve) <= 11


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_net_benefit_counts_those_called_positive(rows, sites):
    points, joint = tables(sites(odd_sites(rows, rows.event)))
    thresholds = (0.1, 0.2, 0.35, 0.5, 0.999)
    for m, (patients, _, risk) in enumerate(joint):
        found = survival_calibration.net_benefit(patients, points, risk, HORIZON, thresholds)
        predicted = 1 - BASELINE[m, 0] ** np.exp(rows.score[:, m])
        for threshold, benefit, all_ in zip(*found, strict=True):
            positive, odds = predicted >= threshold, threshold / (1 - threshold)
            expected = 0.0
            if positive.any():
                risk_in = observed(rows, positive)
                expected = positive.mean() * (risk_in - (1 - risk_in) * odds)
            assert benefit == pytest.approx(expected, abs=1e-12)
            risk_all = observed(rows, np.ones(686, bool))
            assert all_ == pytest.approx(risk_all - (1 - risk_all) * odds, abs=1e-12)
        assert list(found.thresholds[:4]) == list(thresholds[:4])


def test_without_censoring_it_is_the_share_with_the_event(rows):
    everyone = rows._replace(event=np.ones(686))
    points, joint = tables(PooledSites([everyone]))
    patients, _, risk = joint[0]
    found = survival_calibration.at_horizon(patients, points, risk, HORIZON, minimum_count=5)
    assert found.observed == pytest.approx((rows.time <= HORIZON).mean(), abs=1e-12)


def test_statistic_keeps_its_contract(rows):
    edges = [np.array([-9000, 0, 4000]), np.array([0])]
    check(survival_calibration.cell_sums, rows, edges=edges, baseline_survival=np.array([[0.8, 0.0], [1.0, 0.4]]))


def test_enormous_scores_are_certain():
    rows = ScoredSurvival(np.array([[1e6], [-1e6]]), np.ones(2), np.ones(2))
    sums = survival_calibration.cell_sums.local(rows, edges=[np.array([0])], baseline_survival=np.array([[0.8]]))
    assert sums.risk[0, 0, 0] == pytest.approx(1.0)


def test_figures_that_do_not_exist(rows):
    points, joint = tables(PooledSites([rows._replace(event=np.zeros(686))]))
    patients, score, risk = joint[0]
    with pytest.raises(Undefined, match="needs events"):
        survival_calibration.slope(patients, score)
    with pytest.raises(Undefined, match="nobody had the event"):
        survival_calibration.at_horizon(patients, points, risk, HORIZON, minimum_count=5)
    with pytest.raises(Undefined, match="followed beyond"):
        survival_calibration.at_horizon(patients, points, risk, 10**6, minimum_count=5)
    with pytest.raises(Undefined, match="followed beyond"):
        survival_calibration.net_benefit(patients, points, risk, 10**6, (0.1,))
    _, alike = tables(PooledSites([rows._replace(score=np.ones((686, 2)))]))
    with pytest.raises(Undefined, match="alike"):
        survival_calibration.slope(*alike[0][:2])
    perfect = rows._replace(score=np.round(np.repeat(-rows.time[:, None], 2, 1) / 1000, 4), event=np.ones(686))
    _, ordered = tables(PooledSites([perfect]))
    with pytest.raises(Undefined, match="not finite"):
        survival_calibration.slope(*ordered[0][:2])


def test_golden_slope():
    """lifelines 0.30.3, CoxPHFitter().fit(load_rossi()[["week", "arrest", "prio"]]), Efron ties: coef of prio."""
    frame = datasets.load_rossi()
    rows = ScoredSurvival(
        np.repeat(frame[["prio"]].to_numpy(float), 2, 1), frame.week.to_numpy(float), frame.arrest.to_numpy(float)
    )
    ours = survival_calibration.slope(*tables(PooledSites([rows]))[1][0][:2])
    assert ours.value == pytest.approx(0.100966300, rel=1e-6)
