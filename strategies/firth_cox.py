"""Firth's Cox: partial likelihood penalised by half the log determinant of its information; finite under separation.

The penalty's score is half the trace of the inverse information times the information's derivative, which is a third
central moment of the covariates over each risk set. Given the inverse, and each death's mean and denominator, it is a
sum over patients, p numbers: two sums a step. Stratified, means and denominators are the site's own.

Heinze & Schemper, Biometrics 57:114, 2001 (R's coxphf).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cohortium.common.federation import Federation, statistic
from cohortium.strategies import cox, risk_sets
from cohortium.strategies.penalised_search import (
    Evaluate,
    Point,
    Profile,
    free,
    half_log_determinant,
    maximise,
    profile,
)
from cohortium.strategies.risk_sets import LikelihoodTerms, Thinning, Ties, stratum_terms
from cohortium.strategies.rows import Array, Counts, Survival
from cohortium.strategies.survival import time_cell
from cohortium.strategies.triangle import symmetric, upper


class Correction(NamedTuple):
    """Score of the penalty."""

    correction: Array  # (p,)


class Moments(NamedTuple):
    """Score of the penalty, and the information, which is exact once denominators are known."""

    correction: Array  # (p,)
    information: Array  # (p (p + 1) / 2,), upper triangle


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("firth_cox.stratum", adds_over="sites")
def stratum(rows: Survival, *, coefficients: Array, covariance: Array, ties: Ties) -> Correction:
    """Score of the penalty of the site's own risk sets, where the inverse information is `covariance` (p, p)."""
    points, deaths, terms = stratum_terms(rows, coefficients, ties)
    at = np.searchsorted(points, rows.time, side="right")
    return Correction(_moments(rows, coefficients, covariance, at, Thinning.of(deaths, ties), terms)[0])


@statistic("firth_cox.moments", adds_over="rows")
def moments(
    rows: Survival,
    *,
    coefficients: Array,
    covariance: Array,
    points: Counts,
    deaths: Counts,
    denominators: Array,
    mean_x: Array,
    ties: Ties,
    time_step: float,
) -> Moments:
    """Score of the penalty over the risk sets of all sites, and their information.

    Parameters
    ----------
    points, deaths : (K,) int64
        Time cells with an event, rising, and how many.
    denominators, mean_x : (D,), (D, p)
        Of each of the D deaths, in the order of time: sum of w over its risk set, and the mean of x.
    """
    at = np.searchsorted(points, time_cell(rows.time, time_step), side="right")
    terms = LikelihoodTerms(denominators, mean_x, np.zeros(len(coefficients)))
    score, information = _moments(rows, coefficients, covariance, at, Thinning.of(deaths, ties), terms)
    return Moments(score, upper(information))


def _moments(
    rows: Survival, coefficients: Array, covariance: Array, at: Counts, drawn: Thinning, terms: LikelihoodTerms
) -> tuple[Array, Array]:
    """Of each death, added up: half the mean of (x - m)' V (x - m) times (x - m), and the mean of (x - m) (x - m)'."""
    weight, died = np.exp(rows.x @ coefficients), rows.event == 1
    score, information = np.zeros(len(coefficients)), np.zeros((len(coefficients),) * 2)
    for death, (index, gone) in enumerate(zip(drawn.index, drawn.gone, strict=True)):
        at_risk = at > index
        share = weight[at_risk] * (1 - gone * (died & (at == index + 1))[at_risk]) / terms.denominators[death]
        apart = rows.x[at_risk] - terms.mean_x[death]
        score += (share * ((apart @ covariance) * apart).sum(axis=1)) @ apart / 2
        information += apart.T @ (apart * share[:, None])
    return score, information


# --- at the server --------------------------------------------------------------------------------------------


def fit(
    federation: Federation,
    predictors: int,
    *,
    ties: Ties = "efron",
    strata: cox.Strata = "none",
    time_step: float | None = 1.0,
    zero: Sequence[int] = (),
) -> cox.Cox:
    """Fit the penalised model over all sites; parameters as `cox.fit`.

    The log-likelihoods of the result are penalised ones, so that twice their difference is the penalised
    likelihood-ratio test; columns in `zero` are held at zero under the penalty of all.

    Raises
    ------
    NotIdentifiable
        No events, or a column that is constant or a combination of others. Separation is no obstacle.
    """
    evaluate, pooled = likelihood_of(federation, ties, strata, time_step)
    start, at = maximise(evaluate, free(predictors, zero))
    return cox.cox_of(start.terms, at.terms, pooled)


def fit_with_profile(
    federation: Federation,
    contrasts: Array,
    *,
    ties: Ties = "efron",
    strata: cox.Strata = "none",
    time_step: float | None = 1.0,
) -> tuple[cox.Cox, Profile]:
    """`fit`, and the profile intervals of some combinations (c, p) of its coefficients (`penalised_search.profile`)."""
    evaluate, pooled = likelihood_of(federation, ties, strata, time_step)
    start, at = maximise(evaluate, np.eye(contrasts.shape[1]))
    return cox.cox_of(start.terms, at.terms, pooled), profile(federation, evaluate, at, contrasts)


def likelihood_of(
    federation: Federation, ties: Ties, strata: cox.Strata, time_step: float | None
) -> tuple[Evaluate, cox.Pooled | None]:
    """The penalised likelihood over all sites, two sums a point; without strata also its grid of times."""
    if strata == "site":

        def by_site(coefficients: Array, near: Point | None) -> Point:
            asked = {"coefficients": coefficients, "ties": ties}
            part = federation.sum(risk_sets.stratum, time_step=None, **asked)
            information = symmetric(part.information)
            at = cox.At(coefficients, float(part.log_likelihood), part.gradient, information, int(part.events))
            if near is None:
                _refuse(at)
            more = federation.sum(stratum, covariance=np.linalg.inv(information), **asked)
            return _point(at, more.correction)

        return by_site, None

    if time_step is None:
        raise ValueError('time_step = None needs strata = "site"; without strata the sites need a common time grid')
    pooled = cox.Pooled.over(federation, ties, time_step)

    def of_all(coefficients: Array, near: Point | None) -> Point:
        at = pooled.evaluate(coefficients, None if near is None else near.terms)
        assert at.terms is not None
        if near is None:
            _refuse(at)
        more = federation.sum(
            moments,
            coefficients=coefficients,
            covariance=np.linalg.inv(at.information),  # exact to the square of the last step
            points=pooled.points,
            deaths=pooled.deaths,
            denominators=at.terms.denominators,
            mean_x=at.terms.mean_x,
            ties=ties,
            time_step=time_step,
        )
        return _point(at._replace(information=symmetric(more.information)), more.correction)

    return of_all, pooled


def _refuse(at: cox.At) -> None:
    cox.refuse_no_events(at)
    cox.newton_step(at)  # which names a column that is constant or a combination of others


def _point(at: cox.At, more: Array) -> Point:
    penalised = at.log_likelihood + half_log_determinant(at.information)
    at = at._replace(log_likelihood=penalised)
    return Point(at.coefficients, penalised, at.gradient + more, at.information, at)
