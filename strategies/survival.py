"""Survival: Kaplan-Meier curves, log-rank test and hazard ratio of risk groups, from counts on a public time grid.

Times are cells of `time_step` (1 day = exact for days; wider cells floor a time to their start). One sum finds how
long the grid must be, one counts events and exits a cell; everything else is a function of such counts. Patients who
leave in a cell are at risk for the events of that cell (deaths before censorings, as lifelines and R do).
Kaplan & Meier, JASA 1958; Greenwood 1926; Mantel, Cancer Chemother Rep 1966; Efron, JASA 1977.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Array, Counts, ScoredCompeting, ScoredSurvival, Survival
from cohortium.strategies.score_bins import grid
from cohortium.strategies.wald import interval

_LONGEST = 41  # bits of a cell number; 2**40 seconds are 35,000 years


def time_cell(time: Array, time_step: float) -> Counts:
    """Cell of each time; a whisker above the quotient, so that 0.3 / 0.1 is cell 3."""
    return np.floor(time / time_step * (1 + 1e-12)).astype(np.int64)


# --- at each site ---------------------------------------------------------------------------------------------


class Extent(NamedTuple):
    """How long patients are followed, to a factor of two."""

    patients: Counts  # (41,): by the number of bits of the time cell


@statistic("survival.extent", adds_over="rows")
def extent(rows: Survival | ScoredSurvival | ScoredCompeting, *, time_step: float) -> Extent:
    """Count patients by the bits of their time cell."""
    _, bits = np.frexp(time_cell(rows.time, time_step).astype(float))  # 2^(bits - 1) <= cell < 2^bits
    return Extent(np.bincount(bits, minlength=_LONGEST))


class Exits(NamedTuple):
    """Who leaves in each time cell."""

    events: Counts  # (cells,)
    exits: Counts  # (cells,): with the event or censored


@statistic("survival.exits", adds_over="rows")
def exits(rows: Survival | ScoredSurvival | ScoredCompeting, *, cells: int, time_step: float) -> Exits:
    """Count events and exits a time cell; later times count in the last cell, as censored."""
    cell = time_cell(rows.time, time_step)
    inside = cell < cells
    return Exits(
        events=np.bincount(cell[inside & (rows.event == 1)], minlength=cells),
        exits=np.bincount(np.minimum(cell, cells - 1), minlength=cells),
    )


@statistic("survival.exits_by_group", adds_over="rows")
def exits_by_group(rows: ScoredSurvival, *, points: Counts, cutoffs: Counts, time_step: float) -> Exits:
    """Count events and exits of each model's low (0) and high (1) risk group, (models, 2, points + 1).

    Interval 0 lies before the first point; interval r begins at ``points[r - 1]``. High risk is grid score >= cut-off.
    """
    interval = np.searchsorted(points, time_cell(rows.time, time_step), side="right")
    shape = (len(cutoffs), 2, len(points) + 1)
    events, everyone = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for m, cut in enumerate(cutoffs):
        high = (grid(rows.score[:, m]) >= cut).astype(np.int64)
        np.add.at(everyone[m], (high, interval), 1)
        np.add.at(events[m], (high, interval), rows.event.astype(np.int64))
    return Exits(events=events, exits=everyone)


# --- at the server --------------------------------------------------------------------------------------------


def timeline(federation: Federation, time_step: float) -> Exits:
    """Events and exits in every time cell up to the last exit; 2 sums.

    Parameters
    ----------
    federation : Federation
        Its rows are `Survival` or `ScoredSurvival`.
    time_step : float
        Width of a cell, in the unit of the times.
    """
    bits = federation.sum(extent, time_step=time_step).patients
    if not bits.any():
        return Exits(events=np.zeros(1, np.int64), exits=np.zeros(1, np.int64))
    total = federation.sum(exits, cells=2 ** int(np.flatnonzero(bits)[-1]), time_step=time_step)
    last = int(np.flatnonzero(total.exits)[-1]) + 1
    return Exits(events=total.events[:last], exits=total.exits[:last])


def at_risk(exits: Counts) -> Counts:
    """Patients who have not left before each cell, along the last axis."""
    return np.cumsum(exits[..., ::-1], axis=-1)[..., ::-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A Kaplan-Meier curve at its event times, beginning with time 0; arrays are (k,)."""

    time: Array
    survival: Array
    lower: Array
    upper: Array
    at_risk: Counts

    @property
    def median(self) -> float:
        """First time at which survival is at most one half.

        Raises
        ------
        Undefined
            The curve stays above one half for as long as it is shown.
        """
        below = self.survival <= 0.5 + 1e-12  # a product of fractions that should give exactly one half
        if not below.any():
            raise Undefined("survival stays above one half for as long as the curve is shown")
        return float(self.time[np.argmax(below)])


def kaplan_meier(time: Array, events: Counts, at_risk: Counts, *, minimum_count: int = 1, level: float = 0.95) -> Curve:
    """Product-limit estimate with Greenwood's variance and a log(-log) interval.

    The interval is (1, 1) before the first event; where survival falls to 0, its upper end stays at the last one that
    can be computed. The curve stops before the first event time with fewer than `minimum_count` at risk.

    Parameters
    ----------
    time, events, at_risk : (k,)
        At rising times; those without an event are left out of the curve.

    Raises
    ------
    Undefined
        Nobody is at risk at the start.
    """
    if not len(at_risk) or at_risk[0] < 1:
        raise Undefined("a survival curve needs patients")
    shown = (events > 0) & (at_risk >= max(minimum_count, 1))
    d, n = events[shown].astype(float), at_risk[shown].astype(float)
    survival = np.cumprod(1 - d / n)
    alive = survival > 1e-12
    greenwood = np.cumsum(np.divide(d, n * (n - d), out=np.zeros_like(d), where=n > d))
    log_survival = np.log(np.where(alive, survival, 0.5))
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt(greenwood) / -log_survival
    lower = np.where(alive, np.exp(log_survival * np.exp(half)), 0.0)
    upper = np.exp(log_survival * np.exp(-half))
    upper = np.where(alive, upper, upper[alive][-1] if alive.any() else 1.0)
    first = np.ones(1)
    return Curve(
        time=np.concatenate([[0.0], np.asarray(time, float)[shown]]),
        survival=np.concatenate([first, np.where(alive, survival, 0.0)]),
        lower=np.concatenate([first, lower]),
        upper=np.concatenate([first, upper]),
        at_risk=np.concatenate([at_risk[:1], at_risk[shown]]),
    )


def log_rank_terms(events: Counts, at_risk: Counts) -> tuple[float, float]:
    """Events of group 1 less those expected, and their hypergeometric variance; counts are (2, k)."""
    d, n, n1 = events.sum(0).astype(float), at_risk.sum(0).astype(float), at_risk[1].astype(float)
    died = d > 0
    d, n, n1 = d[died], n[died], n1[died]
    variance = float((n1 / n * (1 - n1 / n) * d * (n - d) / np.maximum(n - 1, 1)).sum())
    return float(events[1].sum() - (d * n1 / n).sum()), variance


def chi_squared(excess: float, variance: float) -> tuple[float, float]:
    """Chi-squared with one degree of freedom, and p.

    Raises
    ------
    Undefined
        There is no variance.
    """
    if variance <= 1e-9:  # sums of sites in fixed point: 0 is 0 to about 1e-12
        raise Undefined("the log-rank test needs an event while both groups are at risk")
    chi2 = excess**2 / variance
    return chi2, float(stats.chi2.sf(chi2, 1))


def log_rank(events: Counts, at_risk: Counts) -> tuple[float, float]:
    """Log-rank test of two groups: chi-squared with one degree of freedom, and p.

    Parameters
    ----------
    events, at_risk : (2, k)

    Raises
    ------
    Undefined
        A group is empty, or nobody had the event while both groups were at risk.
    """
    return chi_squared(*log_rank_terms(events, at_risk))


@dataclass(frozen=True, kw_only=True, slots=True)
class HazardRatio:
    """Hazard of group 1 over group 0."""

    log: float
    standard_error: float

    @property
    def estimate(self) -> float:
        return float(np.exp(self.log))

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        low, high = interval(self.log, self.standard_error, level)
        return float(np.exp(low)), float(np.exp(high))

    @property
    def p(self) -> float:
        """Two-sided Wald test."""
        return float(2 * stats.norm.sf(abs(self.log) / self.standard_error))


def hazard_ratio(events: Counts, at_risk: Counts) -> HazardRatio:
    """Cox model of one binary covariate (Efron ties): its likelihood needs the group counts only.

    Parameters
    ----------
    events, at_risk : (2, k)

    Raises
    ------
    Undefined
        No finite maximum: one group is empty, or has no event while the other is at risk.
    """
    deaths = events.sum(0)
    index = np.repeat(np.arange(len(deaths)), deaths)
    passed = np.concatenate([np.arange(d) / d for d in deaths if d] or [np.zeros(0)])  # deaths of this time gone before
    n0, n1 = at_risk[:, index] - passed * events[:, index]
    log = 0.0
    for _ in range(50):
        share = n1 * np.exp(log) / (n0 + n1 * np.exp(log))
        gradient, information = float(events[1].sum() - share.sum()), float((share * (1 - share)).sum())
        # a group without events drives the ratio to 0 or infinity, and the information to 0
        if information <= 1e-8 * max(len(index), 1) or abs(log) > 25:
            break
        step = float(np.clip(gradient / information, -2, 2))
        log += step
        if abs(step) < 1e-12 * max(1.0, abs(log)):
            return HazardRatio(log=log, standard_error=information**-0.5)
    raise Undefined("the hazard ratio is not finite: one group has no event while the other is at risk")
