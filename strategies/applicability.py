"""Applicability: how sure a regression is of a new patient's score, and whether the training patients were like them.

The variance of a linear predictor is x'Vx, V the covariance of the coefficients (delta method: the interval is made on
this scale and carried to the risk). V also remembers where the training patients were. The information of a logistic
regression is V^-1 = sum of w (1, x)(1, x)', w = p (1 - p): its corner is the weight W of all patients, the first row
over W their weighted mean m, and W V's slopes are the inverse of their weighted covariance. So

    d2 = W (x - m)' V_slopes (x - m)

is the squared Mahalanobis distance of a patient from the training patients, near chi-square with a degree of freedom a
column where these are about normal. A Cox model's information is a sum of covariances, one an event, over those at
risk: there W is the number of events and m the mean.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cohortium.strategies.rows import Array

LEVEL = 0.95
FAR = 3.0
"""Standard deviations from the mean of the training patients beyond which a value is named."""
RARE = 0.001
"""Share of like patients that lie beyond the distance from which one is called unlike them."""
FEW_PATIENTS = 10
"""Training patients below which a level is called rare."""


class Remembered(NamedTuple):
    """What a covariance says of the training patients: weight of all, and where they were, standardised (p,)."""

    information: float
    middle: Array


def remembered(covariance: Array, *, intercept: bool, events: int | None = None) -> Remembered:
    """Weight and middle of the training patients, from the covariance of standardised coefficients.

    Parameters
    ----------
    covariance : (1 + p, 1 + p) with `intercept`, intercept first; else (p, p)
    events : int, optional
        Of a Cox model, which has no intercept.
    """
    if not intercept:
        return Remembered(float(events or 0), np.zeros(len(covariance)))
    first = np.linalg.solve(covariance, np.eye(len(covariance))[:, 0])
    return Remembered(float(first[0]), first[1:] / first[0])


def standardised(covariance: Array, centre: Array, scale: Array, *, intercept: bool) -> Array:
    """Covariance of the coefficients of standardised columns, from that of the columns in study units."""
    if not intercept:
        return covariance * np.outer(scale, scale)
    forth = np.eye(len(covariance))
    forth[1:, 1:] = np.diag(scale)
    forth[0, 1:] = centre
    return forth @ covariance @ forth.T


def standard_error(z: Array, covariance: Array, *, intercept: bool) -> Array:
    """Of the linear predictor of each patient, (n,); z (n, p), standardised.

    Without an intercept (Cox) it is that of the difference from a patient with mean values.
    """
    x = np.column_stack([np.ones(len(z)), z]) if intercept else z
    return np.sqrt(np.einsum("ni,ij,nj->n", x, covariance, x).clip(0))


def half_width(degrees_of_freedom: float | None) -> float:
    """Standard errors on either side of an estimate that make an interval of `LEVEL`."""
    law = stats.norm if degrees_of_freedom is None else stats.t(degrees_of_freedom)
    return float(law.ppf((1 + LEVEL) / 2))


def squared_distance(z: Array, covariance: Array, *, intercept: bool, known: Remembered) -> Array:
    """d2 of each patient, (n,); see the top of this file."""
    slopes = covariance[1:, 1:] if intercept else covariance
    away = z - known.middle
    return known.information * np.einsum("ni,ij,nj->n", away, slopes, away)


def far_columns(distances: Array) -> NDArray[np.int64]:
    """Columns of a feature set that are `FAR` from the mean, farthest first; none where chance explains them.

    Of a hundred columns a few are far in most patients. They are told where more of them are far, or one is farther,
    than in a share `RARE` of patients whose columns are independent and normal.

    Parameters
    ----------
    distances : (p,), in standard deviations
    """
    far = np.flatnonzero(np.abs(distances) > FAR)
    far = far[np.argsort(-np.abs(distances[far]), kind="stable")]
    columns = len(distances)
    many = len(far) > stats.binom.isf(RARE, columns, 2 * stats.norm.sf(FAR))
    farther = len(far) and abs(distances[far[0]]) > stats.norm.isf(RARE / (2 * columns))
    return far if many or farther else far[:0]


def farthest_likely(columns: int) -> float:
    """Squared distance beyond which a share `RARE` of patients like those in training lies."""
    return float(stats.chi2.ppf(1 - RARE, columns))
