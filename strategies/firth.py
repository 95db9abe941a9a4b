"""Firth: likelihoods penalised by half the log determinant of their information, which are finite under separation.

Here the search for the maximum, and logistic regression; `firth_cox` is the proportional hazards model. The score of a
patient gains h (1/2 - risk) x, where h is its leverage, the diagonal of the hat matrix. Leverages need the inverse
information of all sites, known one message later: two sums a step. The information is not the curvature of the
penalised likelihood, so steps by it alone close in slowly, or never where separation is wide; what successive scores
tell of the curvature is added as in L-BFGS (Nocedal, Mathematics of Computation 35:773, 1980).

Firth, Biometrika 80:27, 1993; Heinze & Schemper, Statistics in Medicine 21:2409, 2002 (R's logistf).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import likelihood, logistic, triangle
from cohortium.strategies.rows import Array, Counts, Labelled
from cohortium.strategies.wald import Estimates

SETTLED = 1e-9
"""Largest element of the last step, in standardised units: sums are rounded at 1e-12."""
LARGEST_STEP = 3.0  # in standardised units; the first steps from zero overshoot under separation
MAX_ROUNDS = 100


class Correction(NamedTuple):
    """Score of the penalty."""

    correction: Array  # (p + 1,)


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("firth.correction", adds_over="rows")
def correction(rows: Labelled, *, coefficients: Array, covariance: Array) -> Correction:
    """Score of the penalty at `coefficients` (p + 1,), where the inverse information is `covariance`."""
    design = np.column_stack([np.ones(len(rows.y)), rows.x])
    risk = special.expit(design @ coefficients)
    leverage = risk * (1 - risk) * ((design @ covariance) * design).sum(axis=1)
    return Correction(design.T @ (leverage * (0.5 - risk)))


# --- at the server: any penalised likelihood --------------------------------------------------------------------


class Point(NamedTuple):
    """A penalised likelihood at some coefficients (k,)."""

    coefficients: Array
    penalised: float
    score: Array  # (k,), of likelihood and penalty
    information: Array  # (k, k)
    terms: Any  # of the likelihood, for the caller


def maximise(evaluate: Callable[[Array, Point | None], Point], size: int, free: Counts) -> tuple[Point, Point]:
    """The points at coefficients of zero and at the maximum over the coefficients in `free`.

    Parameters
    ----------
    evaluate : callable
        The point at some coefficients, given the one before it.

    Raises
    ------
    NotIdentifiable
        It does not settle.
    """
    start = at = evaluate(np.zeros(size), None)
    pairs: list[tuple[Array, Array]] = []
    for _ in range(MAX_ROUNDS):
        step = np.zeros(size)
        step[free] = _direction(at.information[np.ix_(free, free)], at.score[free], pairs)
        moved = float(np.abs(step).max(initial=0.0))
        if moved <= SETTLED:
            return start, at
        step *= min(1.0, LARGEST_STEP / moved)
        worse = at.penalised - 1e-9 * (1 + abs(at.penalised))  # rounding of a sum is not a worse fit
        while (trial := evaluate(at.coefficients + step, at)).penalised < worse:
            step = step / 2
        pairs = [*pairs[-4:], (step[free], (at.score - trial.score)[free])]
        at = trial
    raise NotIdentifiable(
        f"the penalised likelihood did not settle in {MAX_ROUNDS} steps: the information nearly vanishes; name fewer "
        "predictors"
    )


def _direction(information: Array, score: Array, pairs: Sequence[tuple[Array, Array]]) -> Array:
    """Quasi-Newton step: the inverse information, corrected by (step, loss of score) pairs of earlier steps."""
    useful = [(s, y, 1 / (s @ y)) for s, y in pairs if s @ y > 1e-10 * np.sqrt((s @ s) * (y @ y))]
    rest, parts = score.copy(), []
    for s, y, rho in reversed(useful):
        parts.append(rho * (s @ rest))
        rest -= parts[-1] * y
    step = np.asarray(np.linalg.solve(information, rest), dtype=np.float64)
    for (s, y, rho), part in zip(useful, reversed(parts), strict=True):
        step += (part - rho * (y @ step)) * s
    return step


def half_log_determinant(information: Array) -> float:
    """The penalty."""
    return float(np.linalg.slogdet(information)[1]) / 2


# --- at the server: logistic regression -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Firth(Estimates):
    """A fitted model; arrays are (p + 1,), the intercept first; `log_likelihood` without the penalty."""

    log_likelihood: float
    penalised_log_likelihood: float
    patients: int
    events: int
    gram: Array
    """Cross products (p + 1, p + 1) of the design."""


def fit(federation: Federation, predictors: int, *, names: Sequence[str] = (), zero: Sequence[int] = ()) -> Firth:
    """Fit the model over all sites; two sums a step, ten to forty in all.

    Parameters
    ----------
    federation : Federation
        Of `Labelled` rows whose x is (n, predictors), standardised, without a column of ones.
    names : sequence of str, optional
        Of the predictors, for messages.
    zero : sequence of int
        Predictors whose coefficients are held at zero while the penalty is that of the full design: what a penalised
        likelihood-ratio test compares with.

    Raises
    ------
    NotIdentifiable
        One class only, or a column that is constant or a combination of others. Separation is no obstacle.
    """
    named = ["the intercept", *(names or [f"predictor {column}" for column in range(predictors)])]
    free = np.setdiff1d(np.arange(predictors + 1), np.asarray(zero, dtype=np.int64) + 1)

    def evaluate(coefficients: Array, near: Point | None) -> Point:
        at = federation.sum(logistic.terms, coefficients=coefficients)
        information = triangle.symmetric(at.information)
        if near is None:
            logistic.refuse_one_class(at)
            logistic.refuse_collinear(information, named)
        covariance = np.asarray(np.linalg.inv(information), dtype=np.float64)
        more = federation.sum(correction, coefficients=coefficients, covariance=covariance)
        penalised = float(at.log_likelihood) + half_log_determinant(information)
        return Point(coefficients, penalised, at.gradient + more.correction, information, at)

    start, at = maximise(evaluate, predictors + 1, free)
    return Firth(
        coefficients=at.coefficients,
        covariance=np.asarray(np.linalg.inv(at.information), dtype=np.float64),
        log_likelihood=float(at.terms.log_likelihood),
        penalised_log_likelihood=at.penalised,
        patients=int(at.terms.patients),
        events=int(at.terms.events),
        gram=4 * start.information,  # all risks are 1/2
    )


def ratio_test(full: Firth, reduced: Firth, df: int) -> likelihood.ChiSquared:
    """Penalised likelihood-ratio test (Heinze & Schemper, section 3)."""
    return likelihood.ratio_test(full.penalised_log_likelihood, reduced.penalised_log_likelihood, df)
