"""Correlation: Pearson's r of all pairs of features across sites, and the features that are not redundant.

One sum of cross-products. A Gram matrix of p features over N patients fixes the rows up to a rotation once p reaches
N: the caller asks for at most N / 4 features, after screening; a site refuses more.
"""

from typing import Literal, NamedTuple

import numpy as np

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import triangle
from cohortium.strategies.rows import Array, Counts, Labelled, Matrix


class Gram(NamedTuple):
    """Cross-products of p columns over some patients."""

    patients: Counts  # ()
    total: Array  # (p,)
    products: Array  # (p (p + 1) / 2,), upper triangle


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("correlation.cross_products", adds_over="rows")
def cross_products(rows: Matrix | Labelled) -> Gram:
    """Sums of the columns and of their products at a site; x standardised, no NaN."""
    return Gram(np.asarray(len(rows.x)), rows.x.sum(axis=0), triangle.upper(rows.x.T @ rows.x))


# --- at the server --------------------------------------------------------------------------------------------


def gram(federation: Federation) -> Array:
    """Pearson correlation of the columns, (p, p); a constant column has 0 with all others. One sum.

    The columns come standardised, so that the products pass through fixed point; what their means and spreads still
    miss is put right here.

    Raises
    ------
    NotIdentifiable
        Fewer than two patients.
    """
    return pearson(federation.sum(cross_products))


def pearson(at: Gram) -> Array:
    """Correlation from cross-products of standardised columns, (p, p); no sum. Raises as `gram`."""
    if at.patients < 2:
        raise NotIdentifiable(f"correlation: {int(at.patients)} patients in this cohort; two are needed")
    covariance = triangle.symmetric(at.products) - np.outer(at.total, at.total) / at.patients
    spread = np.sqrt(np.diag(covariance).clip(0))
    constant = spread <= 1e-6 * np.sqrt(at.patients)  # standardised columns have sqrt(n - 1); the rest is rounding
    correlation = (covariance / np.outer(*[np.where(constant, np.inf, spread)] * 2)).clip(-1, 1)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def prune(correlation: Array, t: Array, r: float, keep: Literal["largest_t", "first"] = "largest_t") -> Counts:
    """Columns of which no two have a correlation of `r` or more, best first.

    Parameters
    ----------
    correlation : (p, p)
    t : (p,)
        Test statistic of each column against the outcome; its size decides.
    r : float
        Threshold on the absolute correlation.
    keep : {"largest_t", "first"}
        Which of two correlated columns stays: that of the larger |t| (ties: the first), or the first in column order.
    """
    order = np.argsort(-np.abs(t), kind="stable") if keep == "largest_t" else np.arange(len(t))
    kept: list[int] = []
    for column in order:
        if not (np.abs(correlation[column, kept]) >= r).any():
            kept.append(int(column))
    return np.array(kept, dtype=np.int64)
