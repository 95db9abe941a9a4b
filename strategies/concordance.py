"""Concordance: Harrell's C, AUC at a time and Brier score of survival models, from times beside scores.

One sum counts patients by event time and score cell for all models (`joint`). C, its standard error (infinitesimal
jackknife) and the cumulative/dynamic AUC are functions of that table: a patient's concordant and comparable pairs
depend only on the cell. With one score a cell and exact times they are those of the pooled patients; wider cells count
two patients of one cell as tied, and `Concordance.bound` certifies the effect. Where even the table is too much,
`within_site` compares patients of the same site only.
Harrell et al., JAMA 1982; Uno et al., JASA 2007; Graf et al., Stat Med 1999.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import Undefined
from cohortium.common.federation import DEFAULT_BOUND, Federation, statistic
from cohortium.strategies.rows import Array, Counts, ScoredSurvival
from cohortium.strategies.score_bins import cell, grid
from cohortium.strategies.survival import Exits, at_risk, time_cell
from cohortium.strategies.wald import interval

# --- at each site ---------------------------------------------------------------------------------------------


class Joint(NamedTuple):
    """Patients by time interval, event and score cell."""

    patients: Counts  # (models, points + 1, 2, cells); cells beyond a model's own are zero


@statistic("concordance.joint", adds_over="rows")
def joint(rows: ScoredSurvival, *, edges: list[Counts], points: Counts, time_step: float) -> Joint:
    """Count patients a cell of every model.

    Interval 0 lies before the first of the `points` (time cells), interval r begins at ``points[r - 1]``. Every event
    time is a point, so the events of an interval lie at its start.
    """
    interval = np.searchsorted(points, time_cell(rows.time, time_step), side="right")
    event = rows.event.astype(np.int64)
    patients = np.zeros((len(edges), len(points) + 1, 2, max(len(lower) for lower in edges)), np.int64)
    for m, lower in enumerate(edges):
        np.add.at(patients[m], (interval, event, cell(rows.score[:, m], lower)), 1)
    return Joint(patients)


class Pairs(NamedTuple):
    """Moments of the patients' pairs at one site: a concordant (twice, a tie counts 1), b comparable."""

    moments: Counts  # (models, 5): sums of 2a, b, 4a^2, 2ab, b^2


@statistic("concordance.pairs_within_site", adds_over="sites")
def pairs_within_site(rows: ScoredSurvival, *, time_step: float | None) -> Pairs:
    """Count pairs among the site's own patients; `time_step` None takes times as they are."""
    time = rows.time if time_step is None else time_cell(rows.time, time_step)
    event = rows.event.astype(np.int64)
    points = np.unique(time[event == 1])
    interval = np.searchsorted(points, time, side="right")
    moments = np.zeros((rows.score.shape[1], 5), np.int64)
    for m, score in enumerate(grid(rows.score).T):
        scores, position = np.unique(score, return_inverse=True)
        patients = np.zeros((len(points) + 1, 2, len(scores)), np.int64)
        np.add.at(patients, (interval, event, position), 1)
        concordant, comparable = (counted[interval, event, position] for counted in pairs(patients))
        a, b = np.rint(2 * concordant).astype(np.int64), np.rint(comparable).astype(np.int64)
        moments[m] = a.sum(), b.sum(), (a * a).sum(), (a * b).sum(), (b * b).sum()
    return Pairs(moments)


class SquaredErrors(NamedTuple):
    """Weighted squared errors of predicted survival."""

    sums: Array  # (models, horizons)


@statistic("concordance.squared_errors", adds_over="rows")
def squared_errors(
    rows: ScoredSurvival,
    *,
    horizons: Counts,
    baseline_survival: Array,
    points: Counts,
    observed: Array,
    observed_at_horizon: Array,
    time_step: float,
) -> SquaredErrors:
    """Sum (status at the horizon - predicted survival)^2 / probability of being observed.

    Parameters
    ----------
    horizons : (h,) int64
        Time cells.
    baseline_survival : (models, h)
        Survival at the horizons of a patient with score 0; a patient's own is this to the power exp(score).
    points : (k,) int64
        Time cells with an event; `observed` (k,) is the probability of not being censored up to each.
    observed_at_horizon : (h,)
        The same at the horizons; 0 where the score does not exist (its sum is then 0).
    """
    at = time_cell(rows.time, time_step)
    own = np.ones(len(at))
    died = rows.event == 1
    own[died] = observed[np.searchsorted(points, at[died])]
    sums = np.zeros(baseline_survival.shape)
    for m, h in np.ndindex(*sums.shape):
        if observed_at_horizon[h] > 0:
            predicted = baseline_survival[m, h] ** np.exp(rows.score[:, m])
            gone, here = died & (at <= horizons[h]), at > horizons[h]
            sums[m, h] = (predicted[gone] ** 2 / own[gone]).sum()
            sums[m, h] += ((1 - predicted[here]) ** 2).sum() / observed_at_horizon[h]
    return SquaredErrors(sums)


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Concordance:
    """Share of comparable pairs in which the patient with the earlier event has the higher score."""

    estimate: float
    standard_error: float
    bound: float  # largest distance from the C of unbinned scores

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal interval, clipped to 0..1."""
        low, high = interval(self.estimate, self.standard_error, level)
        return max(0.0, low), min(1.0, high)


def harrell(patients: Counts, single: NDArray[np.bool_]) -> Concordance:
    """Harrell's C of one model from its joint table.

    A pair is comparable when the earlier time is an event; a patient censored at another's event time is later. Equal
    scores count one half; two events at one time are not comparable (as in lifelines and R).

    Parameters
    ----------
    patients : (points + 1, 2, cells)
    single : (cells,) bool
        Cells that hold one score only: ties there are real and leave no doubt.

    Raises
    ------
    Undefined
        No comparable pair.
    """
    concordant, comparable = pairs(patients)
    total = float((patients * comparable).sum())  # every pair from both its sides
    if total == 0:
        raise Undefined("a C-index needs a pair of patients of whom one has the event before the other's time")
    estimate = float((patients * concordant).sum()) / total
    residual = patients * (concordant - estimate * comparable) ** 2
    doubtful = patients[:, 1] * later(patients) * ~single  # event and later patient in one cell
    return Concordance(
        estimate=estimate,
        standard_error=2 * float(np.sqrt(residual.sum())) / total,
        bound=float(doubtful.sum()) / total,  # half of them may go either way; total counts pairs twice
    )


def within_site(federation: Federation, *, time_step: float | None = None) -> list[Concordance]:
    """C over pairs of patients of the same site, of every model; one sum of five numbers a model.

    Raises
    ------
    Undefined
        No comparable pair at any site.
    """
    moments = federation.sum(pairs_within_site, time_step=time_step).moments.astype(float)
    if not moments[:, 1].all():
        raise Undefined("a C-index needs a pair of patients of whom one has the event before the other's time")
    found = []
    for a, b, aa, ab, bb in moments * [0.5, 1, 0.25, 0.5, 1]:
        residual = max(aa - 2 * a / b * ab + (a / b) ** 2 * bb, 0.0)
        found.append(Concordance(estimate=a / b, standard_error=2 * float(np.sqrt(residual)) / b, bound=0.0))
    return found


def later(patients: Counts) -> Counts:
    """Patients later than an event of each interval, by score cell, (points + 1, cells)."""
    everyone = patients.sum(1)
    return np.cumsum(everyone[::-1], 0)[::-1] - patients[:, 1]  # from here on, but not the events of this time


def pairs(patients: Counts, weight: Array | None = None) -> tuple[Array, Array]:
    """Concordant and comparable pairs of a patient in each cell of a joint table, both of the table's shape.

    A pair counts with the `weight` of the interval of its earlier time, (points + 1,); unset: 1.
    """
    after = later(patients)
    events = patients[:, 1] if weight is None else patients[:, 1] * weight[:, None]
    died = np.cumsum(events, 0)  # events up to this interval, for those censored in it
    earlier = np.stack([died, died - events], 1)
    below = np.cumsum(after, 1) - after / 2
    above = earlier.sum(2, keepdims=True) - np.cumsum(earlier, 2) + earlier / 2
    concordant, comparable = above, np.broadcast_to(earlier.sum(2, keepdims=True), patients.shape).astype(float)
    own = 1 if weight is None else weight[:, None]
    concordant[:, 1] += own * below
    comparable[:, 1] += own * after.sum(1, keepdims=True)
    return concordant, comparable


def observed(total: Exits) -> Array:
    """Probability of not being censored up to and including each time cell, (cells,) (Kaplan-Meier of the censoring).

    Deaths of a cell leave before its censorings, as in scikit-survival, whose weights these are.
    """
    staying = at_risk(total.exits) - total.events
    censored = total.exits - total.events
    return np.cumprod(
        1.0 - np.divide(censored, staying, out=np.zeros(len(staying)), where=staying > 0), dtype=np.float64
    )


def points(total: Exits, horizons: Counts) -> Counts:
    """Time cells that a joint table is cut at: all with an event, and the first one after each horizon."""
    return np.union1d(np.flatnonzero(total.events), horizons + 1)


def auc_at(patients: Counts, points: Counts, observed: Array, horizon: int) -> float:
    """Cumulative/dynamic AUC: those with the event by the horizon against those still followed, one model.

    Events are weighted with the inverse probability of having been observed (Uno et al. 2007).

    Parameters
    ----------
    patients : (points + 1, 2, cells)
    points : (k,)
        From `points`.
    observed : (time cells,)
    horizon : int
        A time cell.

    Raises
    ------
    Undefined
        No event by the horizon, or nobody followed beyond it.
    """
    beyond = int(np.searchsorted(points, horizon, side="right"))  # index of the point after the horizon
    events, controls = patients[1 : beyond + 1, 1], patients[beyond + 1 :].sum((0, 1))
    if not events.any() or not controls.any():  # without controls the last cases may have been observed by nobody
        raise Undefined("needs patients with the event by this time and patients followed beyond it")
    weight = np.zeros(beyond)
    seen = events.any(1)
    weight[seen] = 1 / observed[points[:beyond][seen]]
    cases = weight @ events
    return float(cases @ (np.cumsum(controls) - controls / 2) / cases.sum() / controls.sum())


def brier(
    federation: Federation, total: Exits, horizons: Counts, baseline_survival: Array, *, time_step: float
) -> Array:
    """Brier score of predicted survival at the horizons, weighted for censoring, (models, horizons); one sum.

    NaN where nobody is followed beyond the horizon.
    """
    probability = observed(total)
    inside = np.minimum(horizons, len(probability) - 1)
    exist = horizons < len(probability) - 1
    if not exist.any():
        return np.full(baseline_survival.shape, np.nan)
    at_horizon = np.where(exist, probability[inside], 0.0)
    died = np.flatnonzero(total.events)
    # a death on the day that the last are censored may have weight 1 / 0, but lies after any horizon that exists
    own = np.where(probability[died] > 0, probability[died], 1.0)
    patients = float(total.exits.sum())
    smallest = min([*own, *at_horizon[at_horizon > 0], 1.0])
    sums = federation.sum(
        squared_errors,
        bound=max(DEFAULT_BOUND, patients / smallest),
        horizons=horizons,
        baseline_survival=baseline_survival,
        points=died,
        observed=own,
        observed_at_horizon=at_horizon,
        time_step=time_step,
    ).sums
    return np.where(exist, sums / patients, np.nan)
