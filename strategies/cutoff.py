"""Cut-offs: choosing one on the training part, and counting who lies above it on any part.

A patient is called positive (high risk) when score >= cut-off. Counts at a public cut-off are exact whatever the score
resolution.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import score_bins
from cohortium.strategies.rows import Array, Counts, Scored
from cohortium.strategies.score_bins import GRID, Scale, grid
from cohortium.strategies.wald import interval


def on_grid(cutoff: Array) -> Counts:
    """Smallest grid value at or above each cut-off, so that grid >= it exactly where score >= cut-off."""
    return np.ceil(np.asarray(cutoff, float) * GRID - 1e-6).astype(np.int64)  # 0.29 * 1e4 = 2900.0000000000005


# --- at each site ---------------------------------------------------------------------------------------------


class Above(NamedTuple):
    """Patients whose score is at or above a threshold."""

    patients: Counts  # (models, 2, thresholds), by outcome
    total: Counts  # (2,)


@statistic("cutoff.above", adds_over="rows")
def above(rows: Scored, *, thresholds: Counts) -> Above:
    """Count patients with grid score >= threshold, by outcome; thresholds (models, k) in grid units."""
    outcome = rows.y.astype(np.int64)
    patients = np.zeros((len(thresholds), 2, thresholds.shape[1]), np.int64)
    for m, cuts in enumerate(thresholds):
        for k in (0, 1):
            scores = np.sort(grid(rows.score[outcome == k, m]))
            patients[m, k] = len(scores) - np.searchsorted(scores, cuts, side="left")
    return Above(patients, np.bincount(outcome, minlength=2))


# --- at the server --------------------------------------------------------------------------------------------


def median(federation: Federation, models: int, *, scale: Scale) -> Array:
    """Each model's smallest grid value with at least half of the patients at or below it, (models,).

    2 sums for probabilities, about 3 for linear predictors: each splits the cell that holds the median.

    Raises
    ------
    Undefined
        No patients.
    """
    cells = [score_bins.start(scale)] * models
    while True:
        counts = federation.sum(score_bins.occupancy, edges=cells).patients
        if not counts[0].sum():
            raise Undefined("a median needs patients")
        at = [int(np.argmax(2 * np.cumsum(n) >= n.sum())) for n in counts]
        spans = [_span(lower, i) for lower, i in zip(cells, at, strict=True)]
        if all(high - low <= 1 for low, high in spans):
            return np.array([low for low, _ in spans]) / GRID
        cells = [_inside(low, high) for low, high in spans]


def _span(lower: Counts, i: int) -> tuple[int, int]:
    return int(lower[i]), int(lower[i + 1]) if i + 1 < len(lower) else int(lower[i]) + 1


def _inside(low: int, high: int) -> Counts:
    """Cells of the interval that holds the median, with one for everything below it and one for everything above."""
    pieces = min(high - low, 128)
    return np.concatenate([[low - 1], low + np.arange(pieces + 1) * (high - low) // pieces])


def youden(patients: Counts, lower: Counts) -> float:
    """Cut-off with the largest sensitivity + specificity - 1 (Youden, Cancer 1950); of equals the highest.

    Parameters
    ----------
    patients : (2, cells)
        Training counts of one model.
    lower : (cells,)
        Lower edges in grid units.

    Raises
    ------
    Undefined
        One class only.
    """
    if not patients.sum(1).all():
        raise Undefined("Youden's cut-off needs patients with and without the outcome")
    called = np.cumsum(patients[:, ::-1], 1) / patients.sum(1)[:, None]
    index = np.where((patients.sum(0) > 0)[::-1], called[1] - called[0], -np.inf)
    # two cells whose index differs only by rounding are equal
    best = int(np.argmax(index >= index.max() - 1e-12))
    return float(lower[patients.shape[1] - 1 - best] / GRID)


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Counts at one cut-off."""

    tp: int
    fp: int
    tn: int
    fn: int

    @classmethod
    def of(cls, positive: Counts, total: Counts) -> "Confusion":
        """From patients at or above the cut-off and all patients, both (2,) by outcome."""
        fp, tp = (int(n) for n in positive)
        return cls(tp=tp, fp=fp, tn=int(total[0]) - fp, fn=int(total[1]) - tp)

    def shares(self) -> dict[str, tuple[int, int]]:
        """Numerator and denominator of each figure."""
        return {
            "sensitivity": (self.tp, self.tp + self.fn),
            "specificity": (self.tn, self.tn + self.fp),
            "ppv": (self.tp, self.tp + self.fp),
            "npv": (self.tn, self.tn + self.fn),
            "accuracy": (self.tp + self.tn, self.tp + self.fp + self.tn + self.fn),
        }

    def f1(self) -> tuple[float, tuple[float, float]] | Undefined:
        """F1 = 2 TP / (2 TP + FP + FN) and its 95 % interval.

        F1 is 2 J / (1 + J) of the share J = TP / (TP + FP + FN), whose Wilson interval is carried over.
        """
        among = self.tp + self.fp + self.fn
        if not among:
            return Undefined("nobody has the outcome, and nobody is called so")
        low, value, high = (2 * j / (1 + j) for j in np.insert(wilson(self.tp, among), 1, self.tp / among).tolist())
        return value, (low, high)

    def ratios(self) -> dict[str, tuple[float, tuple[float, float]] | Undefined]:
        """Likelihood ratios (Simel, Samsa & Matchar, J Clin Epidemiol 1991) and diagnostic odds ratio (Woolf).

        Each with its 95 % interval on the log scale; `Undefined` where a count that it divides by or takes the
        logarithm of is 0.
        """
        tp, fp, tn, fn = self.tp, self.fp, self.tn, self.fn
        with_event, without = tp + fn, tn + fp
        return {
            "positive_likelihood_ratio": _ratio(tp * without, fp * with_event, (tp, fp), (with_event, without)),
            "negative_likelihood_ratio": _ratio(fn * without, tn * with_event, (fn, tn), (with_event, without)),
            "diagnostic_odds_ratio": _ratio(tp * tn, fp * fn, (tp, fp, tn, fn), ()),
        }


def _ratio(
    over: int, under: int, plus: tuple[int, ...], minus: tuple[int, ...]
) -> tuple[float, tuple[float, float]] | Undefined:
    """A ratio whose logarithm has the variance sum of 1 / plus - sum of 1 / minus."""
    if not all((*plus, *minus)):
        return Undefined("one of the counts that it is made of is 0")
    error = float(np.sqrt(sum(1 / n for n in plus) - sum(1 / n for n in minus)))
    low, high = interval(0.0, error)
    return over / under, (over / under * float(np.exp(low)), over / under * float(np.exp(high)))


def wilson(of: int, among: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (JASA 1927), without continuity correction."""
    z2 = float(stats.norm.ppf((1 + level) / 2)) ** 2
    centre = (of + z2 / 2) / (among + z2)
    half = float(np.sqrt(z2 * (of * (among - of) / among + z2 / 4)) / (among + z2))
    return max(0.0, centre - half), min(1.0, centre + half)
