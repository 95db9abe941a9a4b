"""Time-dependent accuracy: Uno's C and the AUC at a time with intervals, and Brier scores against the null model.

Patients are weighted by the inverse probability of not being censored (Kaplan-Meier of the censoring). Everything
here is a function of tables that other figures need as well: events and exits a time cell, and `concordance.joint`.
Standard errors are those of the infinitesimal jackknife: the change of a figure with the weight of each patient, that
of the censoring curve included. A patient censored between two event times changes the censoring curve by the mean of
those censored there; all other parts are exact. Where nobody can be observed any more (the weight would be 1 / 0) a
figure does not exist.
Uno et al., Stat Med 2011 (C); Uno et al., JASA 2007, Blanche et al., Stat Med 2013 (AUC); Graf et al., Stat Med 1999;
Kattan & Gerds, Diagn Progn Res 2018 (index of prediction accuracy).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import Undefined
from cohortium.strategies import concordance
from cohortium.strategies.concordance import Concordance
from cohortium.strategies.rows import Array, Counts
from cohortium.strategies.survival import Exits, at_risk, kaplan_meier, time_cell
from cohortium.strategies.wald import interval

EVALUATIONS = 32
"""Times, even ones up to the last horizon, over which the Brier score is integrated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Area:
    """Area under the curve at a time."""

    estimate: float
    standard_error: float

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal interval, clipped to 0..1."""
        low, high = interval(self.estimate, self.standard_error, level)
        return max(0.0, low), min(1.0, high)


def uno(
    patients: Counts, single: NDArray[np.bool_], points: Counts, total: Exits, *, before: int | None = None
) -> Concordance:
    """Uno's C of one model: pairs as in Harrell's C, each weighted by 1 / G^2 at its earlier time.

    Parameters
    ----------
    patients : (points + 1, 2, cells)
    single : (cells,) bool
        As in `concordance.harrell`.
    points : (points,)
        Time cells that the table is cut at.
    total : Exits
        Of the same patients, in every time cell.
    before : int, optional
        Time cell from which on events no longer count; unset: none.

    Raises
    ------
    Undefined
        No comparable pair, or an event at a time when nobody can be observed any more.
    """
    last = len(points) if before is None else int(np.searchsorted(points, before))
    weight = _weights(patients, points, total, last, 2)
    concordant, comparable = concordance.pairs(patients, weight)
    pairs = float((patients * comparable).sum()) / 2  # every pair from both its sides
    if pairs == 0:
        raise Undefined("a C-index needs a pair of patients of whom one has the event before the other's time")
    estimate = float((patients * concordant).sum()) / 2 / pairs
    later = concordance.later(patients)
    below = np.cumsum(later, 1) - later / 2
    excess = weight * (patients[:, 1] * (below - estimate * later.sum(1, keepdims=True))).sum(1)
    doubtful = weight[:, None] * patients[:, 1] * later * ~single
    return Concordance(
        estimate=estimate,
        standard_error=_error(patients, concordant - estimate * comparable, 2 * excess, points, total) / pairs,
        bound=float(doubtful.sum()) / 2 / pairs,
    )


def auc_at(patients: Counts, points: Counts, total: Exits, horizon: int) -> Area:
    """Cumulative/dynamic AUC of one model, as `concordance.auc_at`, with its standard error; same arguments.

    Raises
    ------
    Undefined
        No event by the horizon, nobody followed beyond it, or an event when nobody can be observed any more.
    """
    estimate = concordance.auc_at(patients, points, concordance.observed(total), horizon)
    beyond = int(np.searchsorted(points, horizon, side="right"))
    weight = _weights(patients, points, total, beyond, 1)
    controls = patients[beyond + 1 :].sum((0, 1))
    cases = weight @ patients[:, 1]
    above = cases.sum() - np.cumsum(cases) + cases / 2
    residual = np.zeros(patients.shape)
    residual[:, 1] = weight[:, None] * (np.cumsum(controls) - controls / 2 - estimate * controls.sum())
    excess = (patients[:, 1] * residual[:, 1]).sum(1)
    residual[beyond + 1 :] = above - estimate * cases.sum()
    pairs = float(cases.sum() * controls.sum())
    return Area(estimate=estimate, standard_error=_error(patients, residual, excess, points, total) / pairs)


def _weights(patients: Counts, points: Counts, total: Exits, last: int, power: int) -> Array:
    """1 / G^power of the events of each interval, 0 where there is none and from point `last` on, (points + 1,)."""
    seen = patients[1 : last + 1, 1].any(1)
    probability = concordance.observed(total)[points[:last][seen]]
    if not probability.all():
        raise Undefined("an event lies at a time when nobody can be observed any more; name an earlier horizon")
    weight = np.zeros(len(points) + 1)
    weight[1 : last + 1][seen] = probability**-power
    return weight


def _error(patients: Counts, residual: Array, excess: Array, points: Counts, total: Exits) -> float:
    """Root of the summed squared influences, times the number of pairs.

    Parameters
    ----------
    residual : (points + 1, 2, cells)
        Change with the weight of a patient, the censoring curve held as it is.
    excess : (points + 1,)
        Minus the change with log G at each interval.
    """
    staying = at_risk(total.exits) - total.events
    censored = (total.exits - total.events).astype(float)
    left = (staying - censored).astype(float)
    ahead = np.zeros(len(staying) + 1)  # what changes with log G from each time cell on
    np.add.at(ahead, np.minimum(points, len(staying)), excess[1:])
    ahead = np.cumsum(ahead[::-1])[::-1][:-1]
    leaving = np.divide(ahead, left, out=np.zeros(len(left)), where=left > 0)
    lost = np.cumsum(leaving * np.divide(censored, staying, out=np.zeros(len(left)), where=staying > 0))
    of_censored = leaving - lost
    of_events = -np.concatenate([[0.0], lost])[:-1]  # events leave before the censorings of their time
    interval = np.searchsorted(points, np.arange(len(staying)), side="right")
    held = np.bincount(interval, censored, len(points) + 1)
    mean = np.bincount(interval, censored * of_censored, len(points) + 1) / np.maximum(held, 1)
    within = float((censored * (of_censored - mean[interval]) ** 2).sum())
    change = residual.copy()
    change[:, 0] += mean[:, None]
    inside = points < len(staying)
    change[1:, 1][inside] += of_events[points[inside]][:, None]
    return float(np.sqrt((patients * change**2).sum() + within))


# --- Brier scores -----------------------------------------------------------------------------------------------


def evaluation_cells(horizon: tuple[float, ...], time_step: float) -> Counts:
    """Time cells over which a Brier score is integrated: even ones up to the last horizon."""
    if not horizon:
        return np.zeros(0, np.int64)
    last = int(time_cell(np.array(max(horizon)), time_step))
    return np.unique(last * np.arange(1, EVALUATIONS + 1) // EVALUATIONS)


def null_brier(total: Exits, cells: Counts) -> Array:
    """Brier score of the Kaplan-Meier curve of all patients, which knows nothing of any of them, at time cells; NaN
    where nobody is followed beyond.
    """
    n, probability = at_risk(total.exits), concordance.observed(total)
    curve = kaplan_meier(np.arange(len(n), dtype=float), total.events, n)
    score = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        if cell < len(n) - 1:
            survival = curve.survival[np.searchsorted(curve.time[1:], cell, side="right")]
            events = total.events[: cell + 1]
            died = events > 0
            gone = (events[died] / probability[: cell + 1][died]).sum()
            score[i] = (survival**2 * gone + (1 - survival) ** 2 * n[cell + 1] / probability[cell]) / n[0]
    return score


def integrated(scores: Array, cells: Counts) -> float:
    """Mean of a Brier score over time by the trapezoidal rule, between the first and the last of the cells.

    Raises
    ------
    Undefined
        Fewer than two times, or nobody is followed beyond the last.
    """
    if len(cells) < 2:
        raise Undefined("an integral over time needs a later horizon, or a finer grid of times")
    if not np.isfinite(scores).all():
        raise Undefined("nobody is followed beyond the last of the times that are integrated over")
    return float(np.trapezoid(scores, cells) / (cells[-1] - cells[0]))
