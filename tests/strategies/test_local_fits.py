"""Local fits: the average equals that of scikit-learn's local fits; sites that cannot fit have no weight."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import lasso, lasso_cox, local_fits
from cohortium.strategies.rows import FoldedSurvival, Labelled
from tests.strategies.additivity import FixedPointSites, check, split, take

SIZES = [249, 171, 100, 49]
PATH = {"n_lambda": 15, "folds": 5, "rule": "min", "mixing": 1.0}


@pytest.fixture(scope="module")
def rows() -> Labelled:
    """569 patients in shuffled order, four columns that overlap in every site."""
    data = load_breast_cancer()
    order = np.random.default_rng(3).permutation(569)
    x, y = data.data[order][:, [1, 4, 8, 14]], 1.0 - data.target[order]
    return Labelled((x - x.mean(0)) / x.std(0, ddof=1), y, np.arange(569) % 5)


def local(rows: Labelled, penalty: float | None = None) -> np.ndarray:
    """scikit-learn's fit of one site, intercept first."""
    if penalty is None:
        model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=200)
    else:
        settings = {"l1_ratio": 1, "solver": "saga", "tol": 1e-14, "max_iter": 50_000, "random_state": 0}
        model = LogisticRegression(C=1 / (len(rows.y) * penalty), **settings)
    model.fit(rows.x, rows.y)
    return np.concatenate([model.intercept_, model.coef_[0]])


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_logistic_equals_the_mean_of_scikit_learns(rows, kind):
    sites = split(rows, SIZES)
    federation = kind(sites)
    ours = local_fits.fit(federation, kind="logistic", minimum_sites=3)
    theirs = np.average([local(site) for site in sites], axis=0, weights=SIZES)
    np.testing.assert_allclose(ours.coefficients, theirs, atol=1e-8)
    assert (ours.sites, ours.patients, federation.rounds) == (4, 569, 2)


def test_lasso_equals_the_mean_of_scikit_learns(rows):
    sites = split(rows, SIZES)
    ours = local_fits.fit(PooledSites(sites), kind="lasso", minimum_sites=3, settings=PATH)
    penalties = []
    for site in sites:  # the choice of each is tested in test_lasso
        path = lasso.fit(PooledSites([site]), 4, **PATH)
        penalties.append(path.lambdas[path.index])
    theirs = np.average([local(s, p) for s, p in zip(sites, penalties, strict=True)], axis=0, weights=SIZES)
    np.testing.assert_allclose(ours.coefficients, theirs, atol=1e-8)


def test_cox_lasso_equals_the_mean_of_scikit_survivals(rows):
    rng = np.random.default_rng(5)
    time = np.ceil(rng.exponential(300 * np.exp(-0.5 * rows.x[:, 0])))
    timed = FoldedSurvival(rows.x, time, (rng.random(569) < 0.7) * 1.0, rows.fold)
    sites = split(timed, SIZES)
    ours = local_fits.fit(PooledSites(sites), kind="lasso_cox", minimum_sites=3, settings=PATH)
    theirs = []
    for site in sites:
        path = lasso_cox.fit(PooledSites([site]), 4, **PATH)
        model = CoxnetSurvivalAnalysis(l1_ratio=1, alphas=path.lambdas[: path.index + 1], tol=1e-16, max_iter=10**6)
        theirs.append(model.fit(site.x, Surv.from_arrays(site.event == 1, site.time)).coef_[:, -1])
    np.testing.assert_allclose(ours.coefficients[1:], np.average(theirs, axis=0, weights=SIZES), atol=1e-7)
    assert ours.coefficients[0] == 0


def test_sites_without_a_fit_have_no_weight(rows):
    sites = split(rows, SIZES)
    alone = [
        take(rows, slice(0, 0)),
        take(rows, slice(0, 1)),
        take(rows, rows.y == 0),  # one class
        take(rows, slice(0, 100))._replace(x=np.c_[rows.x[:100, :3], rows.y[:100]]),  # separated
        take(rows, slice(0, 100))._replace(x=np.c_[rows.x[:100, :3], np.zeros(100)]),  # a constant column
    ]
    some = local_fits.fit(PooledSites([*sites, *alone]), kind="logistic", minimum_sites=3)
    none = local_fits.fit(PooledSites(sites), kind="logistic", minimum_sites=3)
    assert some.sites == 4
    np.testing.assert_allclose(some.coefficients, none.coefficients, rtol=1e-12)


def test_too_few_local_fits_are_not_averaged(rows):
    federation = PooledSites([*split(take(rows, slice(0, 420)), [249, 171]), take(rows, rows.y == 0)])
    with pytest.raises(NotIdentifiable, match="2 sites have a local fit, minimum_sites = 3"):
        local_fits.fit(federation, kind="logistic", minimum_sites=3)
    assert federation.rounds == 1  # the average was never asked for


def test_distance():
    found = local_fits.distance(np.array([9.0, 1.0, 0.5, 0.0]), np.array([0.0, 1.0, 0.0, 0.75]))
    assert found["relative_error"] == pytest.approx(np.hypot(0.5, 0.75) / 1.25)
    assert found == found | {"largest_difference": 0.75, "nonzero": 2, "nonzero_exact": 2, "nonzero_both": 1}
    assert "relative_error" not in local_fits.distance(np.ones(3), np.zeros(3))


def test_local_halves_keep_their_contract(rows):
    few = take(rows, slice(0, 150))
    for kind, settings in (("logistic", {}), ("lasso", PATH | {"n_lambda": 6})):
        check(local_fits.able, few, kind=kind, settings=settings)
        check(local_fits.shares, few, rtol=1e-9, kind=kind, settings=settings, patients=300)
