"""Noisy logistic: logistic regression by gradient sums of which each patient's share is clipped, for noise to hide it.

Each patient's gradient is clipped to a Euclidean length (Abadi et al., Deep learning with differential privacy, CCS
2016) and cut to a public grid of integers, so that noise from `discrete_gaussian` bounds what one patient can change.
The server climbs with AdaGrad steps (Duchi, Hazan & Singer, JMLR 2011), which need to know neither the number of
patients nor the size of the noise. Not equal to a pooled fit: that is the price.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from cohortium.common.errors import SumRefused
from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Array, Counts, Labelled

GRID = 1 << 16
"""Steps of the integer grid in a gradient of 1."""
LARGEST_CLIP = 1 << 10
STEP = 0.5  # of the first AdaGrad step in each coefficient of columns between -1 and 1

# --- at each site ---------------------------------------------------------------------------------------------


class Gradient(NamedTuple):
    """Sum of clipped gradients of the log-likelihood, intercept first, in steps of 1 / GRID."""

    gradient: Counts  # (p + 1,)


def _moved_by_one(shape: Gradient, *, clip: float, **_: object) -> float:
    """A patient leaves and another comes: twice the clip, and twice the rounding to the grid (half a step a column)."""
    return 2 * clip * GRID + 2 * math.sqrt(shape.gradient.size)


@statistic("noisy_logistic.gradient", adds_over="rows", sensitivity=_moved_by_one)
def gradient(rows: Labelled, *, coefficients: Array, clip: float) -> Gradient:
    """Sum a site's clipped gradients; a patient whose gradient is not finite adds nothing.

    Parameters
    ----------
    coefficients : (p + 1,)
        Intercept first.
    clip : float
        Largest Euclidean length of one patient's gradient.
    """
    if not 0 < clip <= LARGEST_CLIP:
        raise SumRefused("noisy_logistic.gradient", f"clip must be above 0 and at most {LARGEST_CLIP}")
    x = np.column_stack([np.ones(len(rows.x)), rows.x])
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left out below
        own = (rows.y - special.expit((x * coefficients).sum(1)))[:, None] * x
        length = np.sqrt((own**2).sum(1))
        own = own * np.minimum(1, clip / np.maximum(length, np.finfo(float).tiny))[:, None]
    own[~np.isfinite(own).all(1)] = 0
    return Gradient(np.rint(own * GRID).astype(np.int64).sum(0))


# --- at the server --------------------------------------------------------------------------------------------


def fit(federation: Federation, columns: int, *, clip: float, rounds: int) -> Array:
    """Coefficients, intercept first, (columns + 1,): the mean of the second half of the steps. One sum a step.

    Parameters
    ----------
    columns : int
        Of `Labelled` rows, each between -1 and 1.
    clip : float
    rounds : int
    """
    at = np.zeros(columns + 1)
    squares = np.zeros(columns + 1)
    visited = []
    for _ in range(rounds):
        slope = federation.sum(gradient, coefficients=at, clip=clip).gradient / GRID
        squares += slope**2
        at = at + STEP * slope / np.sqrt(np.maximum(squares, 1 / GRID**2))
        visited.append(at)
    return np.mean(visited[rounds // 2 :], axis=0)
