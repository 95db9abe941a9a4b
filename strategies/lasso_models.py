"""LASSO models: many penalised fits on their way to the solution, advanced together at the server.

What `lasso.fit` does between two sums: a proximal Newton step of every unfinished model (Lee, Sun & Saunders, SIAM J.
Optim. 24:1420, 2014), on its working set, or half a step back where the last one was too long.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohortium.strategies import penalised_quadratic
from cohortium.strategies.rows import Array, Counts

KKT = 1e-10
"""Largest element of the mean gradient that may violate optimality; 1e-8 leaves 4e-6 in coefficients."""
FULL_DEVIANCE = 0.999
"""The path ends where this share of the deviance is explained, as in glmnet: what follows is separation."""
WIDEST = 60
"""Most columns that enter a working set at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSets:
    """All patients first, then all but one fold for each usable fold; arrays have one entry a set."""

    held_out: Counts  # (s,)
    patients: Array  # (s,)
    held_out_patients: Array  # (s,)
    intercept: Array  # (s,), of the null model
    null_loss: Array  # (s,), mean
    null_gradient: Array  # (s, p), mean


@dataclass(kw_only=True, slots=True)
class Models:
    """Models on their way to the solution; arrays have one entry a model."""

    training_set: Counts
    place: Counts  # on the path
    penalty: Array  # (m, p + 1)
    coefficients: Array  # (m, p + 1), where the next sum is asked for
    working: NDArray[np.bool_]  # (m, p + 1)
    settled: Array  # (m, p + 1), best so far
    objective: Array  # (m,), there
    loss: Array  # (m,)
    held_out_loss: Array  # (m,)
    violation: Array  # (m,)
    dropped: NDArray[np.bool_]  # (m,), beyond the end of the path


def null_models(sets: TrainingSets, lambdas: Array, weights: Array) -> Models:
    training_set = np.repeat(np.arange(len(sets.patients)), len(lambdas))
    place = np.tile(np.arange(len(lambdas)), len(sets.patients))
    coefficients = np.zeros((len(place), len(weights) + 1))
    coefficients[:, 0] = sets.intercept[training_set]
    penalty = lambdas[place, None] * np.concatenate([[0.0], weights])
    gradient = np.column_stack([np.zeros(len(place)), sets.null_gradient[training_set]])
    return Models(
        training_set=training_set,
        place=place,
        penalty=penalty,
        coefficients=coefficients,
        working=(penalty == 0) | _strongest(np.abs(gradient) - penalty),
        settled=coefficients.copy(),
        objective=np.full(len(place), np.inf),
        loss=np.full(len(place), np.inf),
        held_out_loss=np.zeros(len(place)),
        violation=np.full(len(place), np.inf),
        dropped=np.zeros(len(place), dtype=bool),
    )


def _strongest(excess: Array) -> NDArray[np.bool_]:
    """The columns of largest positive excess of each model, at most `WIDEST`."""
    limit = -np.sort(-excess, axis=1)[:, : WIDEST + 1][:, -1:] if excess.shape[1] > WIDEST else 0.0
    return excess > np.maximum(limit, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class At:
    """Sums of some models, means not yet taken; the working set's columns are padded to a common width k."""

    loss: Array  # (m,)
    held_out_loss: Array  # (m,)
    gradient: Array  # (m, p + 1)
    columns: Counts  # (m, k)
    real: NDArray[np.bool_]  # (m, k), false where padded
    curvature: Array  # (m, k, k), zero where padded

    def take(self, models: Counts) -> "At":
        return At(**{name: getattr(self, name)[models] for name in self.__slots__})


def advance(models: Models, active: Counts, at: At, patients: Array) -> None:
    """Take a Newton step of every active model, or go half way back where the last one made the objective worse.

    Solved models take their step too: it is free, and more exact than the point where they were found solved.
    """
    here, penalty = models.coefficients[active], models.penalty[active]
    gradient = at.gradient / patients[:, None]
    objective = at.loss / patients + (penalty * np.abs(here)).sum(axis=1)
    models.loss[active], models.held_out_loss[active] = at.loss, at.held_out_loss
    models.violation[active] = penalised_quadratic.violation(gradient, here, penalty)

    worse = objective > models.objective[active] + 1e-11 * (1 + objective)  # rounding of a sum is not worse
    worse &= models.violation[active] > KKT
    back, on = active[worse], np.flatnonzero(~worse)
    models.coefficients[back] = (models.coefficients[back] + models.settled[back]) / 2
    if not on.size:
        return
    forward, at, gradient, here, penalty = active[on], at.take(on), gradient[on], here[on], penalty[on]
    models.settled[forward], models.objective[forward] = here, objective[on]
    step = _newton(at, gradient, here, penalty, patients[on])
    models.coefficients[forward] = step
    may_return = models.working[forward] & (np.abs(gradient) > 0.7 * penalty)
    needed = (here != 0) | (step != 0) | (penalty == 0) | may_return
    models.working[forward] = needed | _strongest(np.where(needed, 0.0, np.abs(gradient) - penalty))


def _newton(at: At, gradient: Array, here: Array, penalty: Array, patients: Array) -> Array:
    """Minimiser (m, p + 1) of the penalised quadratic model around `here`, over the working sets."""

    def on_working(values: Array, padding: float) -> Array:
        return np.where(at.real, np.take_along_axis(values, at.columns, axis=1), padding)

    moved = penalised_quadratic.solve(
        at.curvature / patients[:, None, None],
        on_working(gradient, 0.0),
        on_working(here, 0.0),
        on_working(penalty, np.inf),
    )
    step = np.zeros_like(here)
    np.put_along_axis(step, at.columns, moved, axis=1)
    return step


def end_path(models: Models, sets: TrainingSets) -> None:
    """Drop what follows the first solved penalty that explains the deviance of all patients."""
    whole = (models.training_set == 0) & (models.violation <= KKT)
    explained = 1 - models.loss / (sets.patients * sets.null_loss)[models.training_set] > FULL_DEVIANCE
    if (whole & explained).any():
        models.dropped |= models.place > models.place[whole & explained].min()
