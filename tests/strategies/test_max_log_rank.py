"""Maximal log-rank: the same cut-off and test as lifelines finds by trying all; p as Altman et al. approximate it."""

import numpy as np
import pytest
from lifelines import datasets
from lifelines.statistics import logrank_test
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import max_log_rank
from cohortium.strategies.rows import ScoredSurvival
from tests.strategies.additivity import FixedPointSites, odd_sites


@pytest.fixture(scope="module")
def rows() -> ScoredSurvival:
    """gbsg2, 686 patients: number of nodes (as in Altman et al.), and age."""
    frame = datasets.load_gbsg2()
    score = np.round(frame[["pnodes", "age"]].to_numpy(float) / 10, 4)
    return ScoredSurvival(score, frame.time.to_numpy(float), frame.cens.to_numpy(float))


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_it_is_the_largest_of_all_tests(rows, sites):
    federation = sites(odd_sites(rows, rows.event))
    found = max_log_rank.choose(federation, 2, resolution="exact", time_step=1.0)
    for m, ours in enumerate(found):
        score, tests = rows.score[:, m], {}
        for cut in np.unique(score):
            low = score < cut
            if 0.1 <= low.mean() <= 0.9:
                tests[cut] = logrank_test(rows.time[low], rows.time[~low], rows.event[low], rows.event[~low])
        best = max(tests, key=lambda cut: tests[cut].test_statistic)
        assert isinstance(ours, max_log_rank.Choice)
        assert ours.cutoff == best
        assert ours.candidates == len(tests)
        assert ours.chi2 == pytest.approx(tests[best].test_statistic, rel=1e-10)
        assert ours.p == pytest.approx(tests[best].p_value, rel=1e-8)
        assert ours.p < ours.p_corrected <= 1


def test_binned_candidates_are_fewer(rows):
    exact, binned = (
        max_log_rank.choose(PooledSites([rows]), 2, resolution=resolution, time_step=30.0)
        for resolution in ("exact", "binned")
    )
    for a, b in zip(exact, binned, strict=True):
        assert b.candidates <= a.candidates
        assert b.chi2 <= a.chi2 + 1e-12


@pytest.mark.parametrize("p", [0.0005, 0.001, 0.005, 0.01, 0.05])
def test_golden_altman(p):
    """Altman, Lausen, Sauerbrei & Schumacher, JNCI 1994, 86:829: simple approximations of the formula, for p between

    .0001 and .1: -1.63 p (1 + 2.35 ln p) where 10 % are left out at either end, -3.13 p (1 + 1.65 ln p) where 5 % are.
    """
    chi2 = float(stats.chi2.isf(p, 1))
    assert max_log_rank.corrected_p(chi2) == pytest.approx(-1.63 * p * (1 + 2.35 * np.log(p)), rel=0.04)
    assert max_log_rank.corrected_p(chi2, 0.05, 0.95) == pytest.approx(-3.13 * p * (1 + 1.65 * np.log(p)), rel=0.04)


def test_small_statistics_are_no_finding():
    assert max_log_rank.corrected_p(0.5) == 1
    assert max_log_rank.corrected_p(1.2) > 0.9
    assert max_log_rank.corrected_p(200.0) >= 2e-45


def test_no_candidate(rows):
    alike = PooledSites([rows._replace(score=np.ones((686, 2)))])
    for none in max_log_rank.choose(alike, 2, resolution="exact", time_step=30.0):
        assert isinstance(none, Undefined)
    lost = PooledSites([rows._replace(event=np.zeros(686))])
    assert all(
        isinstance(none, Undefined) for none in max_log_rank.choose(lost, 2, resolution="binned", time_step=30.0)
    )
