"""Survival of risk groups: equal to lifelines, and to the definitions where it has none."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter, datasets
from lifelines.statistics import StatisticalResult, logrank_test
from lifelines.utils import median_survival_times, restricted_mean_survival_time

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import survival, survival_groups
from cohortium.strategies.rows import ScoredSurvival
from cohortium.strategies.validation_settings import Settings
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split

HORIZONS = (1095, 1825)
CUT = np.array([5000])


@pytest.fixture(scope="module")
def rows() -> ScoredSurvival:
    """gbsg2, 686 patients; the score is the number of positive nodes over ten."""
    frame = datasets.load_gbsg2()
    return ScoredSurvival(
        np.round(frame[["pnodes"]].to_numpy(float) / 10, 4), frame.time.to_numpy(float), frame.cens.to_numpy(float)
    )


def counts(federation):
    """Time, events and at risk of the low and high group, cut as the validation cuts them."""
    total = survival.timeline(federation, 1.0)
    points = np.union1d(np.flatnonzero(total.events), np.array(HORIZONS) + 1)
    sums = federation.sum(survival.exits_by_group, points=points, cutoffs=CUT, time_step=1.0)
    return np.concatenate([[0.0], points]), sums.events[0], survival.at_risk(sums.exits[0])


def groups(rows):
    high = rows.score[:, 0] >= 0.5
    return ~high, high


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_medians_equal_lifelines(rows, sites):
    time, events, at_risk = counts(sites(odd_sites(rows, rows.event)))
    for g, inside in enumerate(groups(rows)):
        theirs = KaplanMeierFitter().fit(rows.time[inside], rows.event[inside])
        low, high = median_survival_times(theirs.confidence_interval_).iloc[0]
        ours = survival_groups.median_interval(survival.kaplan_meier(time, events[g], at_risk[g]))
        assert ours[0] == low
        assert ours[1] == (None if np.isinf(high) else high)
    assert ours[1] is not None  # the high risk group's median has both limits


def test_a_median_that_is_not_reached():
    curve = survival.kaplan_meier(np.array([0.0, 1.0]), np.array([0, 1]), np.array([100, 100]))
    with pytest.raises(Undefined, match="above one half"):
        survival_groups.median_interval(curve)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_survival_and_restricted_means_at_horizons(rows, sites):
    figures = survival_groups.figures(*counts(sites(odd_sites(rows, rows.event))), Settings(horizon=HORIZONS))
    for horizon in HORIZONS:
        at, means = figures["survival_at"][str(horizon)], figures["rmst_at"][str(horizon)]
        for group, inside in zip(("low", "high"), groups(rows), strict=True):
            theirs = KaplanMeierFitter().fit(rows.time[inside], rows.event[inside])
            assert at[group]["estimate"] == pytest.approx(float(theirs.predict(horizon)), abs=1e-12)
            interval = theirs.confidence_interval_.loc[:horizon].iloc[-1].to_numpy()
            np.testing.assert_allclose(at[group]["ci"], interval, atol=1e-12)
            assert at[group]["at_risk"] == (rows.time[inside] > horizon).sum()
            expected = restricted_mean_survival_time(theirs, t=horizon)
            assert means[group]["estimate"] == pytest.approx(expected, rel=1e-12)
            assert means[group]["se"] == pytest.approx(greenwood(rows, inside, horizon), rel=1e-10)
        difference = means["high"]["estimate"] - means["low"]["estimate"]
        assert means["difference"]["estimate"] == pytest.approx(difference)
        assert means["difference"]["se"] == pytest.approx(np.hypot(means["high"]["se"], means["low"]["se"]))


def greenwood(rows, inside, horizon):
    """Standard error of a restricted mean from the curve, by the definition, one event time after another."""
    time, event = rows.time[inside], rows.event[inside]
    curve = KaplanMeierFitter().fit(time, event).survival_function_.iloc[:, 0]
    steps, variance = curve.index.to_numpy(), 0.0
    for t in np.unique(time[(event == 1) & (time <= horizon)]):
        inside = (steps >= t) & (steps < horizon)
        area = (curve.to_numpy()[inside] * np.diff(np.append(steps[inside], horizon))).sum()
        n, d = (time >= t).sum(), ((time == t) & (event == 1)).sum()
        variance += area**2 * d / (n * (n - d))
    return np.sqrt(variance)


def test_the_error_of_a_restricted_mean_agrees_with_the_jackknife(rows):
    high = groups(rows)[1]
    time, event = rows.time[high], rows.event[high]
    n = len(time)
    without = [
        restricted_mean_survival_time(KaplanMeierFitter().fit(time[keep], event[keep]), t=1095)
        for keep in ~np.eye(n, dtype=bool)
    ]
    jackknife = np.sqrt((n - 1) / n * ((without - np.mean(without)) ** 2).sum())
    figures = survival_groups.figures(*counts(PooledSites([rows])), Settings(horizon=HORIZONS))
    assert figures["rmst_at"]["1095"]["high"]["se"] == pytest.approx(jackknife, rel=0.02)


def test_golden_restricted_mean():
    """Freireich's 6-MP arm (lifelines 0.30.3 load_leukemia, Rx = 0): mean up to 23 weeks.

    By hand from the published curve (Kalbfleisch & Prentice 1980, table 1.3): 6, 7, 10, 13, 16, 22, 23.
    """
    frame = datasets.load_leukemia()
    arm = frame[frame.Rx == 0]
    points = np.arange(24)
    time, event = arm.t.to_numpy(int), arm.status.to_numpy(int)
    events = np.bincount(time[event == 1], minlength=24)[:24]
    at_risk = np.array([(time >= t).sum() for t in points])
    ours = survival_groups.restricted_mean(points.astype(float), events, at_risk, 23)
    steps = [(6, 1), (1, 0.857143), (3, 0.806723), (3, 0.752941), (3, 0.690196), (6, 0.627451), (1, 0.537815)]
    assert ours.estimate == pytest.approx(sum(width * height for width, height in steps), abs=1e-5)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_log_rank_within_sites_adds_the_tests_of_the_sites(rows, sites):
    shares = odd_sites(rows, rows.event)
    federation = sites(shares)
    ours = survival_groups.stratified_log_rank(federation, CUT, time_step=1.0)[0]
    assert federation.rounds == 1
    excess = variance = 0.0
    for site in shares:
        for t in np.unique(site.time[site.event == 1]):
            high = site.score[:, 0] >= 0.5
            n, n1 = (site.time >= t).sum(), ((site.time >= t) & high).sum()
            died = (site.time == t) & (site.event == 1)
            d = died.sum()
            excess += (died & high).sum() - d * n1 / n
            variance += d * n1 / n * (1 - n1 / n) * (n - d) / max(n - 1, 1)
    assert ours["chi2"] == pytest.approx(excess**2 / variance, rel=1e-9)
    alone = survival_groups.stratified_log_rank(PooledSites([rows]), CUT, time_step=1.0)[0]
    low, high = groups(rows)
    theirs = logrank_test(rows.time[high], rows.time[low], rows.event[high], rows.event[low])
    assert isinstance(theirs, StatisticalResult)
    assert alone == pytest.approx({"chi2": theirs.test_statistic, "p": theirs.p_value}, rel=1e-9)


def test_it_is_the_score_test_of_a_stratified_cox_model(rows):
    """Without ties the log-rank statistic is the score statistic of Cox's likelihood, near its Wald test."""
    untied = rows._replace(time=rows.time + np.random.default_rng(3).random(686) / 2)
    shares = split(untied, [200, 186, 300])
    ours = survival_groups.stratified_log_rank(PooledSites(shares), CUT, time_step=1e-6)[0]
    frame = pd.DataFrame({"t": untied.time, "e": untied.event, "g": (rows.score[:, 0] >= 0.5).astype(float)})
    frame["s"] = np.repeat([0, 1, 2], [200, 186, 300])
    wald = CoxPHFitter().fit(frame, "t", "e", strata=["s"]).summary.loc["g", "z"] ** 2
    assert ours["chi2"] == pytest.approx(wald, rel=0.1)


def test_statistic_keeps_its_contract(rows):
    check(survival_groups.log_rank_within_site, rows, cutoffs=CUT, time_step=30.0)


def test_horizons_that_too_few_reach(rows):
    time, events, at_risk = counts(PooledSites([rows]))
    figures = survival_groups.figures(time, events, at_risk, Settings(horizon=(1825,), minimum_count=10**4))
    assert "withheld" in figures["survival_at"]["1825"]["low"]
    beyond = survival_groups.figures(time, events, at_risk, Settings(horizon=(10**6,)))
    assert "undefined" in beyond["rmst_at"]["1000000"]["low"]
    assert "undefined" in beyond["rmst_at"]["1000000"]["difference"]
