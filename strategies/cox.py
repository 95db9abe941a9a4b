"""Cox: proportional hazards across sites, equal to the pooled fit (Breslow and Efron ties; stratified by site or not).

Stratified, a site's own risk sets give its part of the gradient and the information: p + p (p + 1) / 2 + 1 numbers a
step. Not stratified, it needs sums over the risk sets of all sites at each event time (see `risk_sets`). These give the
gradient exactly. The information is linear in the sites once its denominators are known, which they are one message
later; so a step sends denominators predicted from the last one, and Newton's method converges as fast with one sum a
step as with two. At the solution the prediction is exact to the square of the last step.

Breslow, Biometrics 1974; Efron, JASA 1977.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import DEFAULT_BOUND, Federation
from cohortium.strategies import likelihood
from cohortium.strategies.risk_sets import LikelihoodTerms, Thinning, Ties, risk_sets, stratum
from cohortium.strategies.rows import Array, Counts
from cohortium.strategies.survival import at_risk, timeline
from cohortium.strategies.triangle import symmetric
from cohortium.strategies.wald import Estimates

Strata = Literal["none", "site"]
GROWN = 5.0
"""Coefficient of a standardised column beyond which it is separation that leaves no information."""
CONSTANT = 1e-10
"""Information a death below which a standardised column does not vary: fixed point leaves about 1e-12 in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """Breslow's cumulative hazard of a patient with linear predictor 0; arrays are (K,), at rising event times."""

    time: Array
    cumulative_hazard: Array

    def survival(self, times: Array) -> Array:
        """Survival of that patient at `times`; a patient's own is this to the power of exp(linear predictor)."""
        steps = np.concatenate([[0.0], self.cumulative_hazard])
        return np.exp(-steps[np.searchsorted(self.time, times, side="right")])


class Means(NamedTuple):
    """Mean of the covariates over the risk set that each death is drawn from."""

    cell: Counts  # (deaths,), of the time grid
    x: Array  # (deaths, p)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cox(Estimates):
    """A fitted model; arrays are (p,) in the order of the design's columns, per unit of its columns."""

    log_likelihood: float
    null_log_likelihood: float
    score: likelihood.ChiSquared
    """Score test of all coefficients being zero."""
    events: int
    baseline: Baseline | None  # None where stratified: each site has its own
    means: Means | None = None
    """Where not stratified: what each death's covariates were expected to be."""

    @property
    def likelihood_ratio(self) -> likelihood.ChiSquared:
        """Test of all coefficients being zero."""
        return likelihood.ratio_test(self.log_likelihood, self.null_log_likelihood, len(self.coefficients))

    @property
    def aic(self) -> float:
        return likelihood.aic(self.log_likelihood, len(self.coefficients))

    @property
    def bic(self) -> float:
        """With events for observations."""
        return likelihood.bic(self.log_likelihood, len(self.coefficients), self.events)

    @property
    def hazard_ratios(self) -> Array:
        return np.exp(self.coefficients)


class At(NamedTuple):
    """The partial likelihood at some coefficients."""

    coefficients: Array
    log_likelihood: float
    gradient: Array
    information: Array  # (p, p)
    events: int
    terms: LikelihoodTerms | None = None
    risk: Array | None = None  # (K,): sums of w over the risk sets


def fit(
    federation: Federation,
    predictors: int,
    *,
    ties: Ties = "efron",
    strata: Strata = "none",
    time_step: float | None = 1.0,
    tolerance: float = 1e-10,
    max_rounds: int = 30,
) -> Cox:
    """Fit the model over all sites of the federation.

    Sums: one a Newton step (5 to 7), and two more for the event times where not stratified.

    Parameters
    ----------
    federation : Federation
        Its rows are `Survival` with `predictors` standardised columns.
    ties : {"efron", "breslow"}
    strata : {"none", "site"}
        ``"site"``: every site has its own baseline hazard, and no time leaves it.
    time_step : float or None
        Width of the time grid in the unit of the times; None (stratified only) takes the times as they are.
    tolerance : float
        Largest element of the gradient a death at the solution. Keep it above the fixed-point step of the sums.

    Raises
    ------
    NotIdentifiable
        No events, or no finite maximum: a column separates those with the event, or is a combination of others.
    """
    if strata == "site":

        def evaluate(coefficients: Array, near: At | None) -> At:  # noqa: ARG001
            part = federation.sum(stratum, coefficients=coefficients, ties=ties, time_step=time_step)
            information = symmetric(part.information)
            return At(coefficients, float(part.log_likelihood), part.gradient, information, int(part.events))

        start = evaluate(np.zeros(predictors), None)
        return cox_of(start, _maximise(start, evaluate, tolerance, max_rounds))

    if time_step is None:
        raise ValueError('time_step = None needs strata = "site"; without strata the sites need a common time grid')
    pooled = Pooled.over(federation, ties, time_step)
    start = pooled.evaluate(np.zeros(predictors), None)
    return cox_of(start, _maximise(start, pooled.evaluate, tolerance, max_rounds), pooled)


def baseline(federation: Federation, coefficients: Array, *, time_step: float) -> Baseline:
    """Breslow's baseline over all sites at given coefficients, e.g. of a stratified fit; 3 sums."""
    pooled = Pooled.over(federation, "breslow", time_step)
    return pooled.baseline(pooled.evaluate(coefficients, None).risk)


@dataclass(frozen=True, slots=True)
class Pooled:
    """The partial likelihood without strata, on the grid of event times."""

    federation: Federation
    ties: Ties
    time_step: float
    points: Counts
    deaths: Counts
    at_risk: Counts

    @classmethod
    def over(cls, federation: Federation, ties: Ties, time_step: float) -> "Pooled":
        total = timeline(federation, time_step)
        points = np.flatnonzero(total.events)
        if not len(points):
            raise NotIdentifiable("no patient had the event; take a longer follow-up or another endpoint")
        return cls(federation, ties, time_step, points, total.events[points], at_risk(total.exits)[points])

    def evaluate(self, coefficients: Array, near: At | None) -> At:
        thinning = Thinning.of(self.deaths, self.ties)
        tied = np.flatnonzero(self.deaths > 1) if self.ties == "efron" else np.zeros(0, np.int64)
        hazard, relief = thinning.hazards(self._expected(thinning, coefficients, near), len(self.points))
        sums = self.federation.sum(
            risk_sets,
            bound=max(DEFAULT_BOUND, 64.0 * float(self.at_risk[0])),  # hazards of 8 times the mean, 8 sd from it
            coefficients=coefficients,
            points=self.points,
            tied=tied,
            hazard=hazard,
            relief=relief,
            time_step=self.time_step,
        )
        terms = LikelihoodTerms.of(sums, thinning, tied)
        return At(
            coefficients=coefficients,
            log_likelihood=terms.log_likelihood(coefficients),
            gradient=terms.gradient,
            information=terms.information(sums.curvature),
            events=int(self.deaths.sum()),
            terms=terms,
            risk=sums.risk,
        )

    def _expected(self, thinning: Thinning, coefficients: Array, near: At | None) -> Array:
        """Denominators at `coefficients`, from head counts at zero or to first order (of their logarithm) from nearby.

        That logarithm is convex in the coefficients, so the true ones are no smaller: the information is never
        understated, stays positive definite, and a step never goes too far because of it.
        """
        if near is None or near.terms is None:  # w = 1
            return self.at_risk[thinning.index] - thinning.gone * self.deaths[thinning.index]
        return near.terms.denominators * np.exp(near.terms.mean_x @ (coefficients - near.coefficients))

    def baseline(self, risk: Array | None) -> Baseline:
        assert risk is not None
        return Baseline(
            time=np.asarray(self.points * self.time_step, dtype=np.float64),
            cumulative_hazard=np.cumsum(self.deaths / risk),
        )


def refuse_no_events(at: At) -> None:
    """Refuse terms without an event."""
    if at.events == 0:
        raise NotIdentifiable("no patient had the event; take a longer follow-up or another endpoint")


def _maximise(at: At, evaluate: Callable[[Array, At | None], At], tolerance: float, max_rounds: int) -> At:
    refuse_no_events(at)
    if not len(at.coefficients):
        return at
    moved = 0.0
    for _ in range(max_rounds):
        step = newton_step(at)
        # Under separation the gradient vanishes too, but the steps do not. The information is exact to moved**2.
        flat = np.abs(at.gradient).max(initial=0.0) <= tolerance * at.events
        if flat and moved <= 1e-5 and np.abs(step).max(initial=0.0) <= 1e-6:
            return at
        worse = at.log_likelihood - 1e-9 * abs(at.log_likelihood)  # rounding of a sum is not a worse fit
        while (trial := evaluate(at.coefficients + step, at)).log_likelihood < worse:
            step /= 2
        at, moved = trial, float(np.abs(step).max(initial=0.0))
        if np.abs(at.coefficients).max(initial=0.0) > 25:  # standardised columns: a hazard ratio of e^25 a deviation
            break
    raise _separates(at)


def _separates(at: At) -> NotIdentifiable:
    column = int(np.argmax(np.abs(at.coefficients)))
    grown = f"its coefficient grew to {at.coefficients[column]:.0f} without settling"
    return NotIdentifiable(
        f'column {column} separates those with the event ({grown}); use penalty = "firth", which stays finite, '
        "or drop it"
    )


def newton_step(at: At) -> Array:
    """Step of Newton's method, where the information tells all columns apart."""
    scale = np.sqrt(np.maximum(np.diag(at.information), 0.0))  # of a constant column nothing but rounding, either sign
    least = 0.0 if at.coefficients.any() else CONSTANT * at.events  # separation takes information away later
    if not (scale**2 > least).all() or np.linalg.cond(at.information / np.outer(scale, scale)) > 1e10:
        if np.abs(at.coefficients).max(initial=0.0) > GROWN:
            raise _separates(at)
        _, vectors = np.linalg.eigh(at.information)
        column = int(np.argmax(np.abs(vectors[:, 0])))
        raise NotIdentifiable(f"column {column} is constant or a combination of others in the risk sets; drop it")
    return np.asarray(np.linalg.solve(at.information, at.gradient), dtype=np.float64)


def cox_of(start: At, at: At, pooled: Pooled | None = None) -> Cox:
    """What a fit has found, from the likelihood's terms at zero and at the solution."""
    means = None
    if pooled is not None and at.terms is not None:
        means = Means(np.repeat(pooled.points, pooled.deaths), at.terms.mean_x)
    return Cox(
        coefficients=at.coefficients,
        covariance=np.asarray(np.linalg.inv(at.information), dtype=np.float64),
        log_likelihood=at.log_likelihood,
        null_log_likelihood=start.log_likelihood,
        score=likelihood.chi_squared(
            float(start.gradient @ np.linalg.solve(start.information, start.gradient)), len(start.gradient)
        ),
        events=at.events,
        baseline=None if pooled is None else pooled.baseline(at.risk),
        means=means,
    )
