"""Cox: equal to lifelines and statsmodels on the pooled patients, in few sums, and honest about what it cannot fit."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from lifelines import CoxPHFitter, datasets

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import cox, risk_sets
from cohortium.strategies.rows import Survival
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split, take


def standardised(frame: pd.DataFrame, time: str, event: str) -> Survival:
    x = frame.drop(columns=[time, event]).to_numpy(float)
    return Survival((x - x.mean(0)) / x.std(0, ddof=1), frame[time].to_numpy(float), frame[event].to_numpy(float))


@pytest.fixture(scope="module")
def rossi() -> Survival:
    """432 convicts, 114 rearrests in 49 distinct weeks: heavy ties."""
    return standardised(datasets.load_rossi(), "week", "arrest")


@pytest.fixture(scope="module")
def gbsg2() -> Survival:
    """686 patients, 299 events at 270 distinct days."""
    frame = datasets.load_gbsg2()
    numbers = frame[["age", "tsize", "pnodes", "progrec", "estrec", "time", "cens"]]
    return standardised(numbers.assign(therapy=frame.horTh == "yes", third=frame.tgrade == "III"), "time", "cens")


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("name", ["rossi", "gbsg2"])
def test_equals_statsmodels_on_the_pooled_patients(name, ties, sites, request):
    rows = request.getfixturevalue(name)
    federation = sites(odd_sites(rows, rows.event))
    ours = cox.fit(federation, rows.x.shape[1], ties=ties)
    theirs = sm.PHReg(rows.time, rows.x, status=rows.event, ties=ties).fit(disp=0, method="newton", tol=1e-13)
    np.testing.assert_allclose(ours.coefficients, theirs.params, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(ours.standard_errors, theirs.bse, rtol=1e-9)
    np.testing.assert_allclose(ours.p_values, theirs.pvalues, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(ours.confidence_interval(), theirs.conf_int(), rtol=1e-7, atol=1e-10)
    assert ours.log_likelihood == pytest.approx(theirs.llf, rel=1e-12)
    assert ours.events == rows.event.sum()
    assert federation.rounds <= 10  # 2 for the event times, then one a step


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_stratified_equals_lifelines(gbsg2, sites):
    shares = split(gbsg2, [300, 200, 150, 35, 1, 0])
    federation = sites(shares)
    ours = cox.fit(federation, 7, strata="site", time_step=None)
    assert federation.rounds <= 7
    assert federation.numbers <= 7 * (7 + 28 + 2)
    frame = pd.DataFrame(gbsg2.x).assign(time=gbsg2.time, event=gbsg2.event)
    frame["site"] = np.repeat(range(6), [300, 200, 150, 35, 1, 0])
    theirs = CoxPHFitter().fit(frame, "time", "event", strata="site", fit_options={"precision": 1e-13})
    np.testing.assert_allclose(ours.coefficients, theirs.params_, atol=5e-9)  # lifelines' own stopping rule
    np.testing.assert_allclose(ours.standard_errors, theirs.standard_errors_, atol=1e-9)
    assert ours.log_likelihood == pytest.approx(theirs.log_likelihood_, rel=1e-12)
    assert ours.baseline is None


def test_one_stratum_is_the_unstratified_fit(rossi):
    strata = cox.fit(PooledSites([rossi]), 7, strata="site")
    pooled = cox.fit(PooledSites([rossi]), 7)
    np.testing.assert_allclose(strata.coefficients, pooled.coefficients, atol=1e-10)
    np.testing.assert_allclose(strata.covariance, pooled.covariance, rtol=1e-8, atol=1e-13)


def test_baseline_equals_lifelines(gbsg2):
    federation = PooledSites(split(gbsg2, [400, 286]))
    ours = cox.fit(federation, 7)
    frame = pd.DataFrame(gbsg2.x).assign(time=gbsg2.time, event=gbsg2.event)
    theirs = CoxPHFitter().fit(frame, "time", "event", fit_options={"precision": 1e-13})
    hazard = theirs.baseline_cumulative_hazard_.iloc[:, 0]
    np.testing.assert_allclose(ours.baseline.cumulative_hazard, hazard.loc[ours.baseline.time], rtol=1e-8)
    times = np.array([0.0, 100.5, 1095, 5000])
    expected = np.exp(-np.r_[0, [hazard[hazard.index <= t].iloc[-1] for t in times[1:]]])
    np.testing.assert_allclose(ours.baseline.survival(times), expected, rtol=1e-8)
    again = cox.baseline(federation, ours.coefficients, time_step=1.0)
    np.testing.assert_allclose(again.cumulative_hazard, ours.baseline.cumulative_hazard, rtol=1e-10)


def test_sites_do_not_matter(rossi):
    one = cox.fit(PooledSites([rossi]), 7)
    many = cox.fit(PooledSites(odd_sites(rossi, rossi.event)[::-1]), 7)
    np.testing.assert_allclose(many.coefficients, one.coefficients, rtol=1e-10)  # summation order only


def test_a_wider_time_grid_floors_times(rossi):
    coarse = cox.fit(PooledSites([rossi]), 7, time_step=4.0)
    floored = cox.fit(PooledSites([rossi._replace(time=np.floor(rossi.time / 4) * 4)]), 7)
    np.testing.assert_allclose(coarse.coefficients, floored.coefficients, rtol=1e-12)
    np.testing.assert_array_equal(coarse.baseline.time % 4, 0)


def test_statistics_keep_their_contract(rossi):
    rows = take(rossi, slice(0, 120))
    rng = np.random.default_rng(3)
    points = np.unique(rows.time[rows.event == 1]).astype(np.int64)
    check(
        risk_sets.risk_sets,
        rows,
        coefficients=rng.normal(size=7) / 5,
        points=points,
        tied=np.array([0, 2]),
        hazard=rng.random(len(points)),
        relief=rng.random(len(points)),
        time_step=1.0,
    )
    for ties in ("efron", "breslow"):
        check(risk_sets.stratum, rows, rtol=1e-11, coefficients=rng.normal(size=7) / 5, ties=ties, time_step=None)


@pytest.mark.parametrize("strata", ["none", "site"])
def test_what_cannot_be_fitted_is_named(rossi, strata):
    # the earlier the event, the larger the covariate: the likelihood rises for ever
    perfect = rossi._replace(x=np.column_stack([rossi.x[:, 0], (rossi.time.mean() - rossi.time) / rossi.time.std()]))
    perfect = take(perfect, rossi.event == 1)
    with pytest.raises(NotIdentifiable, match="column 1 separates"):
        cox.fit(PooledSites([perfect]), 2, strata=strata)
    with pytest.raises(NotIdentifiable, match="combination"):
        cox.fit(PooledSites([rossi._replace(x=rossi.x[:, [0, 1, 1]])]), 3, strata=strata)
    with pytest.raises(NotIdentifiable, match="no patient had the event"):
        cox.fit(PooledSites([rossi._replace(event=np.zeros(432))]), 7, strata=strata)
    with pytest.raises(NotIdentifiable, match="no patient had the event"):
        cox.fit(PooledSites([take(rossi, slice(0, 0))]), 7, strata=strata)


def test_times_as_they_are_need_strata(rossi):
    with pytest.raises(ValueError, match="common time grid"):
        cox.fit(PooledSites([rossi]), 7, time_step=None)


def test_golden_leukaemia():
    """6-MP against placebo, Freireich et al., Blood 1963.

    Log hazard ratios: Breslow 1.509 (se .410), Kleinbaum & Klein, Survival Analysis (2012), chapter 3, model 1; Efron
    1.572 (se .412), coxph of R's survival on MASS::gehan.
    """
    drug = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
    relapsed = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    placebo = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
    rows = Survival(
        np.repeat([[0.0], [1.0]], 21, axis=0), np.array(drug + placebo, float), np.r_[relapsed, np.ones(21)]
    )
    for ties, estimate, error in (("breslow", 1.509, 0.410), ("efron", 1.572, 0.412)):
        fitted = cox.fit(PooledSites(split(rows, [10, 31, 1])), 1, ties=ties)
        assert fitted.coefficients[0] == pytest.approx(estimate, abs=5e-4)
        assert fitted.standard_errors[0] == pytest.approx(error, abs=5e-4)
        assert fitted.hazard_ratios[0] == pytest.approx(np.exp(estimate), rel=1e-3)
