"""Class histogram: patients by outcome and by even cells of a predicted risk, and the AUC that noised counts tell.

The cells are public and the same for everyone, so that a patient is in one cell a model whatever the others' scores
are. The interval of the AUC adds the variance of the noise to DeLong's.
"""

import math
from typing import NamedTuple

import numpy as np

from cohortium.common.errors import SumRefused, Undefined
from cohortium.common.federation import statistic
from cohortium.strategies.rows import Counts, Scored
from cohortium.strategies.wald import interval

CELLS = 20
MOST_CELLS = 100

# --- at each site ---------------------------------------------------------------------------------------------


class ClassHistogram(NamedTuple):
    """Patients by model, outcome (0, 1) and cell."""

    patients: Counts  # (models, 2, cells)


def _moved_by_one(shape: ClassHistogram, **_: object) -> float:
    """A patient leaves one cell a model and another enters one."""
    return math.sqrt(2 * len(shape.patients))


@statistic("class_histogram.patients", adds_over="rows", sensitivity=_moved_by_one)
def patients(rows: Scored, *, cells: int) -> ClassHistogram:
    """Count a site's patients; scores beyond 0 and 1 are in the outermost cells, those that are no number in cell 0."""
    if not (isinstance(cells, int) and 2 <= cells <= MOST_CELLS):
        raise SumRefused("class_histogram.patients", f"cells must be a whole number from 2 to {MOST_CELLS}")
    score = np.clip(np.nan_to_num(rows.score, nan=0.0), 0, 1)
    at = np.minimum((score * cells).astype(np.int64), cells - 1)
    outcome = (rows.y > 0).astype(np.int64)
    models = rows.score.shape[1]
    slots = ((np.arange(models) * 2 + outcome[:, None]) * cells + at).ravel()
    return ClassHistogram(np.bincount(slots, minlength=models * 2 * cells).reshape(models, 2, cells))


# --- at the server --------------------------------------------------------------------------------------------


def noised_auc(counts: Counts, sigma: float, level: float = 0.95) -> tuple[float, tuple[float, float], float]:
    """AUC, its interval, and how far the binning can move it (half the share of pairs that fall into one cell).

    Parameters
    ----------
    counts : (2, cells)
        By outcome and cell; noised, so they may be negative. They are used as they are: setting them to zero would
        pull the AUC towards 0.5.
    sigma : float
        Standard deviation of the noise in each count.

    Raises
    ------
    Undefined
        The noise leaves too few patients of a class to say anything.
    """
    n = counts.sum(1)
    cells = counts.shape[1]
    if n.min() < 2 + 2 * sigma * math.sqrt(cells):  # two standard deviations of the noise in a class
        raise Undefined("the noise is as large as the number of patients of a class")
    below = np.cumsum(counts, 1) - counts / 2
    placement = np.stack([1 - below[1] / n[1], below[0] / n[0]])
    estimate = float((counts[1] * placement[1]).sum() / n[1])
    distance = (placement - estimate) ** 2
    drawn = (counts * distance).sum(1) / (n - 1) / n  # DeLong: which patients there are
    noise = sigma**2 * distance.sum(1) / n**2  # delta method: d AUC / d count = (placement - AUC) / n
    low, high = interval(estimate, math.sqrt(max(0.0, drawn.sum()) + noise.sum()), level)
    tied = float(np.abs(counts[0] * counts[1]).sum() / (n[0] * n[1]))
    return min(1.0, max(0.0, estimate)), (max(0.0, low), min(1.0, high)), tied / 2
