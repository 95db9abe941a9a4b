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
PAST = 1.0
"""Standard errors above its minimum at which the cross-validated deviance of a wide problem has turned for good."""
NEARLY = 0.05
"""Violation, as a share of the penalty, at which a model's deviance is known well enough for that."""
WIDEST = 60
"""Most columns that enter a small working set at once; one that is larger may double."""
SIDE_BY_SIDE = 4_000_000
"""Elements of the curvatures that are solved at a time: 32 MB."""
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
        working=free | _strongest(np.abs(gradient) - penalty, np.minimum(room, WIDEST)),
        settled=coefficients.copy(),
        objective=np.full(len(place), np.inf),
        loss=np.full(len(place), np.inf),
        held_out_loss=np.zeros(len(place)),
        violation=np.full(len(place), np.inf),
        dropped=np.zeros(len(place), dtype=bool),
    )


def _strongest(excess: Array, room: Counts) -> NDArray[np.bool_]:
    """The columns of largest positive excess of each model, at most its `room`, (m,)."""
    columns = excess.shape[1]
    if columns == 0:
        return np.zeros(excess.shape, dtype=bool)
    most = int(np.clip(room.max(initial=0), 0, columns - 1))
    ranked = -np.sort(np.partition(-excess, most, axis=1)[:, : most + 1], axis=1)
    next_one = np.take_along_axis(ranked, np.clip(room, 0, most)[:, None], axis=1)
    limit = np.where(room >= columns, 0.0, next_one[:, 0])
    return excess > np.maximum(limit, 0.0)[:, None]


def _may_enter(room: Counts, there: Counts) -> Counts:
    """How many columns may enter at once: `WIDEST`, or as many as are there, within the room that is left."""
    return np.minimum(room, np.maximum(WIDEST, there))


@dataclass(frozen=True, kw_only=True, slots=True)
class At:
    """Sums of some models, means not yet taken."""

    loss: Array  # (m,)
    held_out_loss: Array  # (m,)
    gradient: Array  # (m, q)
    working: NDArray[np.bool_]  # (m, q)
    curvature: list[Array]  # m of (k, k), on the k columns of each working set

    def take(self, models: Counts) -> "At":
        arrays = {name: getattr(self, name)[models] for name in ("loss", "held_out_loss", "gradient", "working")}
        return At(**arrays, curvature=[self.curvature[model] for model in models])

    def replaced(self, models: Counts, others: "At") -> "At":
        """These sums with those of some models taken from elsewhere."""
        arrays = {name: getattr(self, name).copy() for name in ("loss", "held_out_loss", "gradient", "working")}
        for name, array in arrays.items():
            array[models] = getattr(others, name)
        curvature = list(self.curvature)
        for model, other in zip(models, others.curvature, strict=True):
            curvature[model] = other
        return At(**arrays, curvature=curvature)


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
    enter = _may_enter(room, needed.sum(axis=1))
    working = needed | _strongest(np.where(needed, 0.0, np.abs(gradient) - penalty), enter)
    returning = old & ~working & (np.abs(gradient) > 0.7 * penalty)
    working |= returning & (working.sum(axis=1) - needed.sum(axis=1) + returning.sum(axis=1) <= room)[:, None]
    models.working[forward] = working
    solved_within = penalised_quadratic.violation(np.where(old, gradient, 0.0), here, penalty) <= KKT
    stuck = (models.violation[forward] > KKT) & solved_within & ~(working & ~old).any(axis=1)
    if (too_many := (room < 0) | stuck).any():
        models.dropped |= models.place >= models.place[forward[too_many]].min()


def _newton(at: At, gradient: Array, here: Array, penalty: Array, ridge: Array, patients: Array) -> Array:
    """Minimiser (m, q) of the penalised quadratic model around `here`, over the working sets."""
    step = np.zeros_like(here)
    for some in _alike(at.working.sum(axis=1)):
        sizes = at.working[some].sum(axis=1)
        width = int(sizes.max())
        columns = np.argsort(~at.working[some], axis=1, kind="stable")[:, :width]  # working ones first, in order
        real = np.arange(width) < sizes[:, None]

        def on_working(values: Array, padding: float, columns: Counts = columns, real: Array = real) -> Array:
            return np.where(real, np.take_along_axis(values, columns, axis=1), padding)

        curvature = np.zeros((len(some), width, width))
        for i, (model, size) in enumerate(zip(some, sizes, strict=True)):
            curvature[i, :size, :size] = at.curvature[model] / patients[model]
        diagonal = np.arange(width)
        curvature[:, diagonal, diagonal] += on_working(ridge[some], 0.0)
        moved = penalised_quadratic.solve(
            curvature,
            on_working(gradient[some], 0.0),
            on_working(here[some], 0.0),
            on_working(penalty[some], np.inf),
        )
        block = np.zeros((len(some), here.shape[1]))
        np.put_along_axis(block, columns, moved, axis=1)
        step[some] = block
    return step


def _alike(sizes: Counts) -> list[Counts]:
    """Models whose working sets are about as large, few enough to be solved side by side."""
    groups = []
    octave = np.ceil(np.log2(np.maximum(sizes, 1)))
    for value in np.unique(octave):
        members = np.flatnonzero(octave == value)
        most = max(1, SIDE_BY_SIDE // int(sizes[members].max(initial=1) ** 2 + 1))
        groups += [members[i : i + most] for i in range(0, len(members), most)]
    return groups


def end_path(models: Models, sets: TrainingSets) -> None:
    """Drop what follows the first solved penalty that explains the deviance of all patients."""
    whole = (models.training_set == 0) & (models.violation <= KKT)
    explained = 1 - models.loss / (sets.patients * sets.null_loss)[models.training_set] > FULL_DEVIANCE
    if (whole & explained).any():
        models.dropped |= models.place > models.place[whole & explained].min()


def start_from(models: Models, new: Counts, here: Array, at: At) -> None:
    """Start models where others of their training set stand: `here` (m, q), with the sums that were asked for there."""
    models.coefficients[new], models.working[new] = here, at.working


def nearly_solved(models: Models, place: int, share: float) -> bool:
    """Whether no model at a place of the path violates optimality by more than a share of its penalty."""
    here = models.place == place
    return bool((models.violation[here] <= share * models.penalty[here].max(axis=1, initial=0.0)).all())


def cross_validated(models: Models, sets: TrainingSets, length: int) -> tuple[Array, Array]:
    """Mean deviance of the held-out patients and its standard error at the first penalties, both (length,)."""
    held_out = models.held_out_loss.reshape(len(sets.patients), -1)[1:, :length]
    weight = sets.held_out_weight[1:, None]
    deviance = 2 * held_out / weight  # (folds, length)
    mean = (deviance * weight).sum(axis=0) / weight.sum()
    # as in cv.glmnet: spread of the folds' means, weighted by their size
    return mean, np.sqrt(((deviance - mean) ** 2 * weight).sum(axis=0) / weight.sum() / (len(weight) - 1))


def end_past_minimum(models: Models, sets: TrainingSets) -> None:
    """Drop what follows a penalty whose cross-validated deviance lies `PAST` standard errors above the smallest.

    Models count that are so nearly solved that their deviance is known to a small part of its standard error.
    """
    near = models.violation <= NEARLY * models.penalty.max(axis=1, initial=0.0)
    known = near.reshape(len(sets.patients), -1).all(axis=0)
    length = len(known) if known.all() else int(np.argmin(known))
    if length < 2:
        return
    mean, se = cross_validated(models, sets, length)
    smallest = int(np.argmin(mean))
    beyond = np.flatnonzero(mean[smallest:] > mean[smallest] + PAST * se[smallest])
    if len(beyond):
        models.dropped |= models.place > smallest + beyond[0]
