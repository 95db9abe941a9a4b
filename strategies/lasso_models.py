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
PATIENTS_A_COLUMN = 4
"""Patients that a column of a working set needs; the sites hold it against every request (client/disclosure.py)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSets:
    """All patients first, then all but one fold for each usable fold; arrays have one entry a set."""

    held_out: Counts  # (s,)
    patients: Array  # (s,)
    held_out_weight: Array  # (s,), of the held-out fold in the mean: its patients, or a Cox model's events
    intercept: Array  # (s, i), of the null model; i = 0 for a Cox model, which has none
    null_loss: Array  # (s,), mean
    null_gradient: Array  # (s, p), mean

    @property
    def most_columns(self) -> int:
        """Largest working set: second moments of more columns over so many patients would give the rows away."""
        return int(self.patients[0]) // PATIENTS_A_COLUMN


@dataclass(kw_only=True, slots=True)
class Models:
    """Models on their way to the solution; arrays have one entry a model, q = i + p coefficients, intercept first."""

    training_set: Counts
    place: Counts  # on the path
    penalty: Array  # (m, q), of |b|
    ridge: Array  # (m, q), of b^2 / 2
    coefficients: Array  # (m, q), where the next sum is asked for
    working: NDArray[np.bool_]  # (m, q)
    settled: Array  # (m, q), best so far
    objective: Array  # (m,), there
    loss: Array  # (m,)
    held_out_loss: Array  # (m,)
    violation: Array  # (m,)
    dropped: NDArray[np.bool_]  # (m,), beyond the end of the path


def null_models(sets: TrainingSets, lambdas: Array, weights: Array, mixing: float) -> Models:
    """Every penalty of every training set, at its intercept alone."""
    training_set = np.repeat(np.arange(len(sets.patients)), len(lambdas))
    place = np.tile(np.arange(len(lambdas)), len(sets.patients))
    intercept = sets.intercept[training_set]
    coefficients = np.hstack([intercept, np.zeros((len(place), len(weights)))])
    lambda_ = np.hstack([np.zeros_like(intercept), lambdas[place, None] * weights])
    penalty = mixing * lambda_
    gradient = np.hstack([np.zeros_like(intercept), sets.null_gradient[training_set]])
    free = penalty == 0
    room = np.full(len(place), sets.most_columns) - (free.sum(axis=1) - intercept.shape[1])
    return Models(
        training_set=training_set,
        place=place,
        penalty=penalty,
        ridge=(1 - mixing) * lambda_,
        coefficients=coefficients,
        working=free | _strongest(np.abs(gradient) - penalty, room),
        settled=coefficients.copy(),
        objective=np.full(len(place), np.inf),
        loss=np.full(len(place), np.inf),
        held_out_loss=np.zeros(len(place)),
        violation=np.full(len(place), np.inf),
        dropped=np.zeros(len(place), dtype=bool),
    )


def _strongest(excess: Array, room: Counts) -> NDArray[np.bool_]:
    """The columns of largest positive excess of each model: at most `WIDEST`, and at most its `room`, (m,)."""
    columns = excess.shape[1]
    if columns == 0:
        return np.zeros(excess.shape, dtype=bool)
    most = min(WIDEST, columns - 1)
    ranked = -np.sort(np.partition(-excess, most, axis=1)[:, : most + 1], axis=1)
    next_one = np.take_along_axis(ranked, np.clip(room, 0, most)[:, None], axis=1)
    limit = np.where((room >= columns) & (columns <= WIDEST), 0.0, next_one[:, 0])
    return excess > np.maximum(limit, 0.0)[:, None]


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


def advance(models: Models, active: Counts, at: At, sets: TrainingSets) -> None:
    """Take a Newton step of every active model, or go half way back where the last one made the objective worse.

    Solved models take their step too: it is free, and more exact than the point where they were found solved. A penalty
    at which some model wants more than `TrainingSets.most_columns` ends the path for all.
    """
    patients = sets.patients[models.training_set[active]]
    here, penalty, ridge = models.coefficients[active], models.penalty[active], models.ridge[active]
    gradient = at.gradient / patients[:, None] + ridge * here
    objective = at.loss / patients + (penalty * np.abs(here) + ridge * here**2 / 2).sum(axis=1)
    models.loss[active], models.held_out_loss[active] = at.loss, at.held_out_loss
    models.violation[active] = penalised_quadratic.violation(gradient, here, penalty)

    worse = objective > models.objective[active] + 1e-11 * (1 + objective)  # rounding of a sum is not worse
    worse &= models.violation[active] > KKT
    back, on = active[worse], np.flatnonzero(~worse)
    models.coefficients[back] = (models.coefficients[back] + models.settled[back]) / 2
    if not on.size:
        return
    forward, at, gradient, here, penalty, ridge = (
        *(active[on], at.take(on), gradient[on], here[on]),
        *(penalty[on], ridge[on]),
    )
    models.settled[forward], models.objective[forward] = here, objective[on]
    step = _newton(at, gradient, here, penalty, ridge, patients[on])
    models.coefficients[forward] = step
    needed = (here != 0) | (step != 0) | (penalty == 0)
    room = sets.most_columns + sets.intercept.shape[1] - needed.sum(axis=1)
    old = models.working[forward]
    working = needed | _strongest(np.where(needed, 0.0, np.abs(gradient) - penalty), room)
    returning = old & ~working & (np.abs(gradient) > 0.7 * penalty)
    working |= returning & (working.sum(axis=1) - needed.sum(axis=1) + returning.sum(axis=1) <= room)[:, None]
    models.working[forward] = working
    solved_within = penalised_quadratic.violation(np.where(old, gradient, 0.0), here, penalty) <= KKT
    stuck = (models.violation[forward] > KKT) & solved_within & ~(working & ~old).any(axis=1)
    if (too_many := (room < 0) | stuck).any():
        models.dropped |= models.place >= models.place[forward[too_many]].min()


def _newton(at: At, gradient: Array, here: Array, penalty: Array, ridge: Array, patients: Array) -> Array:
    """Minimiser (m, q) of the penalised quadratic model around `here`, over the working sets."""

    def on_working(values: Array, padding: float) -> Array:
        return np.where(at.real, np.take_along_axis(values, at.columns, axis=1), padding)

    curvature = at.curvature / patients[:, None, None]
    diagonal = np.arange(curvature.shape[1])
    curvature[:, diagonal, diagonal] += on_working(ridge, 0.0)
    moved = penalised_quadratic.solve(
        curvature,
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
