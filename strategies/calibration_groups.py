"""Calibration groups: patients in groups of rising score, from the score histogram, and what is read from them.

The points of the calibration curve, the Hosmer-Lemeshow test (Applied Logistic Regression, section 5.2.2), expected
calibration error and the ratio of observed to expected events. No sum of their own.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.strategies.rows import Array, Counts
from cohortium.strategies.score_bins import GRID
from cohortium.strategies.wald import interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """Patients in groups of rising score; arrays are (groups,)."""

    patients: Counts
    events: Counts
    predicted: Array  # sum of the scores


def groups(patients: Counts, score_sum: Counts, *, wanted: int = 10, minimum: int = 1) -> Groups:
    """Put whole cells into about `wanted` groups of equal size.

    A cell belongs to group floor(wanted * (patients in lower cells) / n), so tied scores stay together; a group with
    fewer than `minimum` patients joins the one below (the lowest joins the one above).

    Parameters
    ----------
    patients : (2, cells)
    score_sum : (cells,), in grid units
    """
    held = patients.sum(0)
    group = wanted * (np.cumsum(held) - held) // max(int(held.sum()), 1)
    sums = np.stack([np.bincount(group, v, wanted + 1) for v in (held, patients[1], score_sum)]).astype(np.int64)
    kept: list[Counts] = []
    for column in sums[:, sums[0] > 0].T:
        if kept and (column[0] < minimum or kept[-1][0] < minimum):
            kept[-1] = kept[-1] + column
        else:
            kept.append(column)
    table = np.array(kept, np.int64).reshape(-1, 3)
    return Groups(patients=table[:, 0], events=table[:, 1], predicted=table[:, 2] / GRID)


def hosmer_lemeshow(of: Groups, *, cohort: Literal["development", "validation"]) -> tuple[float, int, float]:
    """Chi-squared, degrees of freedom and p (Hosmer & Lemeshow, Applied Logistic Regression, section 5.2.2).

    The degrees of freedom are groups - 2 where the model was developed, and groups on other patients.

    Raises
    ------
    Undefined
        Too few groups, or a group whose predicted events are none or all.
    """
    variance = of.predicted * (1 - of.predicted / of.patients)
    df = len(of.patients) - (2 if cohort == "development" else 0)
    if df < 1:
        raise Undefined(
            f"the Hosmer-Lemeshow test needs more than the {len(of.patients)} groups that these scores form"
        )
    if not (variance > 0).all():
        raise Undefined("a group of the Hosmer-Lemeshow test has a predicted risk of 0 or 1 throughout")
    chi2 = float(((of.events - of.predicted) ** 2 / variance).sum())
    return chi2, df, float(stats.chi2.sf(chi2, df))


def expected_calibration_error(of: Groups) -> float:
    """Mean distance of a group's share of events from its mean score, weighted by its patients."""
    return float(np.abs(of.events - of.predicted).sum() / of.patients.sum())


def observed_to_expected(of: Groups) -> tuple[float, tuple[float, float]]:
    """Events over the sum of the scores, and its 95 % interval on the log scale (Debray et al., BMJ 2017).

    Raises
    ------
    Undefined
        No events or only events, or scores that are all 0.
    """
    n, events, expected = of.patients.sum(), of.events.sum(), of.predicted.sum()
    if not 0 < events < n or expected == 0:
        raise Undefined("a ratio of observed to expected events needs patients with and without the outcome")
    ratio, error = float(events / expected), float(np.sqrt((1 - events / n) / events))
    low, high = interval(0.0, error)
    return ratio, (ratio * float(np.exp(low)), ratio * float(np.exp(high)))
