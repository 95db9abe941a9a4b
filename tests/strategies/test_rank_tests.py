"""Rank tests: the set that scipy's pooled test keeps, in few sums, while most features stay in their bins."""

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import PolynomialFeatures

from cohortium.common.federation import PooledSites
from cohortium.strategies import rank_tests
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import check, odd_sites, split

N1, N0 = 212, 357


@pytest.fixture(scope="module")
def radiomics() -> tuple[Matrix, np.ndarray, np.ndarray]:
    """1,500 correlated, heavy-tailed features of 569 patients; some rounded, some filled, one binary, one the class."""
    data = load_breast_cancer()
    x, y = data.data, 1 - data.target
    z = PolynomialFeatures(3, include_bias=False).fit_transform((x - x.mean(0)) / x.std(0))[:, :1500]
    rng = np.random.default_rng(9)
    z = z + 0.1 * z.std(0) * rng.normal(size=z.shape)
    z[:, ::50] = np.round(z[:, ::50] * 2) / 2
    z[:, 3], z[:, 7] = y, rng.random(len(y)) < 0.3
    gaps = rng.random((len(y), 100)) < 0.3
    z[:, 1:101][gaps] = np.broadcast_to(np.median(z[:, 1:101], axis=0), gaps.shape)[gaps]
    z[:, 8] = z[:, 7]  # a twin
    centre, scale = z.mean(0), z.std(0, ddof=1)
    return Matrix(x=(z - centre) / scale, group=y), centre, scale


def pooled(rows: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """P values and AUC by scipy."""
    test = stats.mannwhitneyu(rows.x[rows.group == 1], rows.x[rows.group == 0], method="asymptotic")
    return test.pvalue, test.statistic / (np.sum(rows.group == 1) * np.sum(rows.group == 0))


@pytest.mark.parametrize("kept_at_most", [None, 142])
@pytest.mark.parametrize("test", ["mann_whitney", "auc"])
def test_keeps_what_the_pooled_test_keeps(radiomics, test, kept_at_most):
    rows, centre, scale = radiomics
    p, auc = pooled(rows)
    federation = PooledSites(odd_sites(rows, rows.group))
    ours = rank_tests.screen(
        federation, 1500, 0.05, test=test, keep_at_most=kept_at_most, centre=centre, scale=scale, fill=np.median(
            rows.x * scale + centre, axis=0),
    )  # fmt: skip
    below = np.flatnonzero(p < 0.05)
    strength = np.abs(auc - 0.5) if test == "auc" else stats.norm.isf(p / 2)
    expected = below[np.argsort(-strength[below], kind="stable")][:kept_at_most]
    np.testing.assert_array_equal(ours.kept, np.sort(expected))
    assert (ours.p[0] <= p * (1 + 1e-9)).all()
    assert (p <= ours.p[1] * (1 + 1e-9)).all()
    assert (ours.auc[0] - 1e-12 <= auc).all()
    assert (auc <= ours.auc[1] + 1e-12).all()
    assert federation.rounds <= 8
    assert 0 < ours.undecided < 150  # the others were never known finer than a bin


@pytest.mark.parametrize("threshold", [1e-8, 0.01, 0.5, 1.0])
def test_any_threshold_and_unscaled_rows(radiomics, threshold):
    rows = radiomics[0]._replace(x=radiomics[0].x[:, :200])
    ours = rank_tests.screen(PooledSites(split(rows, [249, 171, 100, 49])), 200, threshold)
    np.testing.assert_array_equal(ours.kept, np.flatnonzero(pooled(rows)[0] < threshold))


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_units_do_not_matter(radiomics, unit):
    rows = radiomics[0]._replace(x=radiomics[0].x[:, :40])
    recorded = {"centre": np.full(40, 7 * unit), "scale": np.full(40, 3 * unit), "fill": np.full(40, 7 * unit)}
    ours = rank_tests.screen(PooledSites([rows]), 40, 0.05, **recorded)
    np.testing.assert_array_equal(ours.kept, np.flatnonzero(pooled(rows)[0] < 0.05))


def test_a_threshold_that_is_a_p_value(radiomics):
    """The hardest decision: the threshold itself is some feature's p, or the next double above it."""
    rows = radiomics[0]._replace(x=radiomics[0].x[:, 1:60])
    p, _ = pooled(rows)
    hard = np.sort(p)[30]
    for threshold in (hard * (1 - 1e-12), hard * (1 + 1e-12)):
        ours = rank_tests.screen(PooledSites([rows]), 59, threshold)
        np.testing.assert_array_equal(ours.kept, np.flatnonzero(p < threshold))


def test_published_ozone_in_may_and_august():
    """R 4.3: wilcox.test(Ozone ~ Month, data = airquality, subset = Month %in% c(5, 8)): W = 127.5, p = 0.0001208."""
    may = [41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18, 14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45, 115, 37]
    august = [39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22, 59, 23, 31, 44, 21, 9, 45, 168, 73, 76, 118, 84, 85]
    rows = Matrix(x=np.array([*may, *august], float)[:, None], group=np.repeat([1, 0], 26))
    centre, scale = rows.x.mean(0), rows.x.std(0, ddof=1)
    rows = rows._replace(x=(rows.x - centre) / scale)
    # between thresholds that differ by the last published digit the test must decide on either side
    screened = [
        rank_tests.screen(PooledSites(split(rows, [20, 0, 32])), 1, threshold, centre=centre, scale=scale)
        for threshold in (0.00012075, 0.00012085)
    ]
    assert [len(one.kept) for one in screened] == [0, 1]
    for one in screened:
        assert one.auc[0, 0] - 1e-12 <= 127.5 / 26**2 <= one.auc[1, 0] + 1e-12


def test_ties_at_the_last_place_go_by_column_order(radiomics):
    strongest = np.argsort(pooled(radiomics[0])[0], kind="stable")[[20, 40]]
    twins = radiomics[0]._replace(x=radiomics[0].x[:, [strongest[0], strongest[1], strongest[0], strongest[0]]])
    for most, expected in ((1, [0]), (2, [0, 2]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])):
        assert rank_tests.screen(PooledSites([twins]), 4, 0.05, keep_at_most=most).kept.tolist() == expected


def test_columns_and_cohorts_without_a_test(radiomics):
    rows = radiomics[0]._replace(x=np.zeros((569, 2)))
    assert rank_tests.screen(PooledSites([rows]), 2, 0.05).kept.tolist() == []
    alone = rows._replace(x=radiomics[0].x[:, :2], group=np.zeros(569, dtype=np.int64))
    assert rank_tests.screen(PooledSites([alone]), 2, 0.05).kept.tolist() == []
    nobody = Matrix(np.empty((0, 2)), np.empty(0, dtype=np.int64))
    assert rank_tests.screen(PooledSites([nobody]), 2, 0.05).kept.tolist() == []


def test_twenty_patients():
    rng = np.random.default_rng(3)
    rows = Matrix(rng.normal(size=(20, 40)).round(1), np.repeat([0, 1], 10))
    rows.x[rows.group == 1, :20] += 0.9
    ours = rank_tests.screen(PooledSites(split(rows, [7, 13])), 40, 0.05)
    np.testing.assert_array_equal(ours.kept, np.flatnonzero(pooled(rows)[0] < 0.05))


def test_order_of_sites_and_patients_changes_nothing(radiomics):
    rows = radiomics[0]._replace(x=radiomics[0].x[:, :60])
    order = np.random.default_rng(1).permutation(569)
    shuffled = Matrix(rows.x[order], rows.group[order])
    one = rank_tests.screen(PooledSites(split(rows, [249, 171, 100, 49])), 60, 0.05)
    other = rank_tests.screen(PooledSites(split(shuffled, [49, 320, 200])), 60, 0.05)
    np.testing.assert_array_equal(one.kept, other.kept)
    np.testing.assert_array_equal(one.p, other.p)


def test_bins_hold_at_least_five_patients_on_average(radiomics):
    rows = radiomics[0]
    counts = rank_tests.occupancy.local(rows, grid=rank_tests.GRID).counts[0]
    edges = rank_tests.bins(counts, rank_tests.MOST_BINS)
    assert edges.shape == (1500, 569 // 5 + 1)
    assert (np.diff(edges[:, 1:-1], axis=1) >= 0).all()
    held = rank_tests.histogram.local(rows, edges=edges).counts.sum(axis=0)
    assert (held.sum(axis=1) == 569).all()


def test_local_halves_add_over_rows(radiomics):
    rows = radiomics[0]._replace(x=radiomics[0].x[:, :9].copy())
    rows.x[4, 2] = np.nan
    check(rank_tests.occupancy, rows, grid=rank_tests.GRID)
    check(rank_tests.histogram, rows, edges=np.tile([-np.inf, -1, 0, 0, 2, np.inf], (9, 1)))
    check(rank_tests.split, rows, columns=np.array([1, 1, 5]), edges=np.tile([-1.0, 0, 0.5, 0.5], (3, 1)))
