"""Mann-Whitney: the test of each continuous variable of Table 1, from bins of its values and no finer.

As scipy.stats.mannwhitneyu (method="asymptotic"): normal approximation with correction for ties and continuity.
Patients of one bin count as tied; what they may be otherwise bounds p. The bins are those of `rank_tests`: at most 128
of about equal counts, five patients or more on average. Where so many patients lie close together that two edges fall
between them, they probably share a value, recorded with few digits: the edges then close about that value, a bin whose
patients are tied indeed. A variable that is crowded everywhere, such as an age in years, has the p of its values.
Mann & Whitney, Annals of Mathematical Statistics 18:50, 1947.
"""

from dataclasses import dataclass, replace

import numpy as np

from cohortium.common.federation import Federation
from cohortium.strategies import rank_tests
from cohortium.strategies.quantiles import shortest_decimal
from cohortium.strategies.rows import Array, Counts

EDGES_OF_AN_ATOM = 2
"""Edges of bins in one cell of the grid from which on its patients are taken to share a value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MannWhitney:
    """Two-sided p of each column, (p,): of the bins, and the least and the most that it may be of the values."""

    p: Array
    least: Array
    most: Array


def compare(federation: Federation, centre: Array, scale: Array) -> MannWhitney:
    """Compare the two groups of `Matrix` rows in every column. Two sums.

    Parameters
    ----------
    centre, scale : (p,)
        About the mean and the standard deviation of each column; bins are looked for within four of the latter.
    """
    columns = len(centre)
    centre, scale = centre[:, None], np.where(scale > 0, scale, 1.0)[:, None]
    grid = centre + scale * rank_tests.GRID
    occupied = federation.sum(rank_tests.occupancy, grid=grid).counts[0]
    edges = _with_atoms(centre + scale * rank_tests.bins(occupied, rank_tests.MOST_BINS), occupied, grid)
    counts = federation.sum(rank_tests.histogram, edges=edges).counts
    found = rank_tests.cells_held(np.arange(columns), edges, counts)
    least, most = rank_tests.bounds_of(found, columns).p
    tied = rank_tests.bounds_of(replace(found, high=found.low), columns)  # a cell of one value
    return MannWhitney(p=tied.p[0], least=least, most=most)


def _with_atoms(edges: Array, occupied: Counts, grid: Array) -> Array:
    """Move edges that crowd in one cell of the grid to both sides of its roundest value, (p, bins + 1)."""
    moved = edges.copy()
    for column, (own, cells) in enumerate(zip(edges, grid, strict=True)):
        at = np.searchsorted(cells, own, side="right") - 1  # cell of each edge
        for cell in np.flatnonzero(np.bincount(at[1:-1], minlength=occupied.shape[1]) >= EDGES_OF_AN_ATOM):
            inside = 1 + np.flatnonzero(at[1:-1] == cell)
            value = _roundest(cells[cell], cells[cell + 1])
            moved[column, inside] = np.nextafter(value, np.inf)
            moved[column, inside[0]] = value
    return np.sort(moved, axis=1)


def _roundest(low: float, high: float) -> float:
    """Number with fewest digits between two others, where both are finite; else the finite end."""
    if not np.isfinite([low, high]).all():
        return high if np.isfinite(high) else low
    if low <= 0 <= high:
        return 0.0
    ends = np.sort(np.abs([low, high]))
    return float(np.sign(low) * shortest_decimal(ends[:1], ends[1:])[0])
