"""LASSO and elastic net of a yes-no outcome (logistic) or a number (linear): path and cross-validation together.

The loss of a patient, with z = b_0 + x b, is log(1 + exp(z)) - y z, or (y - z)^2 / 2; the objective, the path and its
choice are those of lasso_path. Coefficient 0 is the intercept; the local half adds its column of ones. Columns come
standardised once, on all training patients; the folds do not standardise again (glmnet's do).
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cohortium.common.errors import NotIdentifiable, SumRefused
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import lasso_path, triangle
from cohortium.strategies.lasso_models import TrainingSets
from cohortium.strategies.lasso_path import EVERYBODY, LassoPath, Rule, Terms
from cohortium.strategies.rows import Array, Counts, Labelled

CELLS = 4_000_000
"""Patients x models handled at a time at a site: 32 MB an array."""
Family = Literal["logistic", "linear"]


class Start(NamedTuple):
    """What the intercept-only models need, by inner fold."""

    patients: Counts  # (folds,)
    outcome: Array  # (folds,), sum of y: patients with the outcome
    outcome_squared: Array  # (folds,), sum of y^2
    total: Array  # (folds, p), sum of x
    outcome_total: Array  # (folds, p), sum of y x


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("lasso.start", adds_over="rows")
def start(rows: Labelled, *, folds: int) -> Start:
    """Sums of a site's outcomes and columns, by inner fold 0..folds-1."""
    if not np.isin(rows.fold, np.arange(folds)).all():
        raise SumRefused("lasso.start", f"a fold number is outside 0..{folds - 1}; ask for the folds the study assigns")
    member = (rows.fold == np.arange(folds)[:, None]).astype(np.float64)
    return Start(
        patients=member.sum(axis=1).astype(np.int64),
        outcome=member @ rows.y,
        outcome_squared=member @ rows.y**2,
        total=member @ rows.x,
        outcome_total=(member * rows.y) @ rows.x,
    )


@statistic("lasso.terms", adds_over="rows")
def terms(
    rows: Labelled, *, coefficients: Array, held_out: Counts, working: NDArray[np.bool_], family: Family = "logistic"
) -> Terms:
    """Loss, gradient and curvature of a site's rows for m models.

    Parameters
    ----------
    coefficients : (m, p + 1)
        Intercept first.
    held_out : (m,) int64
        The inner fold that a model does not see; -1: it sees all.
    working : (m, p + 1) bool
        Columns whose curvature is wanted.
    family : {"logistic", "linear"}
    """
    block = max(1, CELLS // max(1, len(rows.y)))
    parts = [
        _terms(rows, coefficients[i : i + block], held_out[i : i + block], working[i : i + block], family)
        for i in range(0, len(coefficients), block)
    ]
    return Terms(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def _terms(rows: Labelled, coefficients: Array, held_out: Counts, working: NDArray[np.bool_], family: Family) -> Terms:
    design = np.column_stack([np.ones(len(rows.y)), rows.x])
    linear_predictor = coefficients @ design.T  # (m, n)
    seen = rows.fold != held_out[:, None]
    if family == "logistic":
        expected = special.expit(linear_predictor)
        loss = np.logaddexp(0, linear_predictor) - rows.y * linear_predictor
        spread = expected * (1 - expected)
    else:
        expected, loss, spread = linear_predictor, (rows.y - linear_predictor) ** 2 / 2, np.ones_like(linear_predictor)
    weight = np.where(seen, spread, 0.0)
    triangles = []
    for model in range(len(coefficients)):
        x = design[:, working[model]]
        triangles.append(triangle.upper(x.T @ (x * weight[model][:, None])))
    return Terms(
        loss=np.where(seen, loss, 0.0).sum(axis=1),
        held_out_loss=np.where(seen, 0.0, loss).sum(axis=1),
        gradient=np.where(seen, expected - rows.y, 0.0) @ design,
        curvature=np.concatenate(triangles),
    )


# --- at the server --------------------------------------------------------------------------------------------


def fit(
    federation: Federation,
    predictors: int,
    *,
    family: Family = "logistic",
    n_lambda: int = 50,
    folds: int = 10,
    rule: Rule = "min",
    mixing: float = 1.0,
    penalty_weights: Array | None = None,
) -> LassoPath:
    """Fit the path (see `lasso_path.fit`) over all sites of the federation.

    Parameters
    ----------
    federation : Federation
        Of `Labelled` rows: x (n, predictors) standardised, no column of ones; fold 0..folds-1. For the linear family
        y is a number, standardised like a column: penalties and tolerances are on its scale.
    predictors : int
        May be 0 or more than the patients.
    family : {"logistic", "linear"}
    n_lambda, folds : int
    rule, mixing, penalty_weights
        As in `lasso_path.fit`.

    Raises
    ------
    NotIdentifiable
        One class or value only, or no inner fold leaves both classes to train on and somebody to test on.
    """
    del predictors  # the sums tell
    first = federation.sum(start, folds=folds)
    sets = _logistic_sets(first) if family == "logistic" else _linear_sets(first)

    def evaluate(coefficients: Array, held_out: Counts, working: NDArray[np.bool_]) -> Terms:
        return federation.sum(terms, coefficients=coefficients, held_out=held_out, working=working, family=family)

    return lasso_path.fit(evaluate, sets, n_lambda=n_lambda, rule=rule, mixing=mixing, penalty_weights=penalty_weights)


def _logistic_sets(by_fold: Start) -> TrainingSets:
    everybody = Start(*(field.sum(axis=0) for field in by_fold))
    by_fold_events, all_events = np.rint(by_fold.outcome), np.rint(everybody.outcome)
    if not 0 < all_events < everybody.patients:
        raise NotIdentifiable(
            f"LASSO: {int(all_events)} of {int(everybody.patients)} patients have the outcome; a fit needs both classes"
        )
    patients, events = everybody.patients - by_fold.patients, all_events - by_fold_events
    usable = np.flatnonzero((by_fold.patients > 0) & (events > 0) & (events < patients))
    if len(usable) < 2:
        raise NotIdentifiable(
            f"LASSO: {len(usable)} inner folds leave both classes to train on, two are needed; "
            "ask for fewer folds, or name the predictors in the study instead of selecting them"
        )
    n, e, _, total, with_outcome = _by_training_set(by_fold, everybody, usable)
    share = np.rint(e) / n
    return TrainingSets(
        held_out=np.concatenate([[EVERYBODY], usable]),
        patients=n,
        held_out_weight=np.concatenate([[0.0], by_fold.patients[usable]]),
        intercept=special.logit(share)[:, None],
        null_loss=-special.xlogy(share, share) - special.xlogy(1 - share, 1 - share),
        null_gradient=np.asarray((share[:, None] * total - with_outcome) / n[:, None], dtype=np.float64),
    )


def _linear_sets(by_fold: Start) -> TrainingSets:
    everybody = Start(*(field.sum(axis=0) for field in by_fold))
    usable = np.flatnonzero((by_fold.patients > 0) & (everybody.patients - by_fold.patients > 1))
    if len(usable) < 2:
        raise NotIdentifiable(
            f"LASSO: {int(everybody.patients)} patients in {len(usable)} usable inner folds, two are needed; "
            "ask for fewer folds"
        )
    n, outcome, squared, total, with_outcome = _by_training_set(by_fold, everybody, usable)
    mean = outcome / n
    spread = squared / n - mean**2
    if not (spread > 1e-12 * (1 + mean**2)).all():
        raise NotIdentifiable("LASSO: the outcome has one value in a training set; nothing can be fitted")
    return TrainingSets(
        held_out=np.concatenate([[EVERYBODY], usable]),
        patients=n,
        held_out_weight=np.concatenate([[0.0], by_fold.patients[usable]]),
        intercept=mean[:, None],
        null_loss=spread / 2,
        null_gradient=np.asarray((mean[:, None] * total - with_outcome) / n[:, None], dtype=np.float64),
    )


def _by_training_set(by_fold: Start, everybody: Start, usable: Counts) -> list[Array]:
    """Each field for all patients, and for all but each usable fold."""
    return [
        np.concatenate([whole[None], (whole - part)[usable]]).astype(np.float64)
        for whole, part in zip(everybody, by_fold, strict=True)
    ]
