"""Linear SVM: liblinear's solution on the pooled rows, Platt's sigmoid, an RBF machine in approximation; sums add."""

import numpy as np
import pytest
from scipy import special
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import linear_svm
from cohortium.strategies.random_features import Kernel, features
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, check, split, take


@pytest.fixture(scope="module")
def rows():
    data = load_breast_cancer()
    x = data.data[:, :10]
    fold = np.random.default_rng(5).integers(0, linear_svm.FOLDS, 569)
    return Labelled((x - x.mean(axis=0)) / x.std(axis=0), data.target.astype(float), fold)


def liblinear(design, y, penalty):
    """scikit-learn's LinearSVC; the column of ones is penalised as the others are."""
    machine = LinearSVC(C=penalty, dual=False, tol=1e-12, max_iter=10**6, fit_intercept=False)
    return machine.fit(np.column_stack([np.ones(len(y)), design]), y).coef_[0]


@pytest.mark.parametrize("penalty", [0.05, 2.0])
def test_coefficients_equal_liblinear(rows, penalty):
    pooled = liblinear(rows.x, rows.y, penalty)
    for federation in (PooledSites(split(rows, [200, 1, 68, 300])), FixedPointSites(split(rows, [200, 1, 68, 300]))):
        fitted = linear_svm.fit(federation, 10, penalty=penalty)
        assert np.abs(fitted.coefficients - pooled).max() < 1e-4  # liblinear's own tolerance is no tighter
        assert _gradient(rows, fitted.coefficients, penalty) < 1e-6 * penalty * 569
        # convex: whose objective is lower is nearer
        assert fitted.objective <= _objective(rows, pooled, penalty) * (1 + 1e-10)
        assert fitted.sums < 100


def _short(rows, w):
    design = np.column_stack([np.ones(len(rows.y)), rows.x])
    return design, np.maximum(0, 1 - (2 * rows.y - 1) * (design @ w))


def _objective(rows, w, penalty):
    return w @ w / 2 + penalty * (_short(rows, w)[1] ** 2).sum()


def _gradient(rows, w, penalty):
    design, short = _short(rows, w)
    return np.abs(w - 2 * penalty * design.T @ ((2 * rows.y - 1) * short)).max()


def test_probabilities_are_platt_s_of_out_of_fold_decisions(rows):
    """scikit-learn's LinearSVC in the same folds, then an unpenalised logistic regression on weighted Platt targets."""
    fitted = linear_svm.fit(PooledSites(split(rows, [269, 300])), 10, penalty=1.0)
    decision = np.zeros(569)
    for fold in range(linear_svm.FOLDS):
        out = rows.fold == fold
        w = liblinear(rows.x[~out], rows.y[~out], 1.0)
        decision[out] = w[0] + rows.x[out] @ w[1:]
    events = rows.y.sum()
    target = np.where(rows.y == 1, (events + 1) / (events + 2), 1 / (569 - events + 2))
    sigmoid = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000)
    sigmoid.fit(np.r_[decision, decision][:, None], np.repeat([1, 0], 569), np.r_[target, 1 - target])
    assert fitted.slope == pytest.approx(sigmoid.coef_[0, 0], rel=1e-3)
    assert fitted.offset == pytest.approx(sigmoid.intercept_[0], abs=1e-3)
    z = linear_svm.decision(rows.x, fitted.coefficients)
    np.testing.assert_allclose(linear_svm.decision(rows.x, fitted.logit), fitted.slope * z + fitted.offset, atol=1e-12)
    assert special.expit(linear_svm.decision(rows.x, fitted.logit)).mean() == pytest.approx(rows.y.mean(), abs=0.02)


def test_random_features_agree_with_the_kernel_machine(rows):
    kernel = Kernel(gamma=0.1, components=150, seed=11)
    fitted = linear_svm.fit(PooledSites(split(rows, [269, 300])), 10, penalty=1.0, kernel=kernel)
    made = features(rows.x, kernel)
    assert np.abs(fitted.coefficients - liblinear(made, rows.y, 1.0)).max() < 1e-4
    exact = SVC(C=1.0, gamma=0.1).fit(rows.x, rows.y)
    labels = linear_svm.decision(rows.x, fitted.coefficients, kernel) > 0
    assert np.mean(labels == exact.predict(rows.x)) > 0.97
    many = features(rows.x[:50], Kernel(gamma=0.1, components=20_000, seed=1))
    gaussian = np.exp(-0.1 * ((rows.x[:50, None] - rows.x[None, :50]) ** 2).sum(axis=2))
    assert np.abs(many @ many.T - gaussian).max() < 0.05


def test_sums_add_over_rows(rows):
    kernel = [0.1, 7, 3]
    check(linear_svm.loss, rows, coefficients=np.linspace(-1, 1, 11), held_out=2, kernel=None)
    check(linear_svm.loss, rows, coefficients=np.linspace(-1, 1, 8), held_out=-1, kernel=kernel)
    fitted = np.random.default_rng(0).normal(size=(linear_svm.FOLDS, 8))
    check(linear_svm.sigmoid, rows, coefficients=fitted, kernel=kernel, line=np.array([1.0, 0.2]), targets=[0.01, 0.99])


def test_separated_classes_stay_finite(rows):
    separated = rows._replace(x=np.column_stack([rows.x[:, :2], 2 * rows.y - 1]))
    fitted = linear_svm.fit(PooledSites(split(separated, [300, 269])), 3, penalty=10.0)
    assert np.isfinite(fitted.logit).all()
    assert 0 < fitted.slope < 1e3


def test_one_class_is_refused(rows):
    with pytest.raises(NotIdentifiable, match="with and without"):
        linear_svm.fit(PooledSites([take(rows, rows.y == 1)]), 10, penalty=1.0)


def test_newton_s_matrices_would_give_a_patient_away(rows):
    """Why no second moments are asked for: where the margins of two steps differ by a patient, so do the matrices."""
    design, sign = np.column_stack([np.ones(569), rows.x]), 2 * rows.y - 1
    w, last, rebuilt = np.zeros(11), None, None
    for _ in range(30):
        inside = sign * (design @ w) < 1
        information = design[inside].T @ design[inside]
        if last is not None and np.sum(inside != last[0]) == 1:
            values, vectors = np.linalg.eigh(information - last[1])
            largest = np.argmax(np.abs(values))
            row = vectors[:, largest] * np.sqrt(np.abs(values[largest]))
            rebuilt = row / row[0]
            break
        last = inside, information
        short = 1 - sign[inside] * (design[inside] @ w)
        gradient = w - 2 * design[inside].T @ (sign[inside] * short)
        w = w - np.linalg.solve(np.eye(11) + 2 * information, gradient)
    assert rebuilt is not None
    assert np.abs(rebuilt - design).max(axis=1).min() < 1e-9  # a patient's standardised values
    answer = linear_svm.loss.local(rows, coefficients=w, held_out=-1, kernel=None)
    assert sum(np.size(field) for field in answer) == 11 + 3
