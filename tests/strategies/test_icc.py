"""ICC: the published table of Shrout & Fleiss, and the pooled analysis of variance."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from cohortium.common.federation import PooledSites
from cohortium.strategies import icc
from cohortium.strategies.icc import Repeated
from tests.strategies.additivity import FixedPointSites, check, split

JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
"""Shrout & Fleiss, Psychological Bulletin 86:420, 1979, table 2: six targets, four judges."""


@pytest.fixture(scope="module")
def rows() -> Repeated:
    """Thirty features, measured three times with noise and a shift; some measurements missing."""
    x = load_breast_cancer().data
    rng = np.random.default_rng(4)
    repeated = x[:, :, None] + x.std(0)[:, None] * (0.4 * rng.normal(size=(*x.shape, 3)) + [0, 0.1, 0.3])
    repeated[rng.random(repeated.shape) < 0.02] = np.nan
    return Repeated(repeated)


def test_published_table():
    """Table 4 of the paper; intervals as R's psych::ICC and pingouin's own test of this table print them."""
    federation = PooledSites(split(Repeated(JUDGES[:, None]), [1, 0, 5]))
    ours = icc.fit(federation, np.array([5.0]), np.array([2.0]))
    assert [round(float(icc[0]), 2) for icc in (ours.icc_1_1, ours.icc_2_1, ours.icc_3_1)] == [0.17, 0.29, 0.71]
    intervals = [ours.ci_1_1[0], ours.ci_2_1[0], ours.ci_3_1[0]]
    assert np.round(intervals, 2).tolist() == [[-0.13, 0.72], [0.02, 0.76], [0.34, 0.95]]
    assert federation.rounds == 1


def two_way(x: np.ndarray) -> tuple[float, float]:
    """ICC(2,1) and ICC(3,1) of complete rows (n, k) from a library's analysis of variance."""
    n, k = x.shape
    long = pd.DataFrame(
        {"v": x.ravel() / x.std(), "patient": np.repeat(np.arange(n), k), "time": np.tile(np.arange(k), n)}
    )
    patients, times, error = anova_lm(ols("v ~ C(patient) + C(time)", long).fit())["mean_sq"]
    consistency = (patients - error) / (patients + (k - 1) * error)
    return (patients - error) / (patients + (k - 1) * error + k * (times - error) / n), consistency


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equals_the_pooled_analysis_of_variance(rows, kind):
    few = Repeated(rows.x[:90])  # the library has a dummy for every patient
    federation = kind(split(few, [50, 30, 1, 9]))
    ours = icc.fit(federation, np.nanmean(few.x, axis=(0, 2)), np.nanstd(few.x, axis=(0, 2)))
    assert federation.rounds == 1
    for feature in (0, 3, 17, 29):
        known = few.x[:, feature][~np.isnan(few.x[:, feature]).any(axis=1)]
        absolute, consistency = two_way(known)
        assert ours.icc_2_1[feature] == pytest.approx(absolute, rel=1e-9)
        assert ours.icc_3_1[feature] == pytest.approx(consistency, rel=1e-9)
        assert ours.n[feature] == len(known)


PINGOUIN = {
    0: [(0.8708553201360473, 0.822212635707278, 0.9091162041578805),
        (0.8715941329735534, 0.8086165973820756, 0.9146054701037575),
        (0.886814030319008, 0.8433782710630305, 0.9206641365656187)],
    29: [(0.9085394553996965, 0.8717986956500797, 0.9367335065427329),
         (0.9088743758146024, 0.8631130087665005, 0.939927604344693),
         (0.9189699353825982, 0.8859850248728888, 0.9441095251705773)],
}  # fmt: skip
"""ICC(1,1), ICC(2,1), ICC(3,1) with intervals of the first 90 patients, complete cases: pingouin 0.7.0, not rounded."""


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equals_pingouin(rows, kind):
    few = rows.x[:90]
    ours = icc.fit(kind(split(Repeated(few), [40, 50])), np.nanmean(few, axis=(0, 2)), np.nanstd(few, axis=(0, 2)))
    for feature, expected in PINGOUIN.items():
        found = [[value[feature], *interval[feature]] for value, interval in (
            (ours.icc_1_1, ours.ci_1_1), (ours.icc_2_1, ours.ci_2_1), (ours.icc_3_1, ours.ci_3_1)
        )]  # fmt: skip
        assert found == pytest.approx(np.array(expected), abs=1e-10)


def test_what_is_undefined():
    constant = icc.fit(PooledSites([Repeated(np.full((5, 1, 2), 2.0))]), np.array([2.0]), np.array([1.0]))
    alone = icc.fit(PooledSites([Repeated(JUDGES[:1, None])]), np.array([5.0]), np.array([2.0]))
    assert np.isnan([constant.icc_2_1[0], constant.icc_3_1[0], alone.icc_2_1[0], alone.icc_3_1[0]]).all()


def test_perfect_agreement():
    ours = icc.fit(PooledSites([Repeated(np.repeat(JUDGES[:, :1, None], 2, axis=2))]), np.array([7.0]), np.array([1.0]))
    for value in (ours.icc_1_1, ours.icc_2_1, ours.icc_3_1, ours.ci_1_1, ours.ci_2_1, ours.ci_3_1):
        assert value[0] == pytest.approx(1)


def test_a_tiny_scale_counts_nobody_in_a_window():
    """A value so far from the centre that it overflows is a known one all the same."""
    with np.errstate(all="ignore"):
        share = icc.agreement.local(Repeated(JUDGES[:, None]), centre=np.array([5.0]), scale=np.array([1e-308]))
    assert share.patients.tolist() == [len(JUDGES)]


def test_local_half_adds_over_rows(rows):
    check(icc.agreement, rows, centre=np.nanmean(rows.x, axis=(0, 2)), scale=np.nanstd(rows.x, axis=(0, 2)))
