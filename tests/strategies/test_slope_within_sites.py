"""Slope within sites: equal to statsmodels' Cox model with sites as strata."""

import numpy as np
import pytest
from lifelines import datasets
from statsmodels.duration.api import PHReg

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import slope_within_sites
from cohortium.strategies.rows import ScoredSurvival
from tests.strategies.additivity import FixedPointSites, check, odd_sites


@pytest.fixture(scope="module")
def rows() -> ScoredSurvival:
    """gbsg2, 686 patients: a continuous score, and the number of nodes (many ties)."""
    frame = datasets.load_gbsg2()
    continuous = 0.05 * frame.pnodes + 0.01 * frame.tsize - 0.002 * frame.progrec - 0.004 * frame.age
    score = np.round(np.column_stack([continuous, frame.pnodes / 10]), 4)
    return ScoredSurvival(score, frame.time.to_numpy(float), frame.cens.to_numpy(float))


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("step", [1.0, 30.0])
def test_it_equals_a_stratified_cox_model(rows, sites, step):
    shares = odd_sites(rows, rows.event)
    federation = sites(shares)
    found = slope_within_sites.slopes(federation, 2, time_step=step)
    assert federation.rounds <= 7
    for m in range(2):
        time, event, score = (
            np.concatenate(values) for values in zip(*((i.time, i.event, i.score) for i in shares), strict=True)
        )
        strata = np.repeat(np.arange(len(shares)), [len(site.time) for site in shares])
        model = PHReg(np.floor(time / step), score[:, [m]], status=event, strata=strata, ties="efron")
        theirs = model.fit(method="newton", tol=1e-13)
        assert found[m].value == pytest.approx(theirs.params[0], rel=1e-9)
        assert found[m].standard_error == pytest.approx(theirs.bse[0], rel=1e-8)


def test_golden_lung():
    """lifelines 0.30.3: CoxPHFitter on load_lung's age over ten, strata = inst (its real institutions), Efron ties."""
    frame = datasets.load_lung()[["time", "status", "age", "inst"]].dropna()
    shares = [
        ScoredSurvival(part[["age"]].to_numpy(float) / 10, part.time.to_numpy(float), part.status.to_numpy(float))
        for _, part in frame.groupby("inst")
    ]
    assert len(shares) == 18
    assert slope_within_sites.slopes(PooledSites(shares), 1, time_step=1.0)[0].value == pytest.approx(
        0.216426253, abs=1e-7
    )


def test_statistic_keeps_its_contract(rows):
    check(slope_within_sites.terms, rows, slopes=np.array([1.0, -0.5]), time_step=30.0)


def test_slopes_that_do_not_exist(rows):
    order = np.round(-rows.time[:, None] / 1000, 4)
    perfect = ScoredSurvival(np.column_stack([order, np.ones(686)]), rows.time, np.ones(686))
    for none in slope_within_sites.slopes(PooledSites([perfect]), 2, time_step=1.0):
        assert isinstance(none, Undefined)
    lost = slope_within_sites.slopes(PooledSites([rows._replace(event=np.zeros(686))]), 2, time_step=1.0)
    assert all(isinstance(none, Undefined) for none in lost)
