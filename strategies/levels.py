"""Levels: how many patients of each group have each level of a categorical column.

Used for imputation by the most frequent level and for Table 1. One sum of counts.
"""

import math
from typing import NamedTuple

import numpy as np

from cohortium.common.errors import SumRefused
from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Counts, Matrix, group_codes


class LevelCounts(NamedTuple):
    """Patients of g groups by the level of p columns."""

    patients: Counts  # (g,)
    counts: Counts  # (g, p, levels); missing values are in none


# --- at each site ---------------------------------------------------------------------------------------------


def _moved_by_one(shape: LevelCounts, **_: object) -> float:
    """A patient leaves one group and one level a column, and another enters: each moves two counts by one."""
    return math.sqrt(2 * (1 + shape.counts.shape[1]))


@statistic("levels.level_counts", adds_over="rows", sensitivity=_moved_by_one)
def level_counts(rows: Matrix, *, levels: int, groups: int) -> LevelCounts:
    """Count a site's patients by level.

    Parameters
    ----------
    levels : int
        Values are the codes 0..levels-1, as in the study file, or NaN.
    groups : int
        Patients with another group code are left out; 1 takes all patients together.

    Raises
    ------
    SumRefused
        A value is no code.
    """
    group = group_codes(rows, groups)[:, None]
    member = (group >= 0) & (group < groups)
    known = ~np.isnan(rows.x) & member
    codes = rows.x[known]
    if not np.isin(codes, np.arange(levels)).all():
        raise SumRefused("levels.level_counts", f"a value is none of the {levels} level codes; prepare the table again")
    shape = (groups, rows.x.shape[1], levels)
    slots = (group * shape[1] + np.arange(shape[1]))[known]
    counts = np.bincount(slots * levels + codes.astype(np.int64), minlength=int(np.prod(shape)))
    return LevelCounts(np.bincount(group[member], minlength=groups), counts.reshape(shape))


# --- at the server --------------------------------------------------------------------------------------------


def fit(federation: Federation, levels: int) -> Counts:
    """Level counts of the columns of `Matrix` rows, all patients together, (p, levels). One sum."""
    return fit_groups(federation, levels, groups=1)[0]


def fit_groups(federation: Federation, levels: int, groups: int) -> Counts:
    """Level counts within each group 0..groups-1, (groups, p, levels). One sum."""
    return federation.sum(level_counts, levels=levels, groups=groups).counts


def mode(counts: Counts) -> Counts:
    """Most frequent level of each column, (p,); the first of equals, as scikit-learn's SimpleImputer chooses."""
    return counts.argmax(axis=-1)
