"""Screening: t-tests of every feature between the two classes, and the features that pass.

Everything follows from the exact moments of the two classes (see moments), so raw features of any scale may come in;
two sums for all features together. Student's pooled test by default, Welch's on request.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from cohortium.common.federation import Federation
from cohortium.strategies import moments
from cohortium.strategies.moments import Moments
from cohortium.strategies.rows import Array, Counts

Variances = Literal["pooled", "welch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScreenResult:
    """A t-test of each column; arrays are (p,). NaN where no test exists: a constant column, a class below two."""

    t: Array  # positive where group 1 has the larger mean
    degrees_of_freedom: Array
    p: Array  # two-sided
    n: Counts  # (2, p), patients with a value in group 0 and group 1


def t_test(federation: Federation, columns: int, *, variances: Variances = "pooled") -> ScreenResult:
    """Compare group 1 with group 0 in every column of `Matrix` rows. Two sums."""
    return compare(*moments.fit_groups(federation, columns, groups=2), variances=variances)


def compare(group_0: Moments, group_1: Moments, *, variances: Variances = "pooled") -> ScreenResult:
    """t-test from the moments of two groups; no sum."""
    n = np.stack([group_0.n, group_1.n])
    squares = np.stack([group_0.sd, group_1.sd]) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):  # columns without a test become NaN
        if variances == "pooled":
            degrees = (n.sum(axis=0) - 2).astype(np.float64)
            squared_error = ((n - 1) * squares).sum(axis=0) / degrees * (1 / n).sum(axis=0)
        else:
            of_means = squares / n
            squared_error = of_means.sum(axis=0)
            degrees = squared_error**2 / (of_means**2 / (n - 1)).sum(axis=0)  # Satterthwaite
        t = (group_1.mean - group_0.mean) / np.sqrt(squared_error)
    exists = (n >= 2).all(axis=0) & ~np.isnan(t)
    t = np.where(exists, t, np.nan)
    # classes that are constant, but not the same constant, have no error at all: t is infinite and p is 0
    degrees = np.where(exists, np.where(np.isinf(t), n.sum(axis=0) - 2, degrees), np.nan)
    return ScreenResult(t=t, degrees_of_freedom=degrees, p=2 * stats.t.sf(np.abs(t), degrees), n=n)


def screen(result: ScreenResult, p_threshold: float, keep_at_most: int | None = None) -> Counts:
    """Columns with p < `p_threshold`, the largest |t| first, at most `keep_at_most` of them.

    Ties go by column order; a column without a test (a constant one) is never kept.
    """
    order = np.argsort(-np.abs(result.t), kind="stable")  # NaN sorts last
    return order[result.p[order] < p_threshold][:keep_at_most]
