"""Standardised: the way back from coefficients of standardised columns to those of the columns as they are."""

import numpy as np

from cohortium.strategies.rows import Array


def to_raw(centre: Array, scale: Array) -> Array:
    """Coefficients (intercept first) of x from those of (x - centre) / scale, as a matrix (p + 1, p + 1)."""
    back = np.diag(np.concatenate([[1.0], 1 / scale]))
    back[0, 1:] = -centre / scale
    return back
