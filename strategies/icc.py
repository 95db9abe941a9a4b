"""ICC: how well repeated measurements of a feature agree, from one sum: ICC(1,1), ICC(2,1) and ICC(3,1).

Analysis of variance of n patients by k measurements (Shrout & Fleiss, Psychological Bulletin 86:420, 1979). ICC(1,1)
takes measurements of a patient for interchangeable, as contours perturbed at random are; of measurements that are the
same k in every patient, ICC(2,1) counts a shift between them as disagreement and ICC(3,1) does not. The intervals are
those of McGraw & Wong (Psychological Methods 1:30, 1996, table 7). Of perturbed contours the stable features
are kept (often ICC > 0.75).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Array, Counts

TAIL = 0.025


class Repeated(NamedTuple):
    """Features measured k times in each patient: x (n, p, k) float64, NaN = missing."""

    x: Array


class Agreement(NamedTuple):
    """Sums over the patients in whom all measurements of a feature are known."""

    patients: Counts  # (p,)
    total: Array  # (p, k)
    squared_means: Array  # (p,), of the patients' means
    squares: Array  # (p,)


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("icc.agreement", adds_over="rows")
def agreement(rows: Repeated, *, centre: Array, scale: Array) -> Agreement:
    """Sums of a site's measurements.

    Parameters
    ----------
    centre, scale : (p,)
        Roughly mean and standard deviation; they keep fixed point fine and cancel from the result.
    """
    # Of the values as they are: a scale so small that some of them overflow would count patients in a window
    known: NDArray[np.bool_] = np.all(np.isfinite(rows.x), axis=2)
    z = np.where(known[:, :, None], (rows.x - centre[:, None]) / scale[:, None], 0.0)
    return Agreement(known.sum(axis=0), z.sum(axis=0), (z.mean(axis=2) ** 2).sum(axis=0), (z**2).sum(axis=(0, 2)))


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Icc:
    """Agreement of each feature, (p,), and its 95 % confidence interval, (p, 2).

    NaN where it is undefined: below two patients, or nothing varies.
    """

    icc_1_1: Array  # absolute agreement of single measurements, of any k measurements a patient
    ci_1_1: Array
    icc_2_1: Array  # absolute agreement of single measurements, measurements random
    ci_2_1: Array
    icc_3_1: Array  # consistency of single measurements, measurements fixed
    ci_3_1: Array
    n: Counts


def fit(federation: Federation, centre: Array, scale: Array) -> Icc:
    """Intraclass correlations of the features of `Repeated` rows. One sum."""
    at = federation.sum(agreement, centre=np.asarray(centre), scale=np.asarray(scale))
    n, k = at.patients, at.total.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        of_mean = at.total.sum(axis=1) ** 2 / (n * k)
        between_patients = k * at.squared_means - of_mean
        between_measurements = (at.total**2).sum(axis=1) / n - of_mean
        patients = between_patients / (n - 1)
        measurements = between_measurements / (k - 1)
        within = np.maximum(at.squares - k * at.squared_means, 0) / (n * (k - 1))
        left = at.squares - of_mean - between_patients - between_measurements
        error = np.maximum(left, 0) / ((n - 1) * (k - 1))  # below zero by rounding only
        exists = (n >= 2) & (at.squares > 0)
        absolute = (patients - error) / (patients + (k - 1) * error + k * (measurements - error) / n)
        single, single_interval = _ratio(patients, within, k, n - 1, n * (k - 1))
        consistent, consistent_interval = _ratio(patients, error, k, n - 1, (n - 1) * (k - 1))
        absolute_interval = _of_absolute(absolute, patients, measurements, error, n, k)
    return Icc(
        icc_1_1=np.where(exists, single, np.nan),
        ci_1_1=np.where(exists[:, None], single_interval, np.nan),
        icc_2_1=np.where(exists, absolute, np.nan),
        ci_2_1=np.where(exists[:, None], absolute_interval, np.nan),
        icc_3_1=np.where(exists, consistent, np.nan),
        ci_3_1=np.where(exists[:, None], consistent_interval, np.nan),
        n=n,
    )


def _ratio(patients: Array, other: Array, k: int, df: Counts, df_other: Counts) -> tuple[Array, Array]:
    """Correlation that a ratio of mean squares tells, (p,), and its interval by quantiles of F, (p, 2)."""

    def of(f: Array | float) -> Array:
        return (patients - f * other) / (patients + (k - 1) * f * other)

    low, high = of(stats.f.isf(TAIL, df, df_other)), of(1 / stats.f.isf(TAIL, df_other, df))
    return of(1.0), np.column_stack([low, high])


def _of_absolute(icc: Array, patients: Array, measurements: Array, error: Array, n: Counts, k: int) -> Array:
    """Interval of ICC(2,1), (p, 2); the degrees of freedom of its denominator are Satterthwaite's."""
    a, b = k * icc * measurements, (n * (1 - icc) + k * icc * (n - 1)) * error
    spread = a**2 / (k - 1) + b**2 / ((n - 1) * (k - 1))
    df = np.where(spread > 0, (a + b) ** 2 / spread, 1.0)
    rest = k * measurements + (k * n - k - n) * error

    def of(f: Array) -> Array:
        return n * (patients - f * error) / (f * rest + n * patients)

    return np.column_stack([of(stats.f.isf(TAIL, n - 1, df)), of(1 / stats.f.isf(TAIL, df, n - 1))])
