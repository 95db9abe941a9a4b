"""Likelihood: tests and criteria that need log-likelihoods alone, and how much the terms of a design share.

Wilks, Annals of Mathematical Statistics 9:60, 1938; Akaike 1974; Schwarz 1978; Fox & Monette, JASA 87:178, 1992.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from cohortium.strategies.rows import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class ChiSquared:
    """A test whose statistic is chi-squared with `df` degrees of freedom where the smaller model holds."""

    chi2: float
    df: int
    p: float

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def chi_squared(chi2: float, df: int) -> ChiSquared:
    """The test of a statistic; sums are rounded, so a statistic a whisker under zero is zero."""
    chi2 = max(float(chi2), 0.0)
    return ChiSquared(chi2=chi2, df=df, p=float(stats.chi2.sf(chi2, df)) if df else 1.0)


def ratio_test(larger: float, smaller: float, df: int) -> ChiSquared:
    """Likelihood-ratio test of nested models, from their log-likelihoods."""
    return chi_squared(2 * (larger - smaller), df)


def aic(log_likelihood: float, parameters: int) -> float:
    """Akaike's information criterion."""
    return 2 * parameters - 2 * log_likelihood


def bic(log_likelihood: float, parameters: int, observations: int) -> float:
    """Schwarz's information criterion; observations are patients, of a Cox model events (Volinsky & Raftery 2000)."""
    return float(parameters * np.log(observations)) - 2 * log_likelihood


def variance_inflation(correlation: Array, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Generalised variance inflation factor of each group of columns.

    It is det R_g det R_rest / det R: how much larger the confidence ellipsoid of the group's coefficients is than in a
    design whose other columns do not correlate with it. Of a single column it is 1 / (1 - R^2), the usual factor.

    Parameters
    ----------
    correlation : (p, p)
        Of the columns, non-singular.
    groups : mapping
        Columns of each variable.
    """
    whole = np.linalg.slogdet(correlation)[1]
    found = {}
    for name, inside in groups.items():
        outside = np.setdiff1d(np.arange(len(correlation)), inside)
        parts = [np.linalg.slogdet(correlation[np.ix_(some, some)])[1] for some in (np.asarray(inside), outside)]
        found[name] = float(np.exp(sum(parts) - whole))
    return found


def correlation_of(gram: Array) -> Array:
    """Correlation (p, p) of columns, from the cross products (p + 1, p + 1) of an intercept and them."""
    centred = gram[1:, 1:] - np.outer(gram[0, 1:], gram[0, 1:]) / gram[0, 0]
    spread = np.sqrt(np.diag(centred))
    return centred / np.outer(spread, spread)
