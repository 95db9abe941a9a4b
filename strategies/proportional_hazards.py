"""Proportional hazards: is a Cox model's hazard ratio the same early and late? Scaled Schoenfeld residuals; one sum.

A residual is how far a patient with the event lies from the mean of those at risk; where hazards are proportional, it
does not change with time. Stratified, each site has its own means and its times stay there; not stratified, the means
are those of the fit, and the sites add up their events' covariates on the time grid.

Grambsch & Therneau, Biometrika 81:515, 1994, in the form of lifelines and of R's survival before version 3.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from cohortium.common.federation import Federation, statistic
from cohortium.strategies.cox import Cox
from cohortium.strategies.risk_sets import Thinning, Ties, stratum_terms
from cohortium.strategies.rows import Array, Counts, Survival
from cohortium.strategies.survival import time_cell

Transform = Literal["identity", "log"]


class Residuals(NamedTuple):
    """Sums over the events of some patients; g is the transformed time."""

    by_time: Array  # (p,): g times the residual
    residual: Array  # (p,)
    time: Array  # (2,): g and g^2
    events: Counts  # ()


class Observed(NamedTuple):
    """What the residuals of some patients are counted from."""

    by_time: Array  # (p,): g times x, over the events


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("proportional_hazards.stratum", adds_over="sites")
def stratum(rows: Survival, *, coefficients: Array, ties: Ties, transform: Transform, centre: float) -> Residuals:
    """Residuals in the site's own risk sets, against times as they are."""
    points, deaths, terms = stratum_terms(rows, coefficients, ties)
    drawn = Thinning.of(deaths, ties).index
    died = rows.event == 1
    g = _transformed(rows.time[died], transform) - centre
    expected = _transformed(points, transform)[drawn] - centre
    return Residuals(
        by_time=g @ rows.x[died] - expected @ terms.mean_x,
        residual=terms.gradient,
        time=np.array([g.sum(), g @ g]),
        events=np.asarray(int(died.sum()), np.int64),
    )


@statistic("proportional_hazards.observed", adds_over="rows")
def observed(rows: Survival, *, transform: Transform, time_step: float, centre: float) -> Observed:
    """Covariates of the events, times the transformed time of their cell."""
    died = rows.event == 1
    return Observed((on_grid(time_cell(rows.time[died], time_step), transform, time_step) - centre) @ rows.x[died])


def on_grid(cell: Counts, transform: Transform, time_step: float) -> Array:
    """Transformed time of the middle of a cell."""
    return _transformed((np.asarray(cell, dtype=np.float64) + 0.5) * time_step, transform)


def _transformed(time: Array, transform: Transform) -> Array:
    return np.log(time) if transform == "log" else np.asarray(time, dtype=np.float64)


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class HazardsTest:
    """One degree of freedom a column, and all of them together; arrays are (p,)."""

    chi2: Array
    all_columns: float

    @property
    def p(self) -> Array:
        return stats.chi2.sf(self.chi2, 1)

    @property
    def p_all(self) -> float:
        return float(stats.chi2.sf(self.all_columns, len(self.chi2)))


def examine(
    federation: Federation, fit: Cox, *, transform: Transform, ties: Ties, time_step: float | None, scale: float = 1.0
) -> HazardsTest:
    """Test a fit on the patients that it was fitted on; one sum.

    Parameters
    ----------
    time_step : float or None
        As in the fit; not used where it was stratified.
    scale : float
        A time (in the endpoint's unit) that is typical: times are counted from it, so that squares do not cancel.
    """
    centre = float(np.log(scale)) if transform == "log" else scale
    if fit.means is None:
        sums = federation.sum(
            stratum, bound=2.0**30, coefficients=fit.coefficients, ties=ties, transform=transform, centre=centre
        )
        return _test(fit, sums.by_time, sums.residual, sums.time[0], sums.time[1], int(sums.events))
    assert time_step is not None
    total = federation.sum(observed, bound=2.0**30, transform=transform, time_step=time_step, centre=centre)
    g = on_grid(fit.means.cell, transform, time_step) - centre
    # the residuals add up to zero at the solution
    none = np.zeros(len(fit.coefficients))
    return _test(fit, total.by_time - g @ fit.means.x, none, float(g.sum()), float(g @ g), fit.events)


def _test(fit: Cox, by_time: Array, residual: Array, first: float, second: float, events: int) -> HazardsTest:
    slope = by_time - first / events * residual
    spread = second - first**2 / events
    scaled = fit.covariance @ slope * events
    return HazardsTest(
        chi2=scaled**2 / (events * np.diag(fit.covariance) * spread),
        all_columns=float(slope @ fit.covariance @ slope * events / spread),
    )
