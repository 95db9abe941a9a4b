"""Survival calibration: predicted against observed risk at a horizon, calibration slope, and net benefit.

One sum beside those of the C-index: the sum of scores and of predicted risks in each score cell. Risk groups, observed
risks (Kaplan-Meier) and net benefit then follow from the joint table of times and cells, and so does the Cox model of
the score where a cell holds one score. Where cells are wider the mean of a cell's scores will not do for the slope (the
few highest scores weigh most, and their cell is the widest).
van Houwelingen, Stat Med 2000 (slope); Vickers et al., BMC Med Inform Decis Mak 2008 (net benefit with censoring);
McLernon et al., Ann Intern Med 2023.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import statistic
from cohortium.strategies.rows import Array, Counts, ScoredSurvival
from cohortium.strategies.score_bins import cell
from cohortium.strategies.survival import at_risk, kaplan_meier
from cohortium.strategies.wald import interval

GROUPS = 10
_LARGEST = 700.0  # exp(709) is the end of doubles; such a score predicts death or survival for certain

# --- at each site ---------------------------------------------------------------------------------------------


class CellSums(NamedTuple):
    """What the patients of each score cell are predicted; cells beyond a model's own are zero."""

    score: Array  # (models, cells)
    risk: Array  # (models, horizons, cells)


@statistic("survival_calibration.cell_sums", adds_over="rows")
def cell_sums(rows: ScoredSurvival, *, edges: list[Counts], baseline_survival: Array) -> CellSums:
    """Sum scores and predicted risks; `baseline_survival` (models, horizons) is that of a patient with score 0."""
    models, horizons = baseline_survival.shape
    most = max(len(lower) for lower in edges)
    score, risk = np.zeros((models, most)), np.zeros((models, horizons, most))
    for m, lower in enumerate(edges):
        at, own = cell(rows.score[:, m], lower), rows.score[:, m]
        score[m] = np.bincount(at, own, most)
        relative = np.exp(np.clip(own, -_LARGEST, _LARGEST))
        for h in range(horizons):
            risk[m, h] = np.bincount(at, 1 - baseline_survival[m, h] ** relative, most)
    return CellSums(score, risk)


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number with its standard error, on the scale on which its interval is symmetric."""

    value: float
    standard_error: float

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        return interval(self.value, self.standard_error, level)


def slope(patients: Counts, score: Array) -> Estimate:
    """Calibration slope: coefficient of the score in a Cox model of it alone (Efron ties).

    Parameters
    ----------
    patients : (points + 1, 2, cells)
        Joint table of one model.
    score : (cells,)
        Sum of the scores of each cell.

    Raises
    ------
    Undefined
        No finite maximum: no events, or scores that are alike, or that put every event in the right order.
    """
    n, deaths = patients.sum((0, 1)), patients[:, 1].sum(1)
    if not deaths.any():
        raise Undefined("a calibration slope needs events")
    held = n > 0
    x = np.divide(score, n, out=np.zeros(len(n)), where=held)
    x = np.where(held, x - score.sum() / n.sum(), 0.0)
    x = np.where(np.abs(x) < 1e-9, 0.0, x)  # scores lie on a grid of 1e-4
    if np.ptp(x[held]) < 1e-6:
        raise Undefined("all scores are alike")
    died = deaths > 0
    staying, dying = at_risk(patients.sum(1).T).T[died].astype(float), patients[died, 1].astype(float)
    index = np.repeat(np.arange(died.sum()), deaths[died])
    passed = np.concatenate([np.arange(d) / d for d in deaths[died]])[:, None]  # deaths of this time gone before
    total = float((dying @ x).sum())
    slope, powers = 0.0, np.stack([np.ones(len(x)), x, x * x], 1)
    for _ in range(100):
        weights = powers * np.exp(np.clip(slope * x, -_LARGEST / 4, _LARGEST / 4))[:, None]
        sums = (staying @ weights)[index] - passed * (dying @ weights)[index]
        mean = sums[:, 1] / sums[:, 0]
        gradient, information = total - float(mean.sum()), float((sums[:, 2] / sums[:, 0] - mean**2).sum())
        if information <= 1e-8 * len(index) * x.var():
            break
        step = float(np.clip(gradient / information, -1, 1))
        slope += step
        if abs(step) < 1e-11 * max(1.0, abs(slope)):
            return Estimate(value=slope, standard_error=information**-0.5)
    raise Undefined("the slope is not finite: the scores put the events in order without a fault")


@dataclass(frozen=True, kw_only=True, slots=True)
class AtHorizon:
    """Risk of one cohort at one horizon."""

    expected: float
    observed: float
    ratio: float  # observed / expected
    ratio_interval: tuple[float, float]
    curve: tuple[tuple[float, float, float, float, int], ...]  # mean predicted, observed, its limits, patients


def at_horizon(patients: Counts, points: Counts, risk: Array, horizon: int, *, minimum_count: int) -> AtHorizon:
    """Observed against expected risk, in all patients and in about ten groups of predicted risk.

    The interval of O/E is symmetric on the log scale, with Greenwood's variance of the observed risk; what was expected
    counts as fixed. A cell belongs to group floor(10 x patients in lower cells / n); a group of which fewer than
    `minimum_count` are followed beyond the horizon joins its neighbour.

    Parameters
    ----------
    patients : (points + 1, 2, cells)
        Joint table of one model.
    points : (points,)
        The first point after the horizon is among them.
    risk : (cells,)
        Sums of predicted risk.
    horizon : int
        A time cell.

    Raises
    ------
    Undefined
        Fewer than `minimum_count` are followed beyond the horizon, or nobody had the event by then.
    """
    last = int(np.searchsorted(points, horizon, side="right")) + 1  # the horizon lies in the interval before
    n = patients.sum((0, 1))
    beyond = patients[last:].sum((0, 1))
    if beyond.sum() < max(minimum_count, 1):
        raise Undefined(f"fewer than {max(minimum_count, 1)} patients are followed beyond this time")
    survival, variance = _survival(patients, last)
    if survival >= 1:
        raise Undefined("nobody had the event by this time")
    expected, observed = float(risk.sum() / n.sum()), 1 - survival
    if expected <= 0:
        raise Undefined("no risk is predicted")
    half = float(stats.norm.ppf(0.975)) * np.sqrt(variance) * survival / observed
    ratio = observed / expected
    curve = []
    for group in _groups(n, beyond, max(minimum_count, 1)):
        shown = kaplan_meier(*_counts(patients[:, :, group], last))
        curve.append(
            (
                float(risk[group].sum() / n[group].sum()),
                *(1 - float(values[-1]) for values in (shown.survival, shown.upper, shown.lower)),
                int(n[group].sum()),
            )
        )
    return AtHorizon(
        expected=expected,
        observed=observed,
        ratio=ratio,
        ratio_interval=(float(ratio * np.exp(-half)), float(ratio * np.exp(half))),
        curve=tuple(curve),
    )


def _counts(patients: Counts, last: int) -> tuple[Array, Counts, Counts]:
    """Time (as positions), events and at risk of some cells, up to a horizon."""
    leaving = patients.sum((1, 2))
    return np.arange(last, dtype=float), patients[:last, 1].sum(1), at_risk(leaving)[:last]


def _survival(patients: Counts, last: int) -> tuple[float, float]:
    """Kaplan-Meier survival of some cells at a horizon, and the variance of its logarithm (Greenwood)."""
    _, events, n = _counts(patients, last)
    d, n = events[events > 0].astype(float), n[events > 0].astype(float)
    variance = np.divide(d, n * (n - d), out=np.zeros_like(d), where=n > d).sum()
    return float(np.prod(1 - d / n)), float(variance)


def _groups(n: Counts, beyond: Counts, minimum_count: int) -> list[Counts]:
    """Cells of each group of predicted risk, lowest first."""
    below = np.cumsum(n) - n
    number = below * GROUPS // max(int(n.sum()), 1)
    found: list[list[int]] = [[]]
    for c in np.flatnonzero(n):
        full = beyond[found[-1]].sum() >= minimum_count and beyond[c:].sum() >= minimum_count
        if found[-1] and number[c] != number[found[-1][-1]] and full:
            found.append([])
        found[-1].append(int(c))
    return [np.array(group, np.int64) for group in found]


class NetBenefit(NamedTuple):
    """A decision curve."""

    thresholds: Array
    net_benefit: Array
    treat_all: Array


def net_benefit(patients: Counts, points: Counts, risk: Array, horizon: int, thresholds: Sequence[float]) -> NetBenefit:
    """Net benefit at a horizon of acting on a predicted risk, with Kaplan-Meier in those called positive.

    A cell is positive where its mean predicted risk reaches the threshold. Thresholds at which nobody of the positive
    is followed beyond the horizon are left out.

    Raises
    ------
    Undefined
        Nobody is followed beyond the horizon.
    """
    last = int(np.searchsorted(points, horizon, side="right")) + 1
    n, beyond = patients.sum((0, 1)), patients[last:].sum((0, 1))
    if not beyond.any():
        raise Undefined("nobody is followed beyond this time")
    held = n > 0
    mean = np.where(held, np.divide(risk, n, out=np.zeros(len(n)), where=held), -1.0)
    everyone, found = _survival(patients, last)[0], []
    for threshold in thresholds:
        odds = threshold / (1 - threshold)
        positive = mean >= threshold - 1e-12
        share = float(n[positive].sum() / n.sum())
        if share and not beyond[positive].any():
            continue
        survival = _survival(patients[:, :, positive], last)[0] if share else 1.0
        found.append((threshold, share * (1 - survival - survival * odds), 1 - everyone - everyone * odds))
    return NetBenefit(*np.array(found, float).reshape(-1, 3).T)
