"""Penalised path: LASSO and elastic net for any likelihood that adds over sites, with cross-validation, all at once.

For each penalty lambda and each training set (all patients, and all but one inner fold) the minimum of

    loss / patients + lambda sum_j w_j (mixing |b_j| + (1 - mixing) b_j^2 / 2)

the objective of glmnet (Friedman, Hastie & Tibshirani, J. Stat. Softw. 33:1, 2010), which calls `mixing` alpha;
scikit-learn calls it l1_ratio. An intercept is not penalised.

A sequential path would cost rounds for every lambda. Here all models start together from nothing but the intercept and
take proximal Newton steps: a round's sum carries loss, gradient and curvature of every unfinished model, the curvature
only for its working set, the coefficients that are or may become nonzero. What the server does between two sums is in
lasso_models; the likelihoods are in lasso (logistic, linear) and lasso_cox.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import NotIdentifiable
from cohortium.strategies import triangle
from cohortium.strategies.lasso_models import (
    KKT,
    WIDEST,
    At,
    Models,
    TrainingSets,
    advance,
    cross_validated,
    end_past_minimum,
    end_path,
    nearly_solved,
    null_models,
    start_from,
)
from cohortium.strategies.rows import Array, Counts

MAX_ROUNDS = 40
LAUNCHES = 6
"""Parts of the path of a wide problem, started one after another, each near the solution of the one before it."""
READY = 0.5
"""Violation of the last penalty of a part, as a share of it, at which the next part starts."""
EVERYBODY = -1
"""As held-out fold: none."""
Rule = Literal["min", "1se"]


class Terms(NamedTuple):
    """What one Newton step of m models of q coefficients needs of some patients."""

    loss: Array  # (m,), of the training patients
    held_out_loss: Array  # (m,), what the held-out fold adds to it
    gradient: Array  # (m, q), of the loss
    curvature: Array  # (sum over models of k (k + 1) / 2,), upper triangles on the k columns of their working sets


Evaluate = Callable[[Array, Counts, NDArray[np.bool_]], Terms]
"""``evaluate(coefficients (m, q), held_out (m,), working (m, q))``: one round, over all sites."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LassoPath:
    """A path of l penalties, largest first, and its inner cross-validation."""

    lambdas: Array  # (l,)
    coefficients: Array  # (l, p + 1), intercept first; 0 for a Cox model
    deviance_ratio: Array  # (l,), share of the null deviance that is explained in training
    cv_deviance: Array  # (l,), mean deviance of a held-out patient
    cv_se: Array  # (l,), standard error of that mean, from the spread between folds
    kkt: Array  # (l,), largest violation of optimality over all training sets
    index_min: int  # smallest cv_deviance
    index_1se: int  # largest lambda within one standard error of it
    index: int  # the one that the rule chose

    @property
    def chosen(self) -> Array:
        """Coefficients at the chosen penalty, (p + 1,)."""
        return self.coefficients[self.index]

    @property
    def selected(self) -> Counts:
        """Predictors whose coefficient is not zero there, ascending."""
        return np.flatnonzero(self.chosen[1:])


def fit(
    evaluate: Evaluate,
    sets: TrainingSets,
    *,
    n_lambda: int,
    rule: Rule,
    mixing: float = 1.0,
    penalty_weights: Array | None = None,
) -> LassoPath:
    """Fit the path and choose the penalty by cross-validation over the inner folds.

    Penalties fall from the smallest that keeps every coefficient at zero to 1e-2 of it where there are fewer patients
    than predictors, else 1e-3 (glmnet: 1e-4, where the last lambdas only cost rounds). The path ends early where the
    deviance is explained, and before a penalty that wants more than a column for every four patients.

    Parameters
    ----------
    evaluate : callable
    sets : TrainingSets
    n_lambda : int
    rule : {"min", "1se"}
        Smallest cross-validated deviance, or the largest penalty within one standard error of it.
    mixing : float
        Share of the L1 penalty, above 0: 1 is the LASSO.
    penalty_weights : (predictors,), optional
        w_j >= 0; 0 leaves a predictor unpenalised. Not rescaled.
    """
    predictors = sets.null_gradient.shape[1]
    weights = np.ones(predictors) if penalty_weights is None else np.asarray(penalty_weights, dtype=np.float64)
    lambdas = _lambdas(sets, weights * mixing, n_lambda)
    models = null_models(sets, lambdas, weights, mixing)
    wide = predictors > WIDEST
    pace = -(-len(lambdas) // LAUNCHES) if wide else len(lambdas)
    front = pace
    firsts = np.flatnonzero(models.place == 0)  # one a training set
    here, at_front = models.coefficients[firsts], _at_null(evaluate, sets, models, front)
    new = np.flatnonzero(models.place < front)
    advance(models, new, at_front.take(models.training_set[new]), sets)
    for _ in range(MAX_ROUNDS):
        end_path(models, sets)
        if wide:
            end_past_minimum(models, sets)
        active = np.flatnonzero((models.violation > KKT) & ~models.dropped & (models.place < front))
        if active.size:
            asked, held_out = models.coefficients[active], sets.held_out[models.training_set[active]]
            at = _unpacked(evaluate, asked, held_out, models.working[active])
            advance(models, active, at, sets)
            last = np.flatnonzero(models.place[active] == front - 1)
            here[models.training_set[active[last]]] = asked[last]
            at_front = at_front.replaced(models.training_set[active[last]], at.take(last))
        elif front >= len(lambdas) or models.dropped[front]:
            break
        if front < len(lambdas) and not nearly_solved(models, front - 1, READY):
            continue
        # the next penalties start where the last one was asked for, from the same sums
        new = np.flatnonzero((models.place >= front) & (models.place < front + pace) & ~models.dropped)
        if new.size:
            sets_of_new = models.training_set[new]
            start_from(models, new, here[sets_of_new], at_front.take(sets_of_new))
            advance(models, new, at_front.take(sets_of_new), sets)
        front += pace
    return _path(models, sets, lambdas, rule)


def _lambdas(sets: TrainingSets, weights: Array, n_lambda: int) -> Array:
    """The path of all patients, (l,); a single 0 where no penalised column has a gradient."""
    penalised = weights > 0
    largest = (np.abs(sets.null_gradient[0, penalised]) / weights[penalised]).max(initial=0.0)
    if largest <= KKT:
        return np.zeros(1)
    ratio = 1e-2 if sets.patients[0] < len(weights) else 1e-3
    return np.geomspace(largest, ratio * largest, n_lambda)


def _unpacked(evaluate: Evaluate, coefficients: Array, held_out: Counts, working: NDArray[np.bool_]) -> At:
    """One round, its triangles made matrices."""
    at = evaluate(coefficients, held_out, working)
    sizes = working.sum(axis=1)
    triangles = np.split(at.curvature, np.cumsum(sizes * (sizes + 1) // 2)[:-1])
    return At(
        loss=at.loss,
        held_out_loss=at.held_out_loss,
        gradient=at.gradient,
        working=working,
        curvature=[triangle.symmetric(part) for part in triangles],
    )


def _at_null(evaluate: Evaluate, sets: TrainingSets, models: Models, front: int) -> At:
    """The first round: all penalties of a training set still stand at the same point, so it is asked for once."""
    firsts, near = np.flatnonzero(models.place == 0), models.place < front
    union = [models.working[(models.training_set == s) & near].any(axis=0) for s in range(len(firsts))]
    return _unpacked(evaluate, models.coefficients[firsts], sets.held_out, np.stack(union))


def _path(models: Models, sets: TrainingSets, lambdas: Array, rule: Rule) -> LassoPath:
    """Cut the path where it ended or where a model has not settled, and choose the penalty."""
    grid = (len(sets.patients), len(lambdas))
    violation, dropped = models.violation.reshape(grid), models.dropped.reshape(grid)
    good = ((violation <= KKT) & ~dropped).all(axis=0)
    length = len(lambdas) if good.all() else int(np.argmin(good))
    if length == 0:
        raise NotIdentifiable("LASSO: unpenalised predictors separate the outcome; penalise them too")
    coefficients = models.coefficients.reshape(*grid, -1)[0, :length]
    if sets.intercept.shape[1] == 0:
        coefficients = np.hstack([np.zeros((length, 1)), coefficients])
    mean, se = cross_validated(models, sets, length)
    index_min = int(np.argmin(mean))
    index_1se = int(np.argmax(mean <= mean[index_min] + se[index_min]))
    return LassoPath(
        lambdas=lambdas[:length],
        coefficients=coefficients,
        deviance_ratio=1 - models.loss.reshape(grid)[0, :length] / (sets.patients[0] * sets.null_loss[0]),
        cv_deviance=mean,
        cv_se=se,
        kkt=violation[:, :length].max(axis=0),
        index_min=index_min,
        index_1se=index_1se,
        index=index_min if rule == "min" else index_1se,
    )
