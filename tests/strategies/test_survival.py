"""Survival: Kaplan-Meier, log-rank and hazard ratio equal to lifelines on the pooled patients."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter, datasets
from lifelines.statistics import logrank_test

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import survival
from cohortium.strategies.rows import ScoredSurvival
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split, take


@pytest.fixture(scope="module")
def rows() -> ScoredSurvival:
    """gbsg2, 686 patients; the score is the number of positive nodes over ten."""
    frame = datasets.load_gbsg2()
    return ScoredSurvival(
        np.round(frame[["pnodes"]].to_numpy(float) / 10, 4), frame.time.to_numpy(float), frame.cens.to_numpy(float)
    )


def groups(federation, cut=0.5, time_step=1.0):
    """Event times, events and at risk of the low and high group."""
    points = np.flatnonzero(survival.timeline(federation, time_step).events)
    total = federation.sum(
        survival.exits_by_group, points=points, cutoffs=np.array([round(cut * 10_000)]), time_step=time_step
    )
    return points * time_step, total.events[0, :, 1:], survival.at_risk(total.exits[0])[:, 1:]


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_curves_equal_lifelines(rows, sites):
    federation = sites(odd_sites(rows, rows.event))
    time, events, at_risk = groups(federation)
    assert federation.rounds == 3
    high = rows.score[:, 0] >= 0.5
    for group, inside in enumerate((~high, high)):
        ours = survival.kaplan_meier(time, events[group], at_risk[group])
        theirs = KaplanMeierFitter().fit(rows.time[inside], rows.event[inside])
        np.testing.assert_allclose(ours.survival, theirs.survival_function_.iloc[:, 0].loc[ours.time], rtol=1e-12)
        interval = theirs.confidence_interval_.loc[ours.time[1:]].to_numpy()
        np.testing.assert_allclose(np.column_stack([ours.lower, ours.upper])[1:], interval, rtol=1e-9)
        np.testing.assert_array_equal(ours.at_risk[1:], theirs.event_table.at_risk.loc[ours.time[1:]])
        if np.isfinite(theirs.median_survival_time_):
            assert ours.median == theirs.median_survival_time_
        else:
            with pytest.raises(Undefined, match="above one half"):
                ours.median  # noqa: B018


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_log_rank_and_hazard_ratio_equal_lifelines(rows, sites):
    _, events, at_risk = groups(sites(split(rows, [400, 285, 1])))
    high = rows.score[:, 0] >= 0.5
    theirs = logrank_test(rows.time[high], rows.time[~high], rows.event[high], rows.event[~high])
    chi2, p = survival.log_rank(events, at_risk)
    assert chi2 == pytest.approx(theirs.test_statistic, rel=1e-10)
    assert p == pytest.approx(theirs.p_value, rel=1e-8)
    frame = pd.DataFrame({"high": high * 1.0, "time": rows.time, "event": rows.event})
    model = CoxPHFitter().fit(frame, "time", "event", fit_options={"precision": 1e-13})
    ratio = survival.hazard_ratio(events, at_risk)
    assert ratio.log == pytest.approx(model.params_.iloc[0], rel=1e-7)
    assert ratio.standard_error == pytest.approx(model.standard_errors_.iloc[0], rel=1e-7)
    np.testing.assert_allclose(ratio.confidence_interval(), np.exp(model.confidence_intervals_.iloc[0]), rtol=1e-6)


def test_the_curve_stops_where_few_are_at_risk(rows):
    time, events, at_risk = groups(PooledSites([rows]))
    whole = survival.kaplan_meier(time, events[1], at_risk[1])
    shown = survival.kaplan_meier(time, events[1], at_risk[1], minimum_count=20)
    assert shown.at_risk.min() >= 20
    assert whole.at_risk.min() < 20
    np.testing.assert_array_equal(shown.survival, whole.survival[: len(shown.survival)])


def test_wide_cells_floor_times(rows):
    time, events, at_risk = groups(PooledSites(split(rows, [300, 386])), time_step=30.0)
    floored = rows._replace(time=np.floor(rows.time / 30) * 30)
    again, events_again, at_risk_again = groups(PooledSites([floored]))
    np.testing.assert_array_equal(time, again)
    np.testing.assert_array_equal(events, events_again)
    np.testing.assert_array_equal(at_risk, at_risk_again)


def test_a_time_on_a_decimal_grid_stays_in_its_cell():
    cells = np.arange(1000)
    np.testing.assert_array_equal(survival.time_cell(cells * 0.1, 0.1), cells)
    np.testing.assert_array_equal(survival.time_cell(cells * (30 / 30.4375), 30 / 30.4375), cells)


def test_statistics_keep_their_contract(rows):
    some = take(rows, slice(0, 90))
    check(survival.extent, some, time_step=1.0)
    check(survival.exits, some, cells=1000, time_step=1.0)
    check(survival.exits_by_group, some, points=np.array([100, 800]), cutoffs=np.array([3000]), time_step=1.0)


def test_survival_that_falls_to_zero_keeps_finite_limits():
    curve = survival.kaplan_meier(np.array([1.0, 2, 3]), np.array([2, 1, 2]), np.array([5, 3, 2]))
    np.testing.assert_allclose(curve.survival, [1, 0.6, 0.4, 0])
    assert np.isfinite(np.concatenate([curve.lower, curve.upper])).all()
    assert curve.upper[-1] == curve.upper[-2]
    alone = survival.kaplan_meier(np.array([4.0]), np.array([1]), np.array([1]))
    np.testing.assert_allclose([alone.survival[-1], alone.lower[-1], alone.upper[-1]], [0, 0, 1])
    assert alone.median == 4


def test_figures_that_do_not_exist():
    nobody = survival.timeline(PooledSites([ScoredSurvival(np.zeros((0, 1)), np.zeros(0), np.zeros(0))]), 1.0)
    assert not nobody.events.any()
    with pytest.raises(Undefined, match="needs patients"):
        survival.kaplan_meier(np.zeros(0), np.zeros(0, int), np.zeros(0, int))
    one_group = np.array([[0, 0], [1, 1]]), np.array([[0, 0], [5, 4]])
    with pytest.raises(Undefined, match="both groups"):
        survival.log_rank(*one_group)
    for events, at_risk in (one_group, (np.array([[0, 0], [1, 1]]), np.array([[5, 4], [5, 4]])), one_group):
        with pytest.raises(Undefined, match="not finite"):
            survival.hazard_ratio(events, at_risk)


def test_golden_leukaemia():
    """6-MP against placebo, Freireich et al., Blood 1963.

    Kleinbaum & Klein, Survival Analysis (2012), chapter 2: survival on 6-MP .8571, .8067, .7529, .6902, .6275,
    .5378, .4482; medians 23 and 8 weeks; log-rank chi-squared 16.793. Efron's log hazard ratio 1.572
    (coxph of R's survival on MASS::gehan).
    """
    drug = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
    relapsed = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    placebo = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
    rows = ScoredSurvival(
        np.repeat([[0.0], [1.0]], 21, axis=0), np.array(drug + placebo, float), np.r_[relapsed, np.ones(21)]
    )
    time, events, at_risk = groups(PooledSites(split(rows, [11, 30, 1])))
    curve = survival.kaplan_meier(time, events[0], at_risk[0])
    np.testing.assert_allclose(curve.survival[1:], [0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482], atol=5e-5)
    np.testing.assert_array_equal(curve.at_risk[1:], [21, 17, 15, 12, 11, 7, 6])
    assert curve.median == 23
    assert survival.kaplan_meier(time, events[1], at_risk[1]).median == 8
    assert survival.log_rank(events, at_risk)[0] == pytest.approx(16.793, abs=5e-4)
    assert survival.hazard_ratio(events, at_risk).log == pytest.approx(1.572, abs=5e-4)
