"""Proportional hazards: equal to lifelines' test, on the grid and stratified."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, datasets
from lifelines.statistics import proportional_hazard_test

from cohortium.common.federation import PooledSites
from cohortium.strategies import cox, proportional_hazards
from cohortium.strategies.rows import Survival
from tests.strategies.additivity import FixedPointSites, check, split


@pytest.fixture(scope="module")
def rows() -> Survival:
    """432 convicts; the effect of age is known to fade."""
    frame = datasets.load_rossi()
    x = frame.drop(columns=["week", "arrest"]).to_numpy(float)
    return Survival((x - x.mean(0)) / x.std(0), frame.week.to_numpy(float), frame.arrest.to_numpy(float))


SIZES = [200, 130, 100, 2, 0]


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("transform", ["identity", "log"])
@pytest.mark.parametrize("strata", ["none", "site"])
def test_equals_lifelines(rows, strata, transform, kind):
    federation = kind(split(rows, SIZES))
    step = 1.0 if strata == "none" else None
    fit = cox.fit(federation, 7, strata=strata, time_step=step)
    before = federation.rounds
    ours = proportional_hazards.examine(federation, fit, transform=transform, ties="efron", time_step=step)
    assert federation.rounds == before + 1
    frame = pd.DataFrame(rows.x).assign(time=rows.time, event=rows.event, site=np.repeat(range(5), SIZES))
    stratified = {"strata": "site"} if strata == "site" else {}
    frame = frame if stratified else frame.drop(columns="site")
    theirs = CoxPHFitter().fit(frame, "time", "event", fit_options={"precision": 1e-13}, **stratified)
    middle = 0.5 if strata == "none" else 0.0  # of a cell of the grid

    def transformed(time: np.ndarray, event: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return np.log(time + middle) if transform == "log" else time

    test = proportional_hazard_test(theirs, frame, time_transform=transformed)
    np.testing.assert_allclose(ours.chi2, test.test_statistic, rtol=1e-6, atol=1e-7)  # its fit stops at 2e-8
    np.testing.assert_allclose(ours.p, test.p_value, rtol=1e-5)
    assert ours.p[1] < 0.01 < ours.p[0]


def test_all_columns_together_do_not_depend_on_the_basis(rows):
    """The joint test of seven columns is that of any seven combinations of them."""
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((7, 7)))[0]
    found = []
    for x in (rows.x, rows.x @ turn):
        federation = PooledSites(split(rows._replace(x=x), SIZES))
        fit = cox.fit(federation, 7)
        found.append(
            proportional_hazards.examine(federation, fit, transform="identity", ties="efron", time_step=1.0).all_columns
        )
    assert found[0] == pytest.approx(found[1], rel=1e-7)
    alone = PooledSites([rows._replace(x=rows.x[:, :1])])
    one = proportional_hazards.examine(alone, cox.fit(alone, 1), transform="identity", ties="efron", time_step=1.0)
    assert one.all_columns == pytest.approx(one.chi2[0], rel=1e-10)


def test_statistics_keep_their_contract(rows):
    check(proportional_hazards.observed, rows, transform="log", time_step=1.0, centre=1.0)
    b = np.linspace(-0.3, 0.3, 7)
    check(proportional_hazards.stratum, rows, rtol=1e-11, coefficients=b, ties="efron", transform="log", centre=1.0)
