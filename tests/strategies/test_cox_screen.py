"""Cox screen: equal to the score test of statsmodels; of binary columns without ties to the stratified log-rank."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from lifelines import datasets

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import cox_screen
from cohortium.strategies.rows import Survival
from tests.strategies.additivity import FixedPointSites, take


@pytest.fixture(scope="module")
def rows() -> Survival:
    """gbsg2, 686 patients, times in months: 7 standardised columns, many ties; then a constant one."""
    frame = datasets.load_gbsg2()
    x = frame[["age", "tsize", "pnodes", "progrec", "estrec"]].assign(
        horTh=frame.horTh == "yes", post=frame.menostat == "Post"
    )
    x = x.to_numpy(float)
    x = np.column_stack([(x - x.mean(0)) / x.std(0), np.zeros(686)])
    return Survival(x, np.floor(frame.time.to_numpy(float) / 30), frame.cens.to_numpy(float))


SITE = np.arange(686) % 4 + (np.arange(686) > 500) * 2


def by_site(rows: Survival) -> list[Survival]:
    return [take(rows, site == SITE) for site in np.unique(SITE)]


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_equals_statsmodels(rows, sites):
    ours = cox_screen.score_tests(sites(by_site(rows)))
    for column in range(7):
        x = rows.x[:, [column]]
        model = sm.PHReg(rows.time, x, status=rows.event, ties="efron", strata=SITE)
        zero = np.zeros(1)
        theirs = model.score(zero)[0] ** 2 / -model.hessian(zero)[0, 0]
        assert ours.chi2[column] == pytest.approx(theirs, rel=1e-9)
    assert np.isnan(ours.chi2[7])
    assert np.isnan(ours.p[7])


def test_of_a_binary_column_it_is_the_log_rank_test_within_sites(rows):
    apart = rows._replace(time=rows.time + np.arange(686) / 1000)  # no ties
    ours = cox_screen.score_tests(PooledSites(by_site(apart)))
    for column in (5, 6):
        chi2, p = sm.duration.survdiff(apart.time, apart.event, rows.x[:, column] > 0, strata=SITE)
        assert ours.chi2[column] == pytest.approx(chi2, rel=1e-10)
        assert ours.p[column] == pytest.approx(p, rel=1e-9)


def test_screen_keeps_the_strongest_below_the_threshold(rows):
    ours = cox_screen.score_tests(PooledSites(by_site(rows)))
    order = np.argsort(ours.p[:7], kind="stable")
    assert cox_screen.screen(ours, 0.05).tolist() == [c for c in order if ours.p[c] < 0.05]
    assert cox_screen.screen(ours, 1.0, keep_at_most=2).tolist() == order[:2].tolist()
    assert 7 not in cox_screen.screen(ours, 1.0)


def test_golden_statsmodels(rows):
    # statsmodels 0.15.0, PHReg(ties="efron", strata=site): score(0)^2 / -hessian(0) of pnodes
    assert cox_screen.score_tests(PooledSites(by_site(rows))).chi2[2] == pytest.approx(74.55370354974416, rel=1e-9)


def test_no_patients_and_no_events(rows):
    nobody = take(rows, slice(0, 0))
    some = [nobody, *by_site(rows)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cox_screen.score_tests(PooledSites(some))
    np.testing.assert_array_equal(found.chi2, cox_screen.score_tests(PooledSites(by_site(rows))).chi2)
    with pytest.raises(NotIdentifiable):
        cox_screen.score_tests(PooledSites([rows._replace(event=np.zeros(686))]))
