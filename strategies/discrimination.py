"""Discrimination: ROC curve, AUC with DeLong's variance, precision and recall, from counts of scores a cell.

One sum, `histogram`, carries them for all models. With one grid value a cell the figures are those of the pooled
patients; with wider cells two patients of one cell count as tied, and `Auc.bound` certifies how far that can move it.
DeLong, DeLong & Clarke-Pearson, Biometrics 1988; structural components from counts: Sun & Xu, IEEE SPL 2014.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Array, Counts, Scored
from cohortium.strategies.score_bins import GRID, cell, grid, widths
from cohortium.strategies.wald import interval

# --- at each site ---------------------------------------------------------------------------------------------


class Histogram(NamedTuple):
    """Scores beside outcomes; cells beyond a model's own are zero."""

    patients: Counts  # (folds, models, 2, cells): by fold, model, outcome (0, 1) and cell
    score_sum: Counts  # (models, cells), in grid units of 1e-4
    squared_error: Counts  # (models,): sum of (outcome - score)^2, in grid units squared
    accuracy: Array  # (models, 3): sums of (y - s)(1 - 2 s), of (1 - 2 s)^2 s (1 - s), and the log-likelihood


@statistic("discrimination.histogram", adds_over="rows")
def histogram(rows: Scored, *, edges: list[Counts], folds: int) -> Histogram:
    """Count patients by fold (``folds = 1``: all together), outcome and cell for every model; all exact integers."""
    models, most = len(edges), max(len(lower) for lower in edges)
    patients = np.zeros((folds, models, 2, most), np.int64)
    score_sum = np.zeros((models, most), np.int64)
    squared_error = np.zeros(models, np.int64)
    accuracy = np.zeros((models, 3))
    outcome = rows.y.astype(np.int64)
    fold = rows.fold if folds > 1 else np.zeros_like(rows.fold)
    for m, lower in enumerate(edges):
        cells, scores = cell(rows.score[:, m], lower), grid(rows.score[:, m])
        np.add.at(patients[:, m], (fold, outcome, cells), 1)
        np.add.at(score_sum[m], cells, scores)
        squared_error[m] = ((GRID * outcome - scores) ** 2).sum()
        s, tilt = scores / GRID, 1 - 2 * scores / GRID
        likely = np.where(outcome == 1, s, 1 - s).clip(1 / GRID, 1 - 1 / GRID)  # as `calibration.logit`
        accuracy[m] = ((rows.y - s) * tilt).sum(), (tilt**2 * s * (1 - s)).sum(), np.log(likely).sum()
    return Histogram(patients, score_sum, squared_error, accuracy)


class Placements(NamedTuple):
    """First and second moments of the patients' centred placement values."""

    first: Array  # (2, models)
    second: Array  # (2, models, models)


@statistic("discrimination.placements", adds_over="rows")
def placements(rows: Scored, *, edges: list[Counts], tables: Array) -> Placements:
    """Sum placements by class; `tables` (models, 2, cells) gives a patient's centred placement by outcome and cell."""
    outcome = rows.y.astype(np.int64)
    values = np.empty(rows.score.shape)
    for m, lower in enumerate(edges):
        values[:, m] = tables[m, outcome, cell(rows.score[:, m], lower)]
    of_class = [values[outcome == k] for k in (0, 1)]
    return Placements(np.stack([v.sum(0) for v in of_class]), np.stack([v.T @ v for v in of_class]))


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Auc:
    """Area under the ROC curve.

    ``bound`` is the largest distance from the AUC of the unbinned scores (half the share of case-control pairs that
    fall into one cell of several scores); ``placement`` (2, cells) holds, by outcome and cell, the share of the other
    class that a patient is ranked on the right side of.
    """

    estimate: float
    bound: float
    placement: Array
    patients: Counts  # (2, cells)

    @property
    def variance(self) -> float:
        """DeLong's variance.

        Raises
        ------
        Undefined
            Fewer than two patients of a class.
        """
        _needs(self.patients, 2, "the variance of an AUC")
        n = self.patients.sum(1)
        squares = (self.patients * (self.placement - self.estimate) ** 2).sum(1)
        return float((squares / (n - 1) / n).sum())

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal interval on the AUC's own scale, clipped to 0..1."""
        low, high = interval(self.estimate, float(np.sqrt(self.variance)), level)
        return max(0.0, low), min(1.0, high)


def auc(patients: Counts, lower: Counts) -> Auc:
    """AUC of one model; patients of one cell count as tied.

    Parameters
    ----------
    patients : (2, cells)
    lower : (cells,)
        Lower edges in grid units: patients in a cell of one grid value are tied indeed, and leave no doubt.

    Raises
    ------
    Undefined
        One class only.
    """
    _needs(patients, 1, "an AUC")
    below = np.cumsum(patients, 1) - patients / 2  # half of the own cell: a tie counts one half
    n0, n1 = patients.sum(1)
    placement = np.stack([1 - below[1] / n1, below[0] / n0])
    return Auc(
        estimate=float(patients[1] @ placement[1] / n1),
        bound=float((patients.prod(0) * (widths(lower, "probability") > 1)).sum() / n0 / n1 / 2),
        placement=placement,
        patients=patients,
    )


def roc(patients: Counts) -> Array:
    """ROC curve, (k + 1, 2) of false and true positive rate, one point an occupied cell, highest score first."""
    _needs(patients, 1, "a ROC curve")
    called = _called(patients) / patients.sum(1)[:, None]
    return np.vstack([[0.0, 0.0], called.T])


def precision_recall(patients: Counts) -> Array:
    """Precision-recall curve, (k, 2) of recall and precision, one point an occupied cell, highest score first."""
    _needs(patients, 1, "a precision-recall curve")
    called = _called(patients)
    return np.column_stack([called[1] / patients[1].sum(), called[1] / called.sum(0)])


def average_precision(patients: Counts) -> float:
    """Sum of precision over steps of recall (no interpolation)."""
    recall, precision = precision_recall(patients).T
    return float(np.diff(recall, prepend=0.0) @ precision)


def average_precision_interval(value: float, events: int, level: float = 0.95) -> tuple[float, float]:
    """Normal interval on the logit scale with standard error 1 / sqrt(events p (1 - p)) (Boyd, Eng & Page, ECML 2013).

    Raises
    ------
    Undefined
        An average precision of 1 has no logit.
    """
    if not 0 < value < 1:
        raise Undefined("an average precision of 0 or 1 has no interval on the logit scale")
    half = stats.norm.ppf((1 + level) / 2) / np.sqrt(events * value * (1 - value))
    low, high = special.expit(special.logit(value) + np.array([-half, half]))
    return float(low), float(high)


def _called(patients: Counts) -> Counts:
    """Patients at or above each occupied cell, by outcome, highest cell first."""
    return np.cumsum(patients[:, patients.any(0)][:, ::-1], 1)


def _needs(patients: Counts, least: int, what: str) -> None:
    events = int(patients[1].sum())
    others = int(patients[0].sum())
    if min(events, others) < least:
        each = "one patient" if least == 1 else f"{least} patients"
        raise Undefined(f"{what} needs at least {each} with and {each} without the outcome")


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """AUCs of several models on the same patients, with DeLong's joint covariance."""

    estimates: Array  # (models,)
    covariance: Array  # (models, models)

    def test(self, a: int, b: int, level: float = 0.95) -> tuple[float, tuple[float, float], float, float]:
        """DeLong's test of models a and b: difference a - b, its interval, z and two-sided p.

        Raises
        ------
        Undefined
            The difference has no variance: the two models rank every pair of patients alike.
        """
        difference = float(self.estimates[a] - self.estimates[b])
        variance = float(self.covariance[a, a] + self.covariance[b, b] - 2 * self.covariance[a, b])
        if variance <= 1e-14:  # a sum's rounding; a single discordant pair among 1e6 patients a class gives more
            raise Undefined("the two models rank every pair of patients alike, so their difference has no variance")
        error = float(np.sqrt(variance))
        z = difference / error
        return difference, interval(difference, error, level), z, float(2 * stats.norm.sf(abs(z)))


def paired(federation: Federation, edges: list[Counts], patients: Counts) -> Paired:
    """DeLong's covariance of all models; one sum.

    Parameters
    ----------
    edges : list of (cells,) int64
    patients : (models, 2, cells)
        Summed over folds.
    """
    areas = [auc(counts[:, : len(lower)], lower) for counts, lower in zip(patients, edges, strict=True)]
    tables = np.zeros(patients.shape)
    for area, table in zip(areas, tables, strict=True):
        _needs(area.patients, 2, "DeLong's test")
        table[:, : area.placement.shape[1]] = area.placement - area.estimate
    sums = federation.sum(placements, edges=edges, tables=tables)
    covariance = np.zeros((len(areas), len(areas)))
    for k, n in enumerate(patients[0].sum(1)):
        covariance += (sums.second[k] - np.outer(sums.first[k], sums.first[k]) / n) / (n - 1) / n
    return Paired(estimates=np.array([area.estimate for area in areas]), covariance=covariance)
