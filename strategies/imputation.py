"""Imputation: what fills a gap, and the moments of the completed column, from sums over the training patients.

A gap is filled with one public value a column (median, mean, most frequent level), so the mean and the standard
deviation of the completed column follow from those of the known values; no further sum is needed. The local half is the
filling itself (`views.design`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def completed_moments(n: Array, mean: Array, sd: Array, fill: Array, patients: int) -> tuple[Array, Array]:
    """Mean and standard deviation (ddof = 1) of columns once their gaps are filled.

    Parameters
    ----------
    n, mean, sd : (p,)
        Count, mean and standard deviation (ddof = 1) of the known values.
    fill : (p,)
        Value that fills the gaps.
    patients : int
        Rows, known or not.

    Returns
    -------
    mean, sd : (p,)
        Chan, Golub & LeVeque, The American Statistician 1983: two groups, one of them constant.
    """
    gaps = patients - n
    centre = (n * mean + gaps * fill) / max(patients, 1)
    squares = np.maximum(n - 1, 0) * sd**2 + n * (mean - centre) ** 2 + gaps * (fill - centre) ** 2
    return centre, np.sqrt(squares / max(patients - 1, 1))


def most_frequent(term_counts: Sequence[float], patients_known: float) -> NDArray[np.float64]:
    """Fill values of a categorical variable's terms: the dummy coding of its most frequent level.

    Parameters
    ----------
    term_counts : counts of the levels after the reference, in order
    patients_known : patients whose level is known; the rest of them have the reference level

    Returns
    -------
    (terms,) of 0.0 and 1.0; ties go to the earlier level.
    """
    counts = np.array([patients_known - sum(term_counts), *term_counts])
    fill = np.zeros(len(counts))
    fill[np.argmax(counts)] = 1.0
    return fill[1:]
