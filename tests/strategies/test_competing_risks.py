"""Competing risks: incidence equal to lifelines, Gray's test near published values and its limiting cases."""

from pathlib import Path

import numpy as np
import pytest
from lifelines import AalenJohansenFitter, datasets

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import competing_risks, survival
from cohortium.strategies.rows import ScoredCompeting
from cohortium.strategies.validation_settings import Settings
from tests.strategies.additivity import FixedPointSites, check, odd_sites, take

STEP = 0.01  # months, as published
TRANSPLANTS = Path(__file__).parents[1] / "data" / "bmtcrr.txt"


@pytest.fixture(scope="module")
def rows() -> ScoredCompeting:
    """177 transplants; the score is 1 for acute myeloid leukaemia."""
    lines = [line for line in TRANSPLANTS.read_text().splitlines() if not line.startswith("#")]
    words = " ".join(lines).split()
    cause = np.array([int(word[1]) for word in words[::2]])
    score = np.array([[float(word[0] == "M")] for word in words[::2]])
    return ScoredCompeting(score, np.array(words[1::2], float), (cause > 0).astype(float), cause)


def table(federation):
    total = survival.timeline(federation, STEP)
    points = np.flatnonzero(total.events)
    sums = federation.sum(competing_risks.causes, points=points, cutoffs=np.array([5000]), time_step=STEP)
    return np.concatenate([[0.0], points * STEP]), sums.patients[0]


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_incidence_equals_lifelines(rows, sites):
    untied = rows._replace(time=np.round(rows.time + np.arange(177) * 1e-4, 4))  # lifelines breaks ties at random
    federation = sites(odd_sites(untied, untied.event))
    total = survival.timeline(federation, 1e-4)
    points = np.flatnonzero(total.events)
    sums = federation.sum(competing_risks.causes, points=points, cutoffs=np.array([5000]), time_step=1e-4)
    for group in range(2):
        inside = untied.score[:, 0] == group
        ours = competing_risks.aalen_johansen(np.concatenate([[0.0], points * 1e-4]), sums.patients[0, group])
        theirs = AalenJohansenFitter(calculate_variance=True)
        theirs.fit(untied.time[inside], untied.cause[inside], event_of_interest=1)
        density = theirs.cumulative_density_.iloc[:, 0]
        # each at its own event times, in order: the two grids differ by a rounding of the last digit
        at = np.flatnonzero(np.diff(density.to_numpy()) > 1e-12) + 1
        np.testing.assert_allclose(ours.incidence[1:], density.to_numpy()[at], atol=1e-12)
        variance = theirs.variance_.to_numpy()[at]
        np.testing.assert_allclose(ours.standard_error[1:] ** 2, variance, rtol=1e-9)


def test_golden_gray(rows):
    """cmprsk::cuminc as published for these patients (Scrucca et al. 2010): 2.8623325 (p .0907), .4481279 (p .5032).

    Ours are 2.8637 and .4500: the public copy of the data has times of two decimals, and tied times count otherwise.
    """
    causes = table(PooledSites([rows]))[1]
    chi2, p = competing_risks.gray(causes)
    assert chi2 == pytest.approx(2.8623325, abs=0.005)
    assert p == pytest.approx(0.09067592, abs=5e-4)
    chi2, p = competing_risks.gray(causes[:, :, [0, 2, 1]])
    assert chi2 == pytest.approx(0.4481279, abs=0.005)
    assert p == pytest.approx(0.50322531, abs=1e-3)


def test_gray_of_either_group_is_the_same(rows):
    causes = table(PooledSites([rows]))[1]
    assert competing_risks.gray(causes)[0] == pytest.approx(competing_risks.gray(causes[::-1])[0], rel=1e-10)


def test_without_competing_events_it_is_nearly_the_log_rank_test():
    """The scores are the same; the variance is a martingale's instead of the hypergeometric one."""
    frame = datasets.load_gbsg2()
    old = (frame.menostat == "Post").to_numpy(int)
    cause = frame.cens.to_numpy(int)
    causes = np.zeros((2, int(frame.time.max()) + 1, 3), np.int64)
    np.add.at(causes, (old, frame.time.to_numpy(int), cause), 1)
    chi2, _ = competing_risks.gray(causes)
    theirs, _ = survival.log_rank(causes[:, :, 1], survival.at_risk(causes.sum(2)))
    assert chi2 == pytest.approx(theirs, rel=0.05)


def test_under_no_difference_it_is_chi_squared():
    rng = np.random.default_rng(5)
    found = []
    for _ in range(300):
        causes = np.zeros((2, 40, 3), np.int64)
        cause = rng.choice(3, 200, p=[0.3, 0.4, 0.3])
        np.add.at(causes, (rng.integers(0, 2, 200), rng.integers(0, 40, 200), cause), 1)
        found.append(competing_risks.gray(causes)[0])
    assert np.mean(found) == pytest.approx(1, abs=0.25)
    assert np.mean(np.array(found) > 3.841) == pytest.approx(0.05, abs=0.035)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_figures(rows, sites):
    asked = Settings(cutoffs={"aml": 0.5}, time_step=STEP, horizon=(12.0, 500.0))
    federation = sites(odd_sites(rows, rows.event))
    found = competing_risks.validate_competing(federation, ("aml",), asked)["aml"]
    assert federation.rounds == 3
    assert (found["events"], found["competing"]) == (56, 75)
    curve = np.array(found["cumulative_incidence"]["high"])
    assert curve[0].tolist() == [0, 0, 0, 0, 104]
    assert (np.diff(curve[:, 1]) > 0).all()
    assert ((curve[1:, 2] < curve[1:, 1]) & (curve[1:, 1] < curve[1:, 3])).all()
    at = found["incidence_at"]["12"]["low"]
    assert at["ci"][0] < at["estimate"] < at["ci"][1]
    assert "undefined" in found["incidence_at"]["500"]["low"]
    assert found["gray"]["p"] == pytest.approx(0.0906, abs=1e-3)


def test_small_groups_are_not_shown(rows):
    few = take(rows, np.flatnonzero((rows.score[:, 0] == 0) | (np.arange(177) < 12)))
    asked = Settings(cutoffs={"aml": 0.5}, time_step=STEP)
    found = competing_risks.validate_competing(PooledSites([few]), ("aml",), asked)["aml"]
    assert "withheld" in found["cumulative_incidence"]["high"]
    assert "withheld" in found["gray"]
    none = competing_risks.validate_competing(PooledSites([take(rows, slice(0, 3))]), ("aml",), asked)["aml"]
    assert "withheld" in none
    everyone_low = Settings(cutoffs={"aml": 5.0}, time_step=STEP)
    alone = competing_risks.validate_competing(PooledSites([rows]), ("aml",), everyone_low)["aml"]
    assert "undefined" in alone["cumulative_incidence"]["high"]
    assert "undefined" in alone["gray"]


def test_statistic_keeps_its_contract(rows):
    check(competing_risks.causes, rows, points=np.array([100, 500]), cutoffs=np.array([5000]), time_step=STEP)


def test_nobody():
    with pytest.raises(Undefined, match="patients"):
        competing_risks.aalen_johansen(np.zeros(1), np.zeros((1, 3), np.int64))
    with pytest.raises(Undefined, match="Gray"):
        competing_risks.gray(np.zeros((2, 3, 3), np.int64))
