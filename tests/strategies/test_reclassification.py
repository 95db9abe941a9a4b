"""Reclassification: equal to Welch's test of the differences and to Pencina's published Framingham figures."""

import numpy as np
import pytest
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import reclassification
from tests.strategies.additivity import FixedPointSites, check, odd_sites
from tests.strategies.scored import patients

PAIRS = np.array([[0, 1], [1, 2]])
CUTOFFS = np.array([4000, 3500, 3000])


def moved(federation):
    return federation.sum(reclassification.moves, pairs=PAIRS, cutoffs=CUTOFFS)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_idi_is_welchs_test_of_the_differences(sites):
    rows = patients()
    sums = moved(sites(odd_sites(rows, rows.y)))
    for k, (a, b) in enumerate(PAIRS):
        change = rows.score[:, a] - rows.score[:, b]
        welch = stats.ttest_ind(change[rows.y == 1], change[rows.y == 0], equal_var=False)
        found = reclassification.discrimination_improvement(sums.direction[k], sums.difference[k])
        assert found["estimate"] == pytest.approx(change[rows.y == 1].mean() - change[rows.y == 0].mean(), abs=1e-13)
        assert found["z"] == pytest.approx(welch.statistic, rel=1e-10)
        assert found["p"] == pytest.approx(2 * stats.norm.sf(abs(welch.statistic)), rel=1e-8)


def test_improvements_are_counts_of_moves():
    rows = patients()
    sums = moved(PooledSites(odd_sites(rows, rows.y)))
    high = rows.score >= CUTOFFS / 1e4
    for k, (a, b) in enumerate(PAIRS):
        found = reclassification.improvements(sums, k, with_cutoffs=True)
        category = high[:, a].astype(float) - high[:, b]
        for name, move in (("nri", category), ("nri_continuous", np.sign(rows.score[:, a] - rows.score[:, b]))):
            of_class = [move[rows.y == c] for c in (0, 1)]
            error = np.sqrt(sum(m.var() / len(m) for m in of_class))
            assert found[name]["estimate"] == pytest.approx(of_class[1].mean() - of_class[0].mean(), abs=1e-13)
            assert found[name]["se"] == pytest.approx(error, rel=1e-12)
            assert found[name]["events"] == pytest.approx(of_class[1].mean(), abs=1e-13)
        assert "undefined" in reclassification.improvements(sums, k, with_cutoffs=False)["nri"]


def test_golden_framingham_hdl():
    """Pencina et al., Stat Med 2008, section 6: HDL cholesterol in 183 events and 3,081 others; NRI .121, z 3.616."""
    found = reclassification.net_improvement(np.array([[174, 3081 - 347, 173], [7, 183 - 36, 29]]))
    assert found["estimate"] == pytest.approx(0.121, abs=0.0006)
    assert found["z"] == pytest.approx(3.616, abs=0.002)
    assert found["p"] < 0.001


def test_the_statistic_keeps_its_contract():
    check(reclassification.moves, patients(80), pairs=PAIRS, cutoffs=CUTOFFS)


def test_what_cannot_exist_says_so():
    alike = np.array([[0, 10, 0], [0, 10, 0]])
    assert "undefined" in reclassification.net_improvement(alike)["z"]
    assert reclassification.net_improvement(alike)["estimate"] == 0
    with pytest.raises(Undefined, match="one patient with"):
        reclassification.net_improvement(np.array([[0, 10, 0], [0, 0, 0]]))
    with pytest.raises(Undefined, match="2 patients with"):
        reclassification.discrimination_improvement(np.array([[0, 10, 0], [0, 1, 0]]), np.zeros((2, 2), np.int64))
