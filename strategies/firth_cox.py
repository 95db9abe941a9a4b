"""Firth's Cox: partial likelihood penalised by half the log determinant of its information; finite under separation.

The penalty's score is half the trace of the inverse information times the information's derivative, which is a third
central moment of the covariates over each risk set. Given the inverse, and each death's mean and denominator, it is a
sum over patients, p numbers. Stratified, means are the site's own and the inverse is that of the step before, so a step
costs one sum; not stratified, the means of all sites are known one message later, and it costs two. At the solution
both are exact.

Heinze & Schemper, Biometrics 57:114, 2001 (R's coxphf).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import cox, risk_sets
from cohortium.strategies.risk_sets import Thinning, Ties, stratum_terms
from cohortium.strategies.rows import Array, Counts, Survival
from cohortium.strategies.survival import time_cell
from cohortium.strategies.triangle import symmetric

SETTLED = 1e-9
"""Largest element of the last two steps, in standardised units: sums are rounded at 1e-12."""
LARGEST_STEP = 2.0
MAX_ROUNDS = 100
Evaluate = Callable[[Array, cox.At | None, Array], tuple[cox.At, Array]]
"""Terms at some coefficients and the penalty's score, given terms and inverse information of the step before."""


class Stratum(NamedTuple):
    """One site's part of the stratified partial likelihood and of its penalty's score."""

    log_likelihood: Array  # ()
    gradient: Array  # (p,), of the likelihood
    correction: Array  # (p,), of the penalty
    information: Array  # (p (p + 1) / 2,)
    events: Counts  # ()


class Correction(NamedTuple):
    """Score of the penalty."""

    correction: Array  # (p,)


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("firth_cox.stratum", adds_over="sites")
def stratum(rows: Survival, *, coefficients: Array, covariance: Array, ties: Ties) -> Stratum:
    """Terms of the site's own risk sets; the penalty's by `covariance` (p, p)."""
    plain = risk_sets.stratum.local(rows, coefficients=coefficients, ties=ties, time_step=None)
    points, deaths, terms = stratum_terms(rows, coefficients, ties)
    at = np.searchsorted(points, rows.time, side="right")
    drawn = Thinning.of(deaths, ties)
    return Stratum(
        log_likelihood=plain.log_likelihood,
        gradient=plain.gradient,
        correction=_correction(rows, coefficients, covariance, at, drawn, terms.denominators, terms.mean_x),
        information=plain.information,
        events=plain.events,
    )


@statistic("firth_cox.correction", adds_over="rows")
def correction(
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
) -> Correction:
    """Score of the penalty over the risk sets of all sites.

    Parameters
    ----------
    points, deaths : (K,) int64
        Time cells with an event, rising, and how many.
    denominators, mean_x : (D,), (D, p)
        Of each of the D deaths, in the order of time: sum of w over its risk set, and the mean of x.
    """
    at = np.searchsorted(points, time_cell(rows.time, time_step), side="right")
    drawn = Thinning.of(deaths, ties)
    return Correction(_correction(rows, coefficients, covariance, at, drawn, denominators, mean_x))


def _correction(
    rows: Survival,
    coefficients: Array,
    covariance: Array,
    at: Counts,
    drawn: Thinning,
    denominators: Array,
    mean_x: Array,
) -> Array:
    """Half of each death's mean of (x - m)' V (x - m) times (x - m), added up, (p,)."""
    weight, died = np.exp(rows.x @ coefficients), rows.event == 1
    total = np.zeros(len(coefficients))
    for death, (index, gone) in enumerate(zip(drawn.index, drawn.gone, strict=True)):
        at_risk = at > index
        share = weight[at_risk] * (1 - gone * (died & (at == index + 1))[at_risk]) / denominators[death]
        apart = rows.x[at_risk] - mean_x[death]
        total += (share * ((apart @ covariance) * apart).sum(axis=1)) @ apart
    return total / 2


# --- at the server --------------------------------------------------------------------------------------------


def fit(
    federation: Federation,
    predictors: int,
    *,
    ties: Ties = "efron",
    strata: cox.Strata = "none",
    time_step: float | None = 1.0,
    zero: tuple[int, ...] = (),
) -> cox.Cox:
    """Fit the penalised model over all sites; parameters as `cox.fit`.

    The log-likelihoods of the result are penalised ones, so that twice their difference is the penalised
    likelihood-ratio test; columns in `zero` are held at zero under the penalty of all.

    Raises
    ------
    NotIdentifiable
        No events, or a column that is constant or a combination of others. Separation is no obstacle.
    """
    pooled = None
    if strata == "none":
        if time_step is None:
            raise ValueError('time_step = None needs strata = "site"; without strata the sites need a common time grid')
        pooled = cox.Pooled.over(federation, ties, time_step)

    def evaluate(coefficients: Array, near: cox.At | None, covariance: Array) -> tuple[cox.At, Array]:
        if pooled is None:
            part = federation.sum(stratum, coefficients=coefficients, covariance=covariance, ties=ties)
            terms = cox.At(
                coefficients, float(part.log_likelihood), part.gradient, symmetric(part.information), int(part.events)
            )
            return terms, part.correction
        at = pooled.evaluate(coefficients, near)
        assert at.terms is not None
        more = federation.sum(
            correction,
            coefficients=coefficients,
            covariance=np.linalg.pinv(at.information),
            points=pooled.points,
            deaths=pooled.deaths,
            denominators=at.terms.denominators,
            mean_x=at.terms.mean_x,
            ties=ties,
            time_step=time_step,
        )
        return at, more.correction

    start, at = _settle(evaluate, predictors, np.setdiff1d(np.arange(predictors), zero))
    return cox.cox_of(start, at, pooled)


def _settle(evaluate: Evaluate, predictors: int, free: Counts) -> tuple[cox.At, cox.At]:
    """Terms at zero and at the solution, log-likelihoods penalised."""
    covariance = np.zeros((predictors, predictors))
    at, more = evaluate(np.zeros(predictors), None, covariance)
    cox.refuse_no_events(at)
    cox.newton_step(at)  # which names a column that is constant or a combination of others
    start, last = _penalised(at), np.inf
    for _ in range(MAX_ROUNDS):
        covariance = np.asarray(np.linalg.inv(at.information), dtype=np.float64)
        step = np.zeros(predictors)
        step[free] = np.linalg.solve(at.information[np.ix_(free, free)], (at.gradient + more)[free])
        moved = float(np.abs(step).max(initial=0.0))
        if max(moved, last) <= SETTLED:
            return start, _penalised(at)
        step *= min(1.0, LARGEST_STEP / moved) if moved else 1.0
        last = moved
        at, more = evaluate(at.coefficients + step, at, covariance)
    raise NotIdentifiable(
        f"the penalised likelihood did not settle in {MAX_ROUNDS} steps: the information nearly vanishes; name fewer "
        "predictors"
    )


def _penalised(at: cox.At) -> cox.At:
    return at._replace(log_likelihood=at.log_likelihood + float(np.linalg.slogdet(at.information)[1]) / 2)
