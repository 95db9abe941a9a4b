"""Mann-Whitney: the test of each continuous variable of Table 1, from bins of its values and no finer.

As scipy.stats.mannwhitneyu (method="asymptotic"): normal approximation with correction for ties and continuity.
Patients of one bin count as tied; what they may be otherwise bounds p. The bins are those of `rank_tests`: at most 128
of about equal counts, five patients or more on average.
Mann & Whitney, Annals of Mathematical Statistics 18:50, 1947.
"""

from dataclasses import dataclass, replace

import numpy as np

from cohortium.common.federation import Federation
from cohortium.strategies import rank_tests
from cohortium.strategies.rows import Array


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
    occupied = federation.sum(rank_tests.occupancy, grid=centre + scale * rank_tests.GRID).counts[0]
    edges = centre + scale * rank_tests.bins(occupied, rank_tests.MOST_BINS)
    counts = federation.sum(rank_tests.histogram, edges=edges).counts
    found = rank_tests.cells_held(np.arange(columns), edges, counts)
    least, most = rank_tests.bounds_of(found, columns).p
    tied = rank_tests.bounds_of(replace(found, high=found.low), columns)  # a cell of one value
    return MannWhitney(p=tied.p[0], least=least, most=most)
