"""Rank correlation: Spearman's rho of all pairs of features across sites, on binned ranks.

A patient's rank in a feature is the mean rank of the bin that holds it: of bins of about equal counts, at most one for
five patients and at most 128 (see rank_tests). So patients of one bin count as tied, and no rank tells more of a
patient than its bin. Spearman's rho is then Pearson's correlation of the ranks (Kendall, Biometrika 33:239, 1945, on
ties). Three sums; as for Pearson's, one column for every four patients at most, or the site refuses.
"""

import numpy as np

from cohortium.common.federation import Federation, statistic
from cohortium.strategies import correlation, triangle
from cohortium.strategies.correlation import Gram
from cohortium.strategies.rank_tests import GRID, MOST_BINS, bins, occupancy
from cohortium.strategies.rows import Array, Counts, Labelled, Matrix

# --- at each site ---------------------------------------------------------------------------------------------


@statistic("rank_correlation.products", adds_over="rows")
def products(rows: Matrix | Labelled, *, edges: Array, scores: Array) -> Gram:
    """Sums of the rank scores of a site's patients and of their products.

    Parameters
    ----------
    edges : (p, bins + 1)
        Ascending; a bin holds its lower edge.
    scores : (p, bins)
        Standardised mean rank of each bin.
    """
    places = [np.searchsorted(of_column, x, side="right") - 1 for of_column, x in zip(edges, rows.x.T, strict=True)]
    last = scores.shape[1] - 1
    columns = [of_bins[place.clip(0, last)] for of_bins, place in zip(scores, places, strict=True)]
    ranks = np.stack(columns, axis=1) if columns else np.empty((len(rows.x), 0))
    return Gram(np.asarray(len(ranks)), ranks.sum(axis=0), triangle.upper(ranks.T @ ranks))


# --- at the server --------------------------------------------------------------------------------------------


def spearman(federation: Federation) -> Array:
    """Spearman correlation of the standardised columns, (p, p); a constant column has 0 with all others. Three sums.

    Raises
    ------
    NotIdentifiable
        Fewer than two patients.
    """
    edges = bins(federation.sum(occupancy, grid=GRID).counts[0], MOST_BINS)
    scores = rank_scores(federation.sum(occupancy, grid=edges).counts[0])
    return correlation.pearson(federation.sum(products, edges=edges, scores=scores))


def rank_scores(patients: Counts) -> Array:
    """Mean rank of the patients of each bin, centred and in units of an untied rank's standard deviation, (p, bins)."""
    total = patients.sum(axis=1, keepdims=True).clip(1)
    below = np.cumsum(patients, axis=1) - patients
    return ((below + patients / 2) / total - 0.5) * np.sqrt(12)
