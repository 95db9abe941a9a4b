"""LASSO: equal to pooled fits of scikit-learn, certified by the optimality conditions, finite where others are not."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from cohortium.common.errors import NotIdentifiable, SumRefused
from cohortium.common.federation import PooledSites
from cohortium.strategies import lasso
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split, take

SMALL = [1, 4, 8, 9, 11, 14]


def breast_cancer(columns: list[int] | slice, patients: int = 569, folds: int = 10) -> Labelled:
    data = load_breast_cancer()
    x, y = data.data[:patients, columns], 1.0 - data.target[:patients]
    fold = np.random.default_rng(0).permutation(np.arange(patients) % folds)
    return Labelled(x=(x - x.mean(0)) / x.std(0, ddof=1), y=y, fold=fold)


@pytest.fixture(scope="module")
def small() -> Labelled:
    return breast_cancer(SMALL, patients=200, folds=5)


def saga(x, y, penalty: float) -> np.ndarray:
    """scikit-learn's solution (intercept first) of the same objective, with its own certificate."""
    model = LogisticRegression(l1_ratio=1, C=1 / (len(y) * penalty), solver="saga", tol=1e-14, max_iter=50_000)
    model.random_state = 0
    solution = np.concatenate([model.fit(x, y).intercept_, model.coef_[0]])
    assert violation(x, y, solution, penalty) < 1e-11
    return solution


def violation(x, y, solution, penalty, weights: float | np.ndarray = 1.0) -> float:
    """Largest violation of the optimality conditions, written out from the objective."""
    residual = 1 / (1 + np.exp(-(solution[0] + x @ solution[1:]))) - y
    gradient, allowed = x.T @ residual / len(y), penalty * weights
    slopes = solution[1:]
    at_zero = np.maximum(np.abs(gradient) - allowed, 0)
    broken = np.where(slopes != 0, np.abs(gradient + np.sign(slopes) * allowed), at_zero)
    return max(abs(residual.mean()), broken.max(initial=0))


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_path_equals_scikit_learn(small, kind):
    federation = kind(odd_sites(small, small.y))
    ours = lasso.fit(federation, 6, n_lambda=20, folds=5)
    assert ours.lambdas[0] == pytest.approx(np.abs(small.x.T @ (small.y - small.y.mean())).max() / 200, rel=1e-12)
    assert ours.lambdas[-1] == pytest.approx(1e-3 * ours.lambdas[0])
    for place in range(1, 20):
        theirs = saga(small.x, small.y, ours.lambdas[place])
        np.testing.assert_allclose(ours.coefficients[place], theirs, atol=1e-10)
        np.testing.assert_array_equal(ours.coefficients[place] != 0, theirs != 0)
    assert (ours.kkt <= 1e-10).all()
    assert federation.rounds <= 12


def test_cross_validation_equals_scikit_learn(small):
    ours = lasso.fit(PooledSites(split(small, [90, 60, 49, 1])), 6, n_lambda=12, folds=5)
    deviance, patients = np.empty((5, 11)), np.bincount(small.fold)
    for fold in range(5):
        train, test = take(small, small.fold != fold), take(small, small.fold == fold)
        for place in range(1, 12):
            b = saga(train.x, train.y, ours.lambdas[place])
            z = b[0] + test.x @ b[1:]
            deviance[fold, place - 1] = 2 * np.mean(np.logaddexp(0, z) - test.y * z)
    mean = np.average(deviance, axis=0, weights=patients)
    se = np.sqrt(np.average((deviance - mean) ** 2, axis=0, weights=patients) / 4)
    np.testing.assert_allclose(ours.cv_deviance[1:], mean, rtol=1e-8)
    np.testing.assert_allclose(ours.cv_se[1:], se, rtol=1e-7)
    assert ours.index_min == 1 + mean.argmin()
    within = np.flatnonzero(mean <= mean.min() + se[mean.argmin()])
    assert ours.index_1se == 1 + within[0]
    assert ours.index == ours.index_min


def test_all_30_features_are_certified():
    rows = breast_cancer(slice(None))
    federation = FixedPointSites(split(rows, [249, 171, 100, 49]))
    ours = lasso.fit(federation, 30, n_lambda=30, rule="1se")
    for coefficients, penalty in zip(ours.coefficients, ours.lambdas, strict=True):
        assert violation(rows.x, rows.y, coefficients, penalty) < 1e-11
    assert len(ours.lambdas) == 30
    assert federation.rounds <= 16
    assert ours.index == ours.index_1se < ours.index_min
    np.testing.assert_array_equal(ours.selected, np.flatnonzero(ours.coefficients[ours.index_1se, 1:]))
    place = 18
    np.testing.assert_allclose(ours.coefficients[place], saga(rows.x, rows.y, ours.lambdas[place]), atol=1e-8)


def test_more_features_than_patients():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 150))
    y = (x[:, 0] - x[:, 1] + rng.normal(size=60) > 0).astype(np.float64)
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    rows = Labelled(x=x, y=y, fold=np.arange(60) % 5)
    ours = lasso.fit(FixedPointSites(split(rows, [30, 20, 10])), 150, n_lambda=15, folds=5)
    assert ours.lambdas[-1] >= 0.99e-2 * ours.lambdas[0]
    for coefficients, penalty in zip(ours.coefficients, ours.lambdas, strict=True):
        assert violation(rows.x, rows.y, coefficients, penalty) < 1e-10
    assert {0, 1} <= set(ours.selected)


def test_separation_ends_the_path_instead_of_failing(small):
    separated = small._replace(x=np.column_stack([small.x, 2 * small.y - 1]))
    ours = lasso.fit(FixedPointSites(split(separated, [100, 100])), 7, n_lambda=30, folds=5)
    assert 5 < len(ours.lambdas) <= 30
    assert np.isfinite(ours.coefficients).all()
    assert violation(separated.x, separated.y, ours.coefficients[-1], ours.lambdas[-1]) < 1e-10
    assert 6 in ours.selected


def test_twins_share_and_constants_stay_out(small):
    x = np.column_stack([small.x[:, 0], small.x[:, 0], small.x[:, 1], np.zeros(200)])
    twins = small._replace(x=x)
    ours = lasso.fit(FixedPointSites(split(twins, [100, 100])), 4, n_lambda=10, folds=5)
    alone = lasso.fit(PooledSites([small._replace(x=small.x[:, :2])]), 2, n_lambda=10, folds=5)
    np.testing.assert_allclose(ours.coefficients[:, 1:3].sum(axis=1), alone.coefficients[:, 1], atol=1e-7)
    assert not ours.coefficients[:, 4].any()


@pytest.mark.parametrize("columns", [[], [1]])
def test_no_feature_and_one(columns):
    rows = breast_cancer(columns, patients=100, folds=4)
    ours = lasso.fit(FixedPointSites(split(rows, [50, 50])), len(columns), folds=4)
    share = rows.y.mean()
    np.testing.assert_allclose(ours.coefficients[0], [np.log(share / (1 - share))] + [0] * len(columns), atol=1e-12)
    assert ours.selected.tolist() == list(range(len(columns)))
    null = -2 * (share * np.log(share) + (1 - share) * np.log(1 - share))
    assert ours.deviance_ratio[0] == pytest.approx(0, abs=1e-12)
    assert ours.cv_deviance[0] == pytest.approx(null, rel=0.05)


def test_penalty_weights(small):
    weights = np.array([0.0, 1.0, 3.0, 1.0, 0.5, 1.0])
    ours = lasso.fit(PooledSites(split(small, [120, 80])), 6, n_lambda=12, folds=5, penalty_weights=weights)
    assert ours.coefficients[:, 1].all()  # not penalised: always in
    for coefficients, penalty in zip(ours.coefficients, ours.lambdas, strict=True):
        assert violation(small.x, small.y, coefficients, penalty, weights) < 1e-11


def test_a_fold_that_takes_a_whole_class_is_left_out_of_the_cross_validation(small):
    lopsided = small._replace(fold=np.where(small.y == 1, 0, 1 + np.arange(200) % 4))
    ours = lasso.fit(PooledSites(split(lopsided, [120, 80])), 6, n_lambda=8, folds=6)  # and fold 5 is empty
    assert len(ours.cv_deviance) == 8
    assert np.isfinite(ours.cv_deviance).all()


@pytest.mark.parametrize("sizes", [[200], [0, 199, 1], [1] * 20 + [180]])
def test_sites_do_not_matter(small, sizes):
    one = lasso.fit(PooledSites([small]), 6, n_lambda=10, folds=5)
    many = lasso.fit(PooledSites(split(small, sizes)[::-1]), 6, n_lambda=10, folds=5)
    np.testing.assert_allclose(many.coefficients, one.coefficients, atol=1e-12)
    np.testing.assert_allclose(many.cv_deviance, one.cv_deviance, rtol=1e-12)


def test_what_cannot_be_fitted_says_so(small):
    with pytest.raises(NotIdentifiable, match="0 of 200 patients have the outcome"):
        lasso.fit(PooledSites([small._replace(y=np.zeros(200))]), 6, folds=5)
    with pytest.raises(NotIdentifiable, match="0 inner folds leave both classes"):
        lasso.fit(PooledSites([small._replace(fold=np.zeros(200, dtype=np.int64))]), 6, folds=5)
    with pytest.raises(SumRefused, match="outside 0"):
        lasso.fit(PooledSites([small]), 6, folds=4)


def test_local_halves_add_over_rows(small):
    check(lasso.start, small, folds=6)
    rng = np.random.default_rng(2)
    working = rng.random((9, 7)) < 0.6
    coefficients = rng.normal(size=(9, 7))
    check(lasso.terms, small, coefficients=coefficients, held_out=np.arange(-1, 8), working=working)


def test_many_patients_are_handled_in_blocks(small, monkeypatch):
    parameters = {
        "coefficients": np.random.default_rng(2).normal(size=(9, 7)),
        "held_out": np.arange(-1, 8),
        "working": np.ones((9, 7), dtype=bool),
    }
    whole = lasso.terms.local(small, **parameters)
    monkeypatch.setattr(lasso, "CELLS", 500)  # two models at a time
    for a, b in zip(lasso.terms.local(small, **parameters), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
