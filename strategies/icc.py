"""ICC: how well repeated measurements of a feature agree, from one sum: ICC(2,1) and ICC(3,1).

Two-way analysis of variance of n patients by k measurements (Shrout & Fleiss, Psychological Bulletin 86:420, 1979):
ICC(2,1) counts a shift between measurements as disagreement, ICC(3,1) does not. Meant for features of perturbed or
repeated contours, of which the stable ones are kept (often ICC > 0.75).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Array, Counts


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
    z = (rows.x - centre[:, None]) / scale[:, None]
    known: NDArray[np.bool_] = np.all(np.isfinite(z), axis=2)
    z = np.where(known[:, :, None], z, 0.0)
    return Agreement(known.sum(axis=0), z.sum(axis=0), (z.mean(axis=2) ** 2).sum(axis=0), (z**2).sum(axis=(0, 2)))


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Icc:
    """Agreement of each feature; arrays are (p,). NaN where it is undefined: below two patients, or nothing varies."""

    icc_2_1: Array  # absolute agreement of single measurements, measurements random
    icc_3_1: Array  # consistency of single measurements, measurements fixed
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
        error = (at.squares - of_mean - between_patients - between_measurements) / ((n - 1) * (k - 1))
        consistency = (patients - error) / (patients + (k - 1) * error)
        absolute = (patients - error) / (patients + (k - 1) * error + k * (measurements - error) / n)
    exists = (n >= 2) & (at.squares > 0)
    return Icc(icc_2_1=np.where(exists, absolute, np.nan), icc_3_1=np.where(exists, consistency, np.nan), n=n)
