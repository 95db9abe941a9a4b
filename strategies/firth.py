"""Firth: logistic regression penalised by half the log determinant of its information, finite under separation.

The score of a patient gains h (1/2 - risk) x, where h is its leverage, the diagonal of the hat matrix. Leverages need
the inverse information of all sites; a step uses the one of the step before, so that a step costs one sum as without
the penalty, and at the solution, where steps vanish, it is the right one.

Firth, Biometrika 80:27, 1993; Heinze & Schemper, Statistics in Medicine 21:2409, 2002 (R's logistf).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import likelihood, logistic, triangle
from cohortium.strategies.rows import Array, Counts, Labelled
from cohortium.strategies.wald import Estimates

SETTLED = 1e-9
"""Largest element of the last two steps, in standardised units: sums are rounded at 1e-12."""
LARGEST_STEP = 5.0  # logistf's own limit: the first steps from zero can overshoot under separation
MAX_ROUNDS = 100


class Terms(NamedTuple):
    """What one step needs of some patients, at given coefficients of p predictors and the intercept."""

    gradient: Array  # (p + 1,), of the likelihood
    correction: Array  # (p + 1,), of the penalty
    information: Array  # ((p + 1) (p + 2) / 2,), upper triangle
    log_likelihood: Array  # ()
    patients: Counts  # ()
    events: Counts  # ()


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("firth.terms", adds_over="rows")
def terms(rows: Labelled, *, coefficients: Array, covariance: Array) -> Terms:
    """Gradients of likelihood and penalty at `coefficients` (p + 1,), leverages by `covariance` (p + 1, p + 1)."""
    plain = logistic.terms.local(rows, coefficients=coefficients)
    design = np.column_stack([np.ones(len(rows.y)), rows.x])
    risk = special.expit(design @ coefficients)
    leverage = risk * (1 - risk) * ((design @ covariance) * design).sum(axis=1)
    return Terms(
        gradient=plain.gradient,
        correction=design.T @ (leverage * (0.5 - risk)),
        information=plain.information,
        log_likelihood=plain.log_likelihood,
        patients=plain.patients,
        events=plain.events,
    )


# --- at the server --------------------------------------------------------------------------------------------


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
    """Fit the model over all sites; one sum a step, ten to thirty in all.

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
    coefficients = np.zeros(predictors + 1)
    at = federation.sum(terms, coefficients=coefficients, covariance=np.zeros((predictors + 1,) * 2))
    logistic.refuse_one_class(at)
    gram = 4 * triangle.symmetric(at.information)
    logistic.refuse_collinear(gram, named)
    last = np.inf
    for _ in range(MAX_ROUNDS):
        information = triangle.symmetric(at.information)
        covariance = np.asarray(np.linalg.inv(information), dtype=np.float64)
        step = np.zeros(predictors + 1)
        step[free] = np.linalg.solve(information[np.ix_(free, free)], (at.gradient + at.correction)[free])
        moved = float(np.abs(step).max())
        if max(moved, last) <= SETTLED:
            return Firth(
                coefficients=coefficients,
                covariance=covariance,
                log_likelihood=float(at.log_likelihood),
                penalised_log_likelihood=float(at.log_likelihood) + float(np.linalg.slogdet(information)[1]) / 2,
                patients=int(at.patients),
                events=int(at.events),
                gram=gram,
            )
        step *= min(1.0, LARGEST_STEP / moved)
        coefficients, last = coefficients + step, moved
        at = federation.sum(terms, coefficients=coefficients, covariance=covariance)
    raise NotIdentifiable(
        f"the penalised likelihood did not settle in {MAX_ROUNDS} steps: the information nearly vanishes; name fewer "
        "predictors"
    )


def ratio_test(full: Firth, reduced: Firth, df: int) -> likelihood.ChiSquared:
    """Penalised likelihood-ratio test (Heinze & Schemper, section 3)."""
    return likelihood.ratio_test(full.penalised_log_likelihood, reduced.penalised_log_likelihood, df)
