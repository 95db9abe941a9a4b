"""Calibration: equal to statsmodels on the pooled patients, honest where a fit has no maximum."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special, stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import calibration, calibration_groups, discrimination, score_bins
from cohortium.strategies.rows import Scored
from tests.strategies.additivity import FixedPointSites, check, odd_sites
from tests.strategies.scored import patients

EXACT = np.arange(10_001)


def recalibrate(federation, models):
    sums = federation.sum(discrimination.histogram, edges=[EXACT] * models, folds=5)
    counts = sums.patients.sum(0)
    return calibration.fit(federation, counts, sums.score_sum), counts


def harrells_spline(x, knots):
    """Restricted cubic spline as Harrell (2015), section 2.4.5, writes it: column by column, in the units of x."""
    positive = lambda v: np.maximum(v, 0) ** 3  # noqa: E731
    *_, before, last = knots
    terms = [
        positive(x - k)
        - positive(x - before) * (last - k) / (last - before)
        + positive(x - last) * (before - k) / (last - before)
        for k in knots[:-2]
    ]
    return np.column_stack([np.ones_like(x), x, *terms])


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_equals_statsmodels_on_the_pooled_patients(sites):
    rows = patients()
    federation = sites(odd_sites(rows, rows.y))
    fitted, counts = recalibrate(federation, 3)
    assert federation.rounds <= 9
    for m in range(3):
        logits = special.logit(rows.score[:, m])
        offset = sm.GLM(rows.y, np.ones(600), family=sm.families.Binomial(), offset=logits).fit(tol=1e-14)
        logistic = sm.Logit(rows.y, sm.add_constant(logits)).fit(disp=0, tol=1e-14)
        assert fitted[m].intercept == pytest.approx(offset.params[0], abs=1e-9)
        assert fitted[m].slope == pytest.approx(logistic.params[1], rel=1e-9)
        np.testing.assert_allclose(fitted[m].intercept_ci, offset.conf_int()[0], rtol=1e-8)
        np.testing.assert_allclose(fitted[m].slope_ci, logistic.conf_int()[1], rtol=1e-8)
        knots = np.quantile(rows.score[:, m], calibration.KNOTS, method="inverted_cdf")
        np.testing.assert_allclose(calibration.knots(counts[m].sum(0), EXACT / 1e4), special.logit(knots), rtol=1e-12)
        if m < 2:
            x = harrells_spline(logits, special.logit(knots))
            curve = sm.Logit(rows.y, x).fit(disp=0, tol=1e-14, maxiter=50).predict(x)
        else:  # three levels leave fewer than four knots
            assert len(np.unique(knots)) < 4
            curve = logistic.predict()
        assert fitted[m].ici == pytest.approx(np.abs(curve - rows.score[:, m]).mean(), rel=1e-7)
        distances = np.quantile(np.abs(curve - rows.score[:, m]), [0.5, 0.9], method="inverted_cdf")
        np.testing.assert_allclose([fitted[m].e50, fitted[m].e90], distances, rtol=1e-7)


def test_a_fit_without_a_maximum_is_undefined_and_the_others_go_on():
    rng = np.random.default_rng(3)
    y = (rng.random(60) < 0.4).astype(float)
    good = special.expit(rng.normal(size=60) + y)
    score = np.round(np.column_stack([np.where(y == 1, 0.9, 0.1) + 0.05 * rng.random(60), np.full(60, 0.3), good]), 4)
    federation = PooledSites([Scored(score, y, np.zeros(60, np.int64))])
    separating, constant, good = recalibrate(federation, 3)[0]
    assert isinstance(separating.slope, Undefined)
    assert isinstance(separating.ici, Undefined)
    assert isinstance(separating.intercept, float)
    assert isinstance(constant.slope, Undefined)
    assert constant.intercept == pytest.approx(special.logit(y.mean()) - special.logit(0.3), rel=1e-9)
    assert isinstance(good.slope, float)


def test_a_spline_that_nearly_separates_settles_late():
    """Five of 90 patients without the outcome: a maximum there is, after more than 15 Newton steps."""
    rng = np.random.default_rng(135)
    score = np.round(special.expit(rng.normal(0.8, 1.2, 90)), 4)
    y = (rng.random(90) < special.expit(special.logit(score) + 2)).astype(float)
    (fitted,), _ = recalibrate(PooledSites([Scored(score[:, None], y, np.zeros(90, np.int64))]), 1)
    knots = np.quantile(score, calibration.KNOTS, method="inverted_cdf")
    x = harrells_spline(special.logit(score), special.logit(knots))
    curve = sm.GLM(y, x, family=sm.families.Binomial()).fit(tol=1e-12, maxiter=100).predict(x)
    assert fitted.ici == pytest.approx(np.abs(curve - score).mean(), rel=1e-7)


def test_scores_that_are_all_alike_have_an_intercept_and_nothing_else():
    """A model of an intercept alone: its gradient is zero at once, but the slope has no maximum."""
    y = np.repeat([0.0, 1.0], [60, 40])
    rows = Scored(score=np.full((100, 1), 0.4), y=y, fold=np.zeros(100, dtype=np.int64))
    (fitted,), _ = recalibrate(PooledSites([rows]), 1)
    assert fitted.intercept == pytest.approx(0.0, abs=1e-9)
    assert isinstance(fitted.slope, Undefined)
    assert isinstance(fitted.slope_ci, Undefined)
    assert isinstance(fitted.ici, Undefined)


def test_one_class_is_undefined():
    rows = patients(40)
    with pytest.raises(Undefined, match="with and without the outcome"):
        recalibrate(PooledSites([rows._replace(y=np.ones(40))]), 3)


def test_scores_of_zero_and_one_count_as_their_neighbours():
    np.testing.assert_allclose(calibration.logit(np.array([0.0, 1.0])), special.logit([1e-4, 1 - 1e-4]))


def test_terms_keep_their_contract():
    rng = np.random.default_rng(2)
    knots = np.array([[-2.0, -1, 0, 2], [-1, -0.5, 0, 0.5], [-1, -1, 0, 1]])
    basis = np.triu(rng.normal(size=(3, 4, 4)))
    check(calibration.terms, patients(80), knots=knots, basis=basis, coefficients=rng.normal(size=(3, 3, 4)))


def test_columns_are_uncorrelated_and_of_mean_square_one():
    rng = np.random.default_rng(5)
    counts, score = rng.integers(0, 20, 30), np.sort(rng.random(30))
    placed = calibration.knots(counts, score)
    columns = calibration.design(score, placed) @ np.linalg.inv(
        calibration.columns_of_equal_size(counts, score, placed)
    )
    np.testing.assert_allclose((columns * counts[:, None]).T @ columns / counts.sum(), np.eye(4), atol=1e-10)


@pytest.mark.parametrize("seed", range(6))
def test_rounding_of_the_sums_hides_no_integrated_calibration_index(seed):
    """Few patients in wide bins: the spline's own columns are nearly alike there."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.5, 0.6, 80)
    y = (rng.random(80) < special.expit(logits)).astype(float)
    rows = Scored(np.round(special.expit(logits), 4)[:, None], y, np.zeros(80, np.int64))
    indices = []
    for sites in (PooledSites, FixedPointSites):
        federation = sites([Scored(*(field[i::3] for field in rows)) for i in range(3)])
        edges = score_bins.edges(federation, 1, scale="probability")
        sums = federation.sum(discrimination.histogram, edges=edges, folds=1)
        (fitted,) = calibration.fit(federation, sums.patients.sum(0), sums.score_sum)
        assert isinstance(fitted.ici, float)
        indices.append(fitted.ici)
    assert indices[0] == pytest.approx(indices[1], abs=1e-9)


def test_groups_are_deciles_of_whole_cells():
    rows = patients()
    sums = PooledSites([rows]).sum(discrimination.histogram, edges=[EXACT] * 3, folds=5)
    for m in range(3):
        groups = calibration_groups.groups(sums.patients.sum(0)[m], sums.score_sum[m])
        score = rows.score[:, m]
        lower = np.searchsorted(np.sort(score), score, side="left")  # patients with a lower score
        decile = 10 * lower // 600
        for k, which in enumerate(np.unique(decile)):
            inside = decile == which
            assert groups.patients[k] == inside.sum()
            assert groups.events[k] == rows.y[inside].sum()
            assert groups.predicted[k] == pytest.approx(score[inside].sum(), rel=1e-12)


def test_small_groups_join_their_neighbours():
    groups = calibration_groups.groups(
        np.array([[1, 5, 5, 5, 1], [1, 1, 1, 1, 1]]), np.arange(5) * 1000, wanted=5, minimum=5
    )
    assert groups.patients.sum() == 22
    assert groups.patients.min() >= 5


def test_hosmer_lemeshow_by_its_definition():
    groups = calibration_groups.Groups(
        patients=np.array([50, 50, 40]), events=np.array([4, 12, 25]), predicted=np.array([5.5, 11.0, 22.5])
    )
    expected = np.array([5.5, 11.0, 22.5, 44.5, 39.0, 17.5])  # events, then those without
    observed = np.array([4, 12, 25, 46, 38, 15])
    statistic = ((observed - expected) ** 2 / expected).sum()  # the 2 x g table's Pearson statistic
    chi2, df, p = calibration_groups.hosmer_lemeshow(groups, cohort="development")
    assert (chi2, df) == (pytest.approx(statistic, rel=1e-12), 1)
    assert p == pytest.approx(stats.chi2.sf(statistic, 1))
    assert calibration_groups.hosmer_lemeshow(groups, cohort="validation")[1] == 3


def test_golden_recalibration():
    """statsmodels 0.15.0: GLM(y, 1, Binomial, offset=logit(score)) and Logit(y, [1, logit(score)])."""
    rows = patients(200, seed=4)
    fitted, _ = recalibrate(PooledSites([rows]), 3)
    np.testing.assert_allclose(
        [f.intercept for f in fitted], [-0.3398542394782061, 0.24888688665997, 0.3213134830399333], rtol=1e-8
    )
    np.testing.assert_allclose(
        [f.slope for f in fitted], [0.7146129545460299, 1.241828678359905, 1.0430757011425253], rtol=1e-8
    )
