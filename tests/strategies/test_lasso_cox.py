"""Cox LASSO: equal to scikit-survival on the pooled patients, certified by statsmodels' score where stratified."""

import numpy as np
import pytest
from lifelines import datasets
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv
from statsmodels.duration.hazard_regression import PHReg

from cohortium.common.errors import NotIdentifiable, SumRefused
from cohortium.common.federation import PooledSites
from cohortium.strategies import lasso_cox
from cohortium.strategies.rows import FoldedSurvival
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split, take

SIZES = [300, 200, 150, 35, 1, 0]


def folded(frame, time: str, event: str, folds: int) -> FoldedSurvival:
    x = frame.drop(columns=[time, event]).to_numpy(float)
    fold = np.random.default_rng(0).permutation(np.arange(len(x)) % folds)
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    return FoldedSurvival(x, frame[time].to_numpy(float), frame[event].to_numpy(float), fold)


@pytest.fixture(scope="module")
def rossi() -> FoldedSurvival:
    """432 convicts, 114 rearrests in 49 distinct weeks: heavy ties."""
    return folded(datasets.load_rossi(), "week", "arrest", 5)


@pytest.fixture(scope="module")
def gbsg2() -> FoldedSurvival:
    """686 patients, 299 events at 270 distinct days, and 20 columns of noise."""
    frame = datasets.load_gbsg2()
    numbers = frame[["age", "tsize", "pnodes", "progrec", "estrec", "time", "cens"]]
    numbers = numbers.assign(therapy=frame.horTh == "yes", third=frame.tgrade == "III")
    noise = np.random.default_rng(1).normal(size=(len(frame), 20))
    return folded(numbers.assign(**{f"noise{i}": noise[:, i] for i in range(20)}), "time", "cens", 5)


def theirs(rows: FoldedSurvival, lambdas: np.ndarray, mixing: float) -> np.ndarray:
    """scikit-survival's path, (l, p): Breslow, loss over patients, the same objective with l1_ratio = mixing."""
    model = CoxnetSurvivalAnalysis(l1_ratio=mixing, alphas=lambdas, tol=1e-16, max_iter=2_000_000)
    return model.fit(rows.x, Surv.from_arrays(rows.event == 1, rows.time)).coef_.T


def score(rows: FoldedSurvival, coefficients: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Gradient of the stratified partial likelihood, by statsmodels."""
    # statsmodels keeps no stratum without an event, which has no part in the likelihood either
    model = PHReg(rows.time, rows.x, status=rows.event, strata=sites, ties="breslow")
    return model.score(coefficients)


def violation(gradient: np.ndarray, b: np.ndarray, penalty: float, mixing: float) -> float:
    """Largest violation of the optimality conditions; gradient of the mean loss."""
    gradient = gradient + penalty * (1 - mixing) * b
    at_zero = np.maximum(np.abs(gradient) - penalty * mixing, 0)
    return np.where(b != 0, np.abs(gradient + np.sign(b) * penalty * mixing), at_zero).max()


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("mixing", [1.0, 0.5])
@pytest.mark.parametrize("name", ["rossi", "gbsg2"])
def test_one_site_equals_scikit_survival(name, mixing, kind, request):
    rows = request.getfixturevalue(name)
    federation = kind([rows])
    ours = lasso_cox.fit(federation, rows.x.shape[1], n_lambda=12, folds=5, mixing=mixing)
    np.testing.assert_allclose(ours.coefficients[:, 1:], theirs(rows, ours.lambdas, mixing), atol=1e-7)
    assert not ours.coefficients[:, 0].any()
    assert (ours.kkt <= 1e-10).all()
    assert federation.rounds <= 12


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("mixing", [1.0, 0.3])
def test_stratified_path_is_optimal_by_statsmodels(gbsg2, mixing, kind):
    ours = lasso_cox.fit(kind(split(gbsg2, SIZES)), 27, n_lambda=15, folds=5, mixing=mixing)
    sites = np.repeat(range(6), SIZES)
    for penalty, coefficients in zip(ours.lambdas, ours.coefficients[:, 1:], strict=True):
        gradient = -score(gbsg2, coefficients, sites) / len(gbsg2.x)
        assert violation(gradient, coefficients, penalty, mixing) < 2e-10
    assert np.count_nonzero(ours.coefficients[0]) == 0
    assert len(ours.lambdas) == 15


def test_cross_validation_is_verweij_and_van_houwelingens(gbsg2):
    """Difference of the partial likelihoods of all and of the training patients, from scikit-survival's path."""
    ours = lasso_cox.fit(PooledSites([gbsg2]), 27, n_lambda=10, folds=5)
    events = np.bincount(gbsg2.fold, weights=gbsg2.event)
    deviance = np.empty((5, 10))
    for fold in range(5):
        train = take(gbsg2, gbsg2.fold != fold)
        path = theirs(train, ours.lambdas, 1.0)
        deviance[fold] = [(loss(gbsg2, b) - loss(train, b)) * 2 / events[fold] for b in path]
    mean = np.average(deviance, axis=0, weights=events)
    se = np.sqrt(np.average((deviance - mean) ** 2, axis=0, weights=events) / 4)
    np.testing.assert_allclose(ours.cv_deviance, mean, rtol=1e-8)
    np.testing.assert_allclose(ours.cv_se, se, rtol=1e-6)
    assert ours.index_min == mean.argmin()
    assert ours.index_1se == np.flatnonzero(mean <= mean.min() + se[mean.argmin()])[0]


def loss(rows: FoldedSurvival, b: np.ndarray) -> float:
    """Minus the partial log-likelihood, by statsmodels, above the saturated one."""
    _, deaths = np.unique(rows.time[rows.event == 1], return_counts=True)
    return -PHReg(rows.time, rows.x, status=rows.event, ties="breslow").loglike(b) - (deaths * np.log(deaths)).sum()


def test_more_features_than_patients_end_at_a_quarter(rossi):
    noise = np.random.default_rng(2).normal(size=(60, 200))
    x = (noise - noise.mean(0)) / noise.std(0, ddof=1)
    few = take(rossi, slice(0, 60))._replace(x=x, fold=np.arange(60) % 3)
    ours = lasso_cox.fit(FixedPointSites(split(few, [30, 20, 10])), 200, n_lambda=20, folds=3)
    assert 2 < len(ours.lambdas) <= 20
    assert np.count_nonzero(ours.coefficients, axis=1).max() <= 15
    sites = np.repeat(range(3), [30, 20, 10])
    for penalty, b in zip(ours.lambdas, ours.coefficients[:, 1:], strict=True):
        assert violation(-score(few, b, sites) / 60, b, penalty, 1.0) < 2e-10


def test_order_of_sites_does_not_matter(gbsg2):
    sites = split(gbsg2, SIZES)
    one = lasso_cox.fit(PooledSites(sites), 27, n_lambda=8, folds=5)
    other = lasso_cox.fit(PooledSites(sites[::-1]), 27, n_lambda=8, folds=5)
    np.testing.assert_allclose(other.coefficients, one.coefficients, atol=1e-12)
    np.testing.assert_allclose(other.cv_deviance, one.cv_deviance, rtol=1e-12)
    assert other.index == one.index


def test_odd_sites_and_separation(rossi):
    separated = rossi._replace(x=np.column_stack([rossi.x, -rossi.time / 20]))
    ours = lasso_cox.fit(FixedPointSites(odd_sites(separated, separated.event)), 8, n_lambda=20, folds=5, rule="1se")
    assert np.isfinite(ours.coefficients).all()
    assert 7 in ours.selected
    assert ours.index == ours.index_1se <= ours.index_min


def test_what_cannot_be_fitted_says_so(rossi):
    with pytest.raises(NotIdentifiable, match="no patient had the event"):
        lasso_cox.fit(PooledSites([rossi._replace(event=np.zeros(432))]), 7, folds=5)
    with pytest.raises(NotIdentifiable, match="0 inner folds"):
        lasso_cox.fit(PooledSites([rossi._replace(fold=np.zeros(432, dtype=np.int64))]), 7, folds=5)
    with pytest.raises(SumRefused, match="outside 0"):
        lasso_cox.fit(PooledSites([rossi]), 7, folds=4)


def test_local_halves_keep_their_contract(rossi):
    rows = take(rossi, slice(0, 120))
    check(lasso_cox.start, rows, folds=6)
    rng = np.random.default_rng(2)
    check(
        lasso_cox.terms,
        rows,
        rtol=1e-11,
        coefficients=rng.normal(size=(7, 7)) / 3,
        held_out=np.arange(-1, 6),
        working=rng.random((7, 7)) < 0.6,
    )


def test_curvature_is_the_hessian_by_statsmodels(rossi):
    b = np.random.default_rng(5).normal(size=7) / 3
    at = lasso_cox.terms.local(
        rossi, coefficients=b[None], held_out=np.array([-1]), working=np.ones((1, 7), dtype=bool)
    )
    model = PHReg(rossi.time, rossi.x, status=rossi.event, ties="breslow")
    np.testing.assert_allclose(at.curvature, -model.hessian(b)[np.triu_indices(7)], rtol=1e-10)
    np.testing.assert_allclose(at.gradient[0], -model.score(b), rtol=1e-9, atol=1e-10)
    assert at.loss[0] == pytest.approx(loss(rossi, b), rel=1e-12)
