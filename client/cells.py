"""Cells: which counts of Table 1 are too small to leave a site, missing values among them.

Patients of a group whose value is missing are a cell beside the levels: it is the group less its levels, and how many
patients a group has is told by every other variable. So levels leave by group only where no group has a few missing
values here. Where one has, the study still gets the table with missing values counted as the first level; and of a
continuous variable its figures of all groups together. How many values are known over all groups and sites no rule can
hide: every model that uses the variable is standardised and filled by it.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from cohortium.common.errors import SumRefused
from cohortium.strategies.describe import FIRST_LEVEL

CELL_TABLES = ("levels.*", "table_one.*")
"""Statistics whose integer fields are cells of Table 1: a small non-empty one at this site holds the table back."""


def check_counts(statistic: str, share: NamedTuple, least: int) -> None:
    """Refuse a table of which this site has a small cell.

    Raises
    ------
    SumRefused
        A count between 1 and `least` - 1.
    """
    if not any(fnmatchcase(statistic, pattern) for pattern in CELL_TABLES):
        return
    for field in share:
        counts = np.asarray(field)
        if counts.dtype.kind in "iu" and _small(counts, least).any():
            raise SumRefused(
                statistic, f"a site has a cell with fewer than minimum_count = {least} patients in this table"
            )


def check_missing(statistic: str, view: Mapping[str, Any], rows: Any, least: int) -> None:
    """Refuse figures of raw columns by group where a few patients of a group have no value, or only a few have one.

    Parameters
    ----------
    rows : Matrix or another kind
        Of this site; of the others no rule here speaks.

    Raises
    ------
    SumRefused
        Missing values of a column, in a group of this site, are between 1 and `least` - 1, or known ones beside missing
        ones are; a level table counts missing values as another level than the first.
    """
    table = any(fnmatchcase(statistic, pattern) for pattern in CELL_TABLES)
    if view["kind"] != "matrix":
        return
    if "fill" in view:
        # two tables that count missing values in different levels differ by the missing values
        if table and any(np.any(np.asarray(view[key]) != value) for key, value in FIRST_LEVEL.items()):
            raise SumRefused(statistic, "missing values may be counted as the first level and no other; ask for that")
        return
    if not table and not view.get("group"):
        return
    for group in np.unique(rows.group):
        absent = np.isnan(rows.x[rows.group == group])
        missing, known = absent.sum(axis=0), (~absent).sum(axis=0)
        if (_small(missing, least) | ((missing > 0) & _small(known, least))).any():
            raise SumRefused(
                statistic,
                f"in a group of a site fewer than minimum_count = {least} patients have a missing value or a known one",
            )


def _small(counts: Any, least: int) -> Any:
    return (counts > 0) & (counts < least)
