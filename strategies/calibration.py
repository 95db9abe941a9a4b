"""Calibration: does a risk of 20 % mean 20 patients in 100?

Three logistic models of the outcome on the logit l of the score are fitted side by side for every model, in the same
sums: ``offset`` (a + l: calibration-in-the-large), ``logistic`` (a + b l: intercept and slope, Cox, Biometrika 1958),
``flexible`` (l as a restricted cubic spline), whose mean distance from the score is the integrated calibration index
(Austin & Steyerberg, Stat Med 2019, with a spline in place of loess). The curve and what is read from groups of
patients: calibration_groups.py.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import DEFAULT_BOUND, Federation, statistic
from cohortium.strategies.rows import Array, Counts, Scored
from cohortium.strategies.score_bins import GRID

KNOTS = (0.05, 0.35, 0.65, 0.95)
"""Quantiles of the score at which the spline's knots lie (Harrell, Regression Modeling Strategies, table 2.3)."""

_OFFSET, _LOGISTIC, _FLEXIBLE = 0, 1, 2


def logit(score: Array) -> Array:
    """Log-odds of a score; 0 and 1 count as 1e-4 and 1 - 1e-4, the nearest grid values that have one."""
    return special.logit(np.clip(score, 1 / GRID, 1 - 1 / GRID))


def design(score: Array, knots: Array) -> Array:
    """Columns 1, l and the spline's two non-linear terms, (n, 4).

    The terms are cubic between the outer knots and linear beyond (Harrell, section 2.4.5), on the scale where the outer
    knots are 0 and 1. Knots that coincide leave no spline: the terms are then zero.
    """
    logits = logit(score)
    columns = np.zeros((len(logits), 4))
    columns[:, 0], columns[:, 1] = 1, logits
    if len(np.unique(knots)) == len(knots):
        t = (knots - knots[0]) / (knots[-1] - knots[0])
        cubes = np.maximum((logits - knots[0])[:, None] / (knots[-1] - knots[0]) - t, 0) ** 3
        for j in (0, 1):
            last, before = (t[3] - t[j]) / (t[3] - t[2]), (t[2] - t[j]) / (t[3] - t[2])
            columns[:, 2 + j] = cubes[:, j] - cubes[:, 2] * last + cubes[:, 3] * before
    return columns


# --- at each site ---------------------------------------------------------------------------------------------


class Terms(NamedTuple):
    """What a Newton step of the three fits needs, for every model."""

    gradient: Array  # (3, models, 4)
    information: Array  # (3, models, 4, 4)
    log_likelihood: Array  # (3, models)
    distance: Array  # (3, models): sum of |recalibrated risk - score|


@statistic("calibration.terms", adds_over="rows")
def terms(rows: Scored, *, knots: Array, basis: Array, coefficients: Array) -> Terms:
    """Gradient, information, log-likelihood and distance of fits on the columns ``design @ basis``.

    Parameters
    ----------
    knots : (models, 4)
    basis : (models, 4, 4)
        Upper triangular, see `columns_of_equal_size`.
    coefficients : (3, models, 4)
    """
    fits, models, columns = coefficients.shape
    gradient = np.zeros((fits, models, columns))
    information = np.zeros((fits, models, columns, columns))
    log_likelihood, distance = np.zeros((fits, models)), np.zeros((fits, models))
    for m in range(models):
        x = design(rows.score[:, m], knots[m]) @ basis[m]
        linear = x @ coefficients[:, m].T
        risk = special.expit(linear)
        gradient[:, m] = (x.T @ (rows.y[:, None] - risk)).T
        information[:, m] = np.einsum("ni,nf,nj->fij", x, risk * (1 - risk), x)
        log_likelihood[:, m] = rows.y @ linear - np.logaddexp(0, linear).sum(0)
        distance[:, m] = np.abs(risk - rows.score[:, m][:, None]).sum(0)
    return Terms(gradient, information, log_likelihood, distance)


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Updating:
    """What recalibrating the score gains on these patients: log-likelihoods and coefficients of the nested models."""

    log_likelihood: tuple[float, float, float]  # score as it is; intercept updated; intercept and slope updated
    intercept: float  # added to the logit where the slope stays
    recalibrated: tuple[float, float]  # intercept and slope of both


@dataclass(frozen=True, kw_only=True, slots=True)
class Recalibration:
    """The three fits of one model; a figure that cannot exist is an `Undefined` with its reason."""

    intercept: float | Undefined  # calibration-in-the-large: slope fixed at 1
    intercept_ci: tuple[float, float] | Undefined
    slope: float | Undefined
    slope_ci: tuple[float, float] | Undefined
    ici: float | Undefined
    e50: float | Undefined  # median distance of the flexible fit from the score, at the mean score of each cell
    e90: float | Undefined
    updating: Updating | Undefined


def fit(
    federation: Federation, patients: Counts, score_sum: Counts, *, tolerance: float = 1e-10, max_rounds: int = 25
) -> list[Recalibration]:
    """Recalibrate every model; one sum a Newton step, 5 to 8 in all.

    Parameters
    ----------
    patients : (models, 2, cells)
        The score histogram, summed over folds; it places the knots and scales the columns.
    score_sum : (models, cells), in grid units
    tolerance : float
        Largest element of the mean gradient at a solution.
    max_rounds : int
        Steps before a fit counts as one without a maximum; a nearly separated spline has been seen to need 16.

    Raises
    ------
    Undefined
        One class only.
    """
    n = int(patients[0].sum())
    if not patients[0].sum(1).all():
        raise Undefined("calibration needs patients with and without the outcome")
    held = patients.sum(1)
    score = np.divide(score_sum, held, out=np.zeros(held.shape), where=held > 0) / GRID
    placed = np.stack([knots(h, s) for h, s in zip(held, score, strict=True)])
    factor = np.stack([columns_of_equal_size(*model) for model in zip(held, score, placed, strict=True)])
    free = _free(placed)
    bound = max(DEFAULT_BOUND, 64.0 * n)  # columns of mean square 1 on cell means; room for the spread within cells
    public = {"bound": bound, "knots": placed, "basis": np.linalg.inv(factor)}
    coefficients = np.broadcast_to(factor[:, :, 1], free.shape).copy()  # the logit itself: intercept 0, slope 1

    at = federation.sum(terms, coefficients=coefficients, **public)
    as_it_is = at.log_likelihood[_OFFSET]
    step, lost = _steps(at, free)
    settled = ~lost & _settled(at, step, free, tolerance * n)  # alike scores: no gradient, but no maximum either
    for _ in range(max_rounds):
        if (settled | lost).all():
            break
        trial = coefficients + np.where((settled | lost)[..., None], 0, step)
        new = federation.sum(terms, coefficients=trial, **public)
        # rounding of a sum is not a worse fit; a step that made it worse is halved and tried again
        better = new.log_likelihood >= at.log_likelihood - 1e-9 * np.abs(at.log_likelihood)
        coefficients = np.where(better[..., None], trial, coefficients)
        at = Terms(*(_where(better, a, b) for a, b in zip(new, at, strict=True)))
        newton, singular = _steps(at, free)
        step, lost = np.where(better[..., None], newton, step / 2), lost | singular
        settled = settled | (~lost & better & _settled(at, step, free, tolerance * n))
    coefficients += np.where(settled[..., None], step, 0)  # known already, and costs no sum
    figures = []
    for m in range(len(patients)):
        risk = special.expit(design(score[m], placed[m]) @ public["basis"][m] @ coefficients[_FLEXIBLE, m])
        distances = weighted_quantiles(np.abs(risk - score[m]), held[m], (0.5, 0.9))
        figures.append(_figures(m, coefficients, at, free, settled, factor[m], n, distances, float(as_it_is[m])))
    return figures


def weighted_quantiles(values: Array, patients: Counts, shares: tuple[float, ...]) -> tuple[float, ...]:
    """Smallest value with at least each share of the patients at or below it; values and patients are (cells,)."""
    order = np.argsort(values)
    below = np.cumsum(patients[order])
    return tuple(float(values[order[int(np.searchsorted(below, q * below[-1] - 1e-9))]]) for q in shares)


def knots(patients: Counts, score: Array) -> Array:
    """Logits of the mean scores of the cells in which the quantiles `KNOTS` lie, (4,); both arguments (cells,)."""
    share = np.cumsum(patients) / patients.sum()
    return logit(score[[int(np.argmax(share >= q)) for q in KNOTS]])


def columns_of_equal_size(patients: Counts, score: Array, placed: Array) -> Array:
    """Triangular factor R of the design: the columns of ``design @ inv(R)`` are uncorrelated, of mean square 1.

    Without it the spline's columns are so alike that the rounding of a sum, 2**-40, moves their coefficients more than
    a Newton step may be long at a solution. R follows from the histogram; its second column holds the mean and the
    standard deviation of the logit.

    Parameters
    ----------
    patients, score : (cells,)
    placed : (4,)
        The knots.
    """
    weighted = design(score, placed) * np.sqrt(patients / patients.sum())[:, None]
    factor = np.linalg.qr(weighted, mode="r")
    factor = np.pad(factor, ((0, 4 - len(factor)), (0, 0)))  # fewer than four cells
    factor *= np.where(np.diag(factor) < 0, -1, 1)[:, None]
    alike = np.diag(factor) <= 1e-9 * np.linalg.norm(factor, axis=0)
    factor[alike] = np.eye(4)[alike]  # nothing to scale by
    return factor


def _free(placed: Array) -> NDArray[np.bool_]:
    """Which coefficients each fit moves, (3, models, 4); a spline without four knots is the logistic fit."""
    free = np.zeros((3, len(placed), 4), bool)
    free[:, :, 0] = True
    free[[_LOGISTIC, _FLEXIBLE], :, 1] = True
    free[_FLEXIBLE, :, 2:] = [[len(np.unique(k)) == len(k)] * 2 for k in placed]
    return free


def _steps(at: Terms, free: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Newton step of each fit and which fits have none (their columns depend on each other)."""
    step, singular = np.zeros(free.shape), np.zeros(free.shape[:2], bool)
    for index in np.ndindex(*singular.shape):
        moves = free[index]
        information = at.information[index][np.ix_(moves, moves)]
        scale = np.sqrt(np.diag(information))
        # columns on equal scale: the rank must not depend on the units of the spline
        if not scale.all() or np.linalg.cond(information / np.outer(scale, scale)) > 1e12:
            singular[index] = True
        else:
            step[index][moves] = np.linalg.solve(information, at.gradient[index][moves])
    return step, singular


def _settled(at: Terms, step: Array, free: NDArray[np.bool_], tolerance: float) -> NDArray[np.bool_]:
    # Under separation the gradient vanishes too, but the steps do not: both must be small.
    return (np.abs(at.gradient * free).max(-1) <= tolerance) & (np.abs(step).max(-1) <= 1e-9)


def _where(better: NDArray[np.bool_], new: Array, old: Array) -> Array:
    return np.where(better.reshape(better.shape + (1,) * (new.ndim - 2)), new, old)


def _figures(
    m: int,
    coefficients: Array,
    at: Terms,
    free: NDArray[np.bool_],
    settled: NDArray[np.bool_],
    factor: Array,
    n: int,
    distances: tuple[float, ...],
    as_it_is: float,
) -> Recalibration:
    none = Undefined("the scores are all alike or separate the outcome, so the recalibration has no finite maximum")
    bent = Undefined("the spline of the calibration curve separates the outcome, or nearly: it has no finite maximum")

    def estimate(which: int, column: int) -> tuple[float | Undefined, tuple[float, float] | Undefined]:
        """A coefficient of 1 with the slope fixed at 1, or of the logit."""
        if not settled[which, m]:
            return none, none
        moves, unit = free[which, m], factor[column, column]
        covariance = np.linalg.inv(at.information[which, m][np.ix_(moves, moves)])
        shift = factor[0, 1] if which == _OFFSET else 0.0
        value = float((coefficients[which, m, column] - shift) / unit)
        half = float(stats.norm.ppf(0.975) * np.sqrt(covariance[column, column]) / unit)
        return value, (value - half, value + half)

    intercept, intercept_ci = estimate(_OFFSET, 0)
    slope, slope_ci = estimate(_LOGISTIC, 1)
    flat = none if isinstance(slope, Undefined) else bent
    ici = float(at.distance[_FLEXIBLE, m] / n) if settled[_FLEXIBLE, m] else flat
    e50, e90 = distances if settled[_FLEXIBLE, m] else (flat, flat)
    updating: Updating | Undefined = none
    if not isinstance(intercept, Undefined) and not isinstance(slope, Undefined):
        of_both = float(coefficients[_LOGISTIC, m, 0] - factor[0, 1] * slope)
        fits = (as_it_is, float(at.log_likelihood[_OFFSET, m]), float(at.log_likelihood[_LOGISTIC, m]))
        updating = Updating(log_likelihood=fits, intercept=intercept, recalibrated=(of_both, slope))
    return Recalibration(
        intercept=intercept,
        intercept_ci=intercept_ci,
        slope=slope,
        slope_ci=slope_ci,
        ici=ici,
        e50=e50,
        e90=e90,
        updating=updating,
    )
