"""Risk sets: the sums over patients at risk that a Cox model's partial likelihood is made of; `cox` fits it.

With w = exp(x b), the likelihood at event time t needs the sums of w and w x over all who are at risk at t, and for
Efron's ties over those who die then. Its information adds the sum of w x x', each patient weighted with the hazard it
has met.
Breslow, Biometrics 1974; Efron, JASA 1977.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common.federation import statistic
from cohortium.strategies.rows import Array, Counts, Survival
from cohortium.strategies.survival import time_cell
from cohortium.strategies.triangle import symmetric, upper

Ties = Literal["efron", "breslow"]

# --- at each site ---------------------------------------------------------------------------------------------


class RiskSets(NamedTuple):
    """Sums of w = exp(x b) over the patients at risk at K event times, and over the deaths of its T tied ones."""

    risk: Array  # (K,)
    risk_x: Array  # (K, p)
    tied: Array  # (T,)
    tied_x: Array  # (T, p)
    events_x: Array  # (p,): sum of x over the events
    curvature: Array  # (p (p + 1) / 2,): sum of w x x', weighted with the hazards met


@statistic("cox.risk_sets", adds_over="rows")
def risk_sets(
    rows: Survival, *, coefficients: Array, points: Counts, tied: Counts, hazard: Array, relief: Array, time_step: float
) -> RiskSets:
    """Sum over risk sets at public event times.

    Parameters
    ----------
    coefficients : (p,)
    points : (K,) int64
        Time cells with an event, rising; `tied` holds the indices of those with several.
    hazard, relief : (K,)
        Baseline hazard at each event time, and what a death of that time is spared of it (Efron).
    """
    at = np.searchsorted(points, time_cell(rows.time, time_step), side="right")  # event times up to the patient's own
    return _sums(rows, coefficients, at, len(points), tied, hazard, relief)


class Stratum(NamedTuple):
    """One site's part of the stratified partial likelihood."""

    log_likelihood: Array  # ()
    gradient: Array  # (p,)
    information: Array  # (p (p + 1) / 2,)
    events: Counts  # ()


@statistic("cox.stratum", adds_over="sites")
def stratum(rows: Survival, *, coefficients: Array, ties: Ties, time_step: float | None) -> Stratum:
    """Partial likelihood of the site's own risk sets."""
    points, deaths, terms = stratum_terms(rows, coefficients, ties, time_step)
    time = rows.time if time_step is None else time_cell(rows.time, time_step)
    at, every = np.searchsorted(points, time, side="right"), np.arange(len(points))
    thinning = Thinning.of(deaths, ties)
    hazard, relief = thinning.hazards(terms.denominators, len(points))
    curvature = _sums(rows, coefficients, at, len(points), every, hazard, relief).curvature
    return Stratum(
        log_likelihood=np.asarray(terms.log_likelihood(coefficients)),
        gradient=terms.gradient,
        information=upper(terms.information(curvature)),
        events=np.asarray(deaths.sum(), np.int64),
    )


def stratum_terms(
    rows: Survival, coefficients: Array, ties: Ties, time_step: float | None = None
) -> tuple[Array, Counts, "LikelihoodTerms"]:
    """Event times of the site (K,), deaths at each, and the terms of its own risk sets."""
    time = rows.time if time_step is None else time_cell(rows.time, time_step)
    points, deaths = np.unique(time[rows.event == 1], return_counts=True)
    at, every = np.searchsorted(points, time, side="right"), np.arange(len(points))
    nothing = np.zeros(len(points))
    sums = _sums(rows, coefficients, at, len(points), every, nothing, nothing)
    return points.astype(np.float64), deaths, LikelihoodTerms.of(sums, Thinning.of(deaths, ties), every)


def _sums(
    rows: Survival, coefficients: Array, at: NDArray[np.intp], times: int, tied: Counts, hazard: Array, relief: Array
) -> RiskSets:
    weight = np.exp(rows.x @ coefficients)
    weight_x = rows.x * weight[:, None]
    died = rows.event == 1
    met = np.concatenate([[0.0], np.cumsum(hazard)])[at]
    met[died] -= relief[at[died] - 1]

    def over(values: Array, last: NDArray[np.intp]) -> Array:
        total = np.zeros((times + 1, *values.shape[1:]))  # row 0: out before the first event time
        np.add.at(total, last, values)
        return total[1:]

    def risk(values: Array) -> Array:
        return np.cumsum(over(values, at)[::-1], axis=0)[::-1]

    return RiskSets(
        risk=risk(weight),
        risk_x=risk(weight_x),
        tied=over(weight[died], at[died])[tied],
        tied_x=over(weight_x[died], at[died])[tied],
        events_x=rows.x[died].sum(0),
        curvature=upper(rows.x.T @ (weight_x * met[:, None])),
    )


# --- on either side -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Thinning:
    """Which risk set each death is drawn from; arrays are (deaths,)."""

    index: Counts  # its event time
    gone: Array  # Efron: share of that time's tied deaths that has already left; Breslow: 0

    @classmethod
    def of(cls, deaths: Counts, ties: Ties) -> "Thinning":
        """From the deaths at each event time, (K,)."""
        index = np.repeat(np.arange(len(deaths)), deaths)
        gone = np.zeros(len(index))
        if ties == "efron":  # the j-th of d tied deaths sees j / d of their weight gone
            gone = (np.arange(len(index)) - (np.cumsum(deaths) - deaths)[index]) / deaths[index]
        return cls(index, gone)

    def hazards(self, denominators: Array, times: int) -> tuple[Array, Array]:
        """Hazard at each event time, and what a death of that time is spared of it, both (times,)."""
        hazard, relief = np.zeros(times), np.zeros(times)
        np.add.at(hazard, self.index, 1 / denominators)
        np.add.at(relief, self.index, self.gone / denominators)
        return hazard, relief


@dataclass(frozen=True, slots=True)
class LikelihoodTerms:
    """The partial likelihood's terms, one a death."""

    denominators: Array  # (deaths,): sum of w over the thinned risk set
    mean_x: Array  # (deaths, p): its weighted mean of x
    events_x: Array  # (p,)

    @classmethod
    def of(cls, sums: RiskSets, thinning: Thinning, tied: Counts) -> "LikelihoodTerms":
        """From the sums over risk sets, of whose event times `tied` are thinned."""
        tied_risk, tied_x = np.zeros_like(sums.risk), np.zeros_like(sums.risk_x)
        tied_risk[tied], tied_x[tied] = sums.tied, sums.tied_x
        index, gone = thinning.index, thinning.gone
        denominators = sums.risk[index] - gone * tied_risk[index]
        weighted, at = sums.risk_x[index] - gone[:, None] * tied_x[index], denominators[:, None]
        mean_x = np.divide(weighted, at, out=np.zeros_like(weighted), where=at > 0)
        return cls(denominators, mean_x, sums.events_x)

    def log_likelihood(self, coefficients: Array) -> float:
        """Minus infinity where a step went so far that the sums no longer hold a risk set: it is halved."""
        if not (self.denominators > 0).all():
            return -np.inf
        return float(self.events_x @ coefficients - np.log(self.denominators).sum())

    @property
    def gradient(self) -> Array:
        return self.events_x - self.mean_x.sum(0)

    def information(self, curvature: Array) -> Array:
        """Information (p, p), given the hazard-weighted second moments of x as a triangle."""
        return symmetric(curvature) - self.mean_x.T @ self.mean_x
