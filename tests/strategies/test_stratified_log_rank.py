"""Stratified log-rank: equal to statsmodels' survdiff with strata, whatever the sites are."""

import numpy as np
import pytest
from lifelines import datasets
from statsmodels.duration.survfunc import survdiff

from cohortium.common.errors import SumRefused
from cohortium.common.federation import PooledSites
from cohortium.strategies import stratified_log_rank
from cohortium.strategies.rows import ScoredSurvival
from cohortium.strategies.validation_settings import Settings
from tests.strategies.additivity import FixedPointSites, split

SIZES = [200, 186, 300]
SETTINGS = Settings(cutoffs={"nodes": 0.5, "size": 0.3})


@pytest.fixture(scope="module")
def cohort():
    """gbsg2, 686 patients: scores nodes and tumour size over a scale; the tumour grade of each."""
    frame = datasets.load_gbsg2()
    score = np.round(frame[["pnodes", "tsize"]].to_numpy(float) / [10, 100], 4)
    return ScoredSurvival(score, frame.time.to_numpy(float), frame.cens.to_numpy(float)), frame.tgrade.to_numpy()


def subsets(rows, groups, sites=PooledSites):
    """The rows of each group, at three sites."""

    def of(chosen):
        shares = split(ScoredSurvival(*rows), SIZES)
        where = np.split(chosen, np.cumsum(SIZES)[:-1])
        return sites([ScoredSurvival(*(x[at] for x in share)) for share, at in zip(shares, where, strict=True)])

    return [of(groups == level) for level in np.unique(groups)]


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("step", [1.0, 30.0])
def test_equals_survdiff_on_the_grid_of_times(cohort, sites, step):
    rows, grade = cohort
    settings = Settings(cutoffs=SETTINGS.cutoffs, time_step=step)
    strata = {"grade": subsets(rows, grade, sites), "one": subsets(rows, np.zeros(len(grade)), sites)}
    found = stratified_log_rank.figures(sites(split(rows, SIZES)), strata, ["nodes", "size"], settings)
    time = np.floor(rows.time / step)
    for m, (name, cut) in enumerate(SETTINGS.cutoffs.items()):
        high = (rows.score[:, m] >= cut).astype(int)
        for variable, by in (("grade", grade), ("one", None)):
            chi2, p = survdiff(time, rows.event, high, strata=by)
            ours = found[name][variable]
            assert ours["chi2"] == pytest.approx(chi2, rel=1e-9)
            assert ours["p"] == pytest.approx(p, rel=1e-7)
            assert ours["strata"] == (1 if by is None else 3)


def test_a_level_of_one_risk_group_adds_nothing_and_of_nobody_is_none(cohort):
    rows, _ = cohort
    low = rows.score[:, 0] < 0.5
    found = stratified_log_rank.figures(
        PooledSites([rows]), {"by": subsets(rows, low.astype(int))}, ["nodes"], Settings(cutoffs={"nodes": 0.5})
    )
    assert "an event while both groups are at risk" in found["nodes"]["by"]["undefined"]
    nobody = PooledSites([ScoredSurvival(rows.score[:0], rows.time[:0], rows.event[:0])])
    found = stratified_log_rank.figures(PooledSites([rows]), {"by": [nobody, PooledSites([rows])]}, ["nodes"], SETTINGS)
    assert found["nodes"]["by"]["strata"] == 1


def test_what_is_too_small_or_refused_is_withheld_and_without_a_cut_off_there_is_none(cohort):
    rows, grade = cohort
    few = np.where(np.arange(len(grade)) < 3, 0, 1)
    refused = [_Refusing(), PooledSites([rows])]
    strata = {"few": subsets(rows, few), "refused": refused, "grade": subsets(rows, grade)}
    found = stratified_log_rank.figures(
        PooledSites([rows]), strata, ["nodes", "size"], Settings(cutoffs={"nodes": 0.5})
    )
    assert "fewer than 5 patients" in found["nodes"]["few"]["withheld"]
    assert found["nodes"]["refused"] == {"withheld": "subgroups of grade: too few"}
    assert found["nodes"]["grade"]["chi2"] > 0
    assert all("no cut-off" in figure["undefined"] for figure in found["size"].values())
    none = stratified_log_rank.figures(PooledSites([rows]), strata, ["nodes"], Settings())
    assert all("no cut-off" in figure["undefined"] for figure in none["nodes"].values())


class _Refusing(PooledSites):
    def __init__(self):
        super().__init__([])

    def sum(self, what, **_):
        raise SumRefused("subgroups of grade", "too few")
