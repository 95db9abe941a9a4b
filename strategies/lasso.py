"""LASSO: the whole logistic path and its cross-validation at once, in about a dozen sums.

Objective of glmnet (Friedman, Hastie & Tibshirani, J. Stat. Softw. 33:1, 2010), for each penalty lambda and for each
training set (all patients, and all but one inner fold):

    mean over patients of [log(1 + exp(z)) - y z] + lambda sum_j w_j |b_j|,   z = b_0 + x b, b_0 not penalised

A sequential path would cost rounds for every lambda. Here all models start together from the intercept alone and take
proximal Newton steps: a round's sum carries loss, gradient and curvature of every unfinished model, the curvature only
for its working set, the coefficients that are or may become nonzero. What the server does between two sums is in
lasso_models.

Coefficient 0 is the intercept; the local half adds its column of ones. Columns come standardised once, on all training
patients; the folds do not standardise again (glmnet's do).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cohortium.common.errors import NotIdentifiable, SumRefused
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import triangle
from cohortium.strategies.lasso_models import KKT, At, Models, TrainingSets, advance, end_path, null_models
from cohortium.strategies.rows import Array, Counts, Labelled

MAX_ROUNDS = 30
CELLS = 4_000_000
"""Patients x models handled at a time at a site: 32 MB an array."""
EVERYBODY = -1
"""As held-out fold: none."""


class Start(NamedTuple):
    """What the intercept-only models need, by inner fold."""

    patients: Counts  # (folds,)
    events: Counts  # (folds,)
    total: Array  # (folds, p), sum of x
    events_total: Array  # (folds, p), sum of x over patients with the outcome


class Terms(NamedTuple):
    """What one Newton step of m models needs of some patients."""

    loss: Array  # (m,), minus the log-likelihood of the training patients
    held_out_loss: Array  # (m,), of the patients of the held-out fold
    gradient: Array  # (m, p + 1), of the loss
    curvature: Array  # (sum over models of k (k + 1) / 2,), upper triangles on the k columns of their working sets


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("lasso.start", adds_over="rows")
def start(rows: Labelled, *, folds: int) -> Start:
    """Class counts and column sums of a site's rows, by inner fold 0..folds-1."""
    if not np.isin(rows.fold, np.arange(folds)).all():
        raise SumRefused("lasso.start", f"a fold number is outside 0..{folds - 1}; ask for the folds the study assigns")
    member = (rows.fold == np.arange(folds)[:, None]).astype(np.float64)
    return Start(
        patients=member.sum(axis=1).astype(np.int64),
        events=(member @ rows.y).astype(np.int64),
        total=member @ rows.x,
        events_total=(member * rows.y) @ rows.x,
    )


@statistic("lasso.terms", adds_over="rows")
def terms(rows: Labelled, *, coefficients: Array, held_out: Counts, working: NDArray[np.bool_]) -> Terms:
    """Loss, gradient and curvature of a site's rows for m models.

    Parameters
    ----------
    coefficients : (m, p + 1)
        Intercept first.
    held_out : (m,) int64
        The inner fold that a model does not see; -1: it sees all.
    working : (m, p + 1) bool
        Columns whose curvature is wanted.
    """
    block = max(1, CELLS // max(1, len(rows.y)))
    parts = [
        _terms(rows, coefficients[i : i + block], held_out[i : i + block], working[i : i + block])
        for i in range(0, len(coefficients), block)
    ]
    return Terms(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def _terms(rows: Labelled, coefficients: Array, held_out: Counts, working: NDArray[np.bool_]) -> Terms:
    design = np.column_stack([np.ones(len(rows.y)), rows.x])
    linear_predictor = coefficients @ design.T  # (m, n)
    risk = special.expit(linear_predictor)
    seen = rows.fold != held_out[:, None]
    loss = np.logaddexp(0, linear_predictor) - rows.y * linear_predictor
    weight = np.where(seen, risk * (1 - risk), 0.0)
    triangles = []
    for model in range(len(coefficients)):
        x = design[:, working[model]]
        triangles.append(triangle.upper(x.T @ (x * weight[model][:, None])))
    return Terms(
        loss=np.where(seen, loss, 0.0).sum(axis=1),
        held_out_loss=np.where(seen, 0.0, loss).sum(axis=1),
        gradient=np.where(seen, risk - rows.y, 0.0) @ design,
        curvature=np.concatenate(triangles),
    )


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class LassoPath:
    """A path of l penalties, largest first, and its inner cross-validation."""

    lambdas: Array  # (l,)
    coefficients: Array  # (l, p + 1), intercept first
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
    federation: Federation,
    predictors: int,
    *,
    n_lambda: int = 50,
    folds: int = 10,
    rule: Literal["min", "1se"] = "min",
    penalty_weights: Array | None = None,
) -> LassoPath:
    """Fit the path and choose the penalty by cross-validation over the inner folds.

    Penalties fall from the smallest that keeps every coefficient at zero to 1e-2 of it where there are fewer patients
    than predictors, else 1e-3 (glmnet: 1e-4, where the last lambdas only cost rounds). The path ends early where the
    deviance is explained.

    Parameters
    ----------
    federation : Federation
        Of `Labelled` rows: x (n, predictors) standardised, no column of ones; fold 0..folds-1.
    predictors : int
        May be 0 or more than the patients.
    n_lambda, folds : int
    rule : {"min", "1se"}
        Smallest cross-validated deviance, or the largest penalty within one standard error of it.
    penalty_weights : (predictors,), optional
        w_j >= 0; 0 leaves a predictor unpenalised. Not rescaled.

    Raises
    ------
    NotIdentifiable
        One class only, or no inner fold leaves both classes to train on and somebody to test on.
    """
    sets = _training_sets(federation.sum(start, folds=folds))
    weights = np.ones(predictors) if penalty_weights is None else np.asarray(penalty_weights, dtype=np.float64)
    lambdas = _lambdas(sets, weights, n_lambda)
    models = null_models(sets, lambdas, weights)
    at = _at_null(federation, sets, models)
    active = np.arange(len(models.place))
    for _ in range(MAX_ROUNDS):
        advance(models, active, at, sets.patients[models.training_set[active]])
        end_path(models, sets)
        active = np.flatnonzero((models.violation > KKT) & ~models.dropped)
        if not active.size:
            break
        at = _evaluate(
            federation,
            models.coefficients[active],
            sets.held_out[models.training_set[active]],
            models.working[active],
        )
    return _path(models, sets, lambdas, rule)


def _training_sets(by_fold: Start) -> TrainingSets:
    everybody = Start(*(field.sum(axis=0) for field in by_fold))
    if not 0 < everybody.events < everybody.patients:
        raise NotIdentifiable(
            f"LASSO: {int(everybody.events)} of {int(everybody.patients)} patients have the outcome; "
            "a fit needs both classes"
        )
    patients, events = everybody.patients - by_fold.patients, everybody.events - by_fold.events
    usable = np.flatnonzero((by_fold.patients > 0) & (events > 0) & (events < patients))
    if len(usable) < 2:
        raise NotIdentifiable(
            f"LASSO: {len(usable)} inner folds leave both classes to train on, two are needed; "
            "ask for fewer folds, or name the predictors in the study instead of selecting them"
        )
    n, e, total, with_outcome = (
        np.concatenate([whole[None], (whole - part)[usable]]) for whole, part in zip(everybody, by_fold, strict=True)
    )
    share = e / n
    return TrainingSets(
        held_out=np.concatenate([[EVERYBODY], usable]),
        patients=n.astype(np.float64),
        held_out_patients=np.concatenate([[0.0], by_fold.patients[usable]]),
        intercept=np.log(e / (n - e)),
        null_loss=-special.xlogy(share, share) - special.xlogy(1 - share, 1 - share),
        null_gradient=np.asarray((share[:, None] * total - with_outcome) / n[:, None], dtype=np.float64),
    )


def _lambdas(sets: TrainingSets, weights: Array, n_lambda: int) -> Array:
    """The path of all patients, (l,); a single 0 where no penalised column has a gradient."""
    penalised = weights > 0
    largest = (np.abs(sets.null_gradient[0, penalised]) / weights[penalised]).max(initial=0.0)
    if largest <= KKT:
        return np.zeros(1)
    ratio = 1e-2 if sets.patients[0] < len(weights) else 1e-3
    return np.geomspace(largest, ratio * largest, n_lambda)


def _evaluate(federation: Federation, coefficients: Array, held_out: Counts, working: NDArray[np.bool_]) -> At:
    """One round."""
    at = federation.sum(terms, coefficients=coefficients, held_out=held_out, working=working)
    sizes = working.sum(axis=1)
    width = sizes.max()
    curvature = np.zeros((len(sizes), width, width))
    ends = np.cumsum(sizes * (sizes + 1) // 2)
    for model, (size, end) in enumerate(zip(sizes, ends, strict=True)):
        curvature[model, :size, :size] = triangle.symmetric(at.curvature[end - size * (size + 1) // 2 : end])
    return At(
        loss=at.loss,
        held_out_loss=at.held_out_loss,
        gradient=at.gradient,
        columns=np.argsort(~working, axis=1, kind="stable")[:, :width],  # working ones first, in column order
        real=np.arange(width) < sizes[:, None],
        curvature=curvature,
    )


def _at_null(federation: Federation, sets: TrainingSets, models: Models) -> At:
    """The first round: all penalties of a training set still stand at the same point, so it is asked for once."""
    firsts = np.flatnonzero(models.place == 0)
    union = np.stack([models.working[models.training_set == s].any(axis=0) for s in range(len(firsts))])
    return _evaluate(federation, models.coefficients[firsts], sets.held_out, union).take(models.training_set)


def _path(models: Models, sets: TrainingSets, lambdas: Array, rule: Literal["min", "1se"]) -> LassoPath:
    """Cut the path where it ended or where a model has not settled, and choose the penalty."""
    grid = (len(sets.patients), len(lambdas))
    violation, dropped = models.violation.reshape(grid), models.dropped.reshape(grid)
    good = ((violation <= KKT) & ~dropped).all(axis=0)
    length = len(lambdas) if good.all() else int(np.argmin(good))
    if length == 0:
        raise NotIdentifiable("LASSO: unpenalised predictors separate the outcome; penalise them too")
    held_out = models.held_out_loss.reshape(grid)[1:, :length]
    share = sets.held_out_patients[1:, None]
    deviance = 2 * held_out / share  # (folds, l)
    mean = (deviance * share).sum(axis=0) / share.sum()
    # as in cv.glmnet: spread of the folds' means, weighted by their size
    se = np.sqrt(((deviance - mean) ** 2 * share).sum(axis=0) / share.sum() / (len(share) - 1))
    index_min = int(np.argmin(mean))
    index_1se = int(np.argmax(mean <= mean[index_min] + se[index_min]))
    return LassoPath(
        lambdas=lambdas[:length],
        coefficients=models.coefficients.reshape(*grid, -1)[0, :length],
        deviance_ratio=1 - models.loss.reshape(grid)[0, :length] / (sets.patients[0] * sets.null_loss[0]),
        cv_deviance=mean,
        cv_se=se,
        kkt=violation[:, :length].max(axis=0),
        index_min=index_min,
        index_1se=index_1se,
        index=index_min if rule == "min" else index_1se,
    )
