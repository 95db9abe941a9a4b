"""Firth: likelihoods penalised by half the log determinant of their information, which are finite under separation.

Here logistic regression; `firth_cox` is proportional hazards, `penalised_search` finds the maximum and the ends
of intervals. The score of a patient gains h (1/2 - risk) x, where h is its leverage, the diagonal of the hat matrix.
Leverages need the inverse information of all sites, known one message later: two sums a step.

Firth, Biometrika 80:27, 1993; Heinze & Schemper, Statistics in Medicine 21:2409, 2002 (R's logistf).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from cohortium.common.federation import Federation, statistic
from cohortium.strategies import likelihood, logistic, triangle
from cohortium.strategies.penalised_search import (
    Evaluate,
    Point,
    Profile,
    free,
    half_log_determinant,
    maximise,
    profile,
)
from cohortium.strategies.rows import Array, Labelled
from cohortium.strategies.wald import Estimates


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


def likelihood_of(federation: Federation, names: Sequence[str]) -> Evaluate:
    """The penalised likelihood over all sites, two sums a point; `names` are those of the predictors."""
    named = ["the intercept", *names]

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

    return evaluate


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
    evaluate = likelihood_of(federation, names or [f"predictor {column}" for column in range(predictors)])
    return _found(*maximise(evaluate, free(predictors + 1, [1 + column for column in zero])))


def fit_with_profile(federation: Federation, contrasts: Array, *, names: Sequence[str]) -> tuple[Firth, Profile]:
    """`fit`, and the profile intervals of some combinations of its coefficients (`profile`)."""
    evaluate = likelihood_of(federation, names)
    start, at = maximise(evaluate, np.eye(len(names) + 1))
    return _found(start, at), profile(federation, evaluate, at, contrasts)


def _found(start: Point, at: Point) -> Firth:
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
