"""Wald: standard errors, intervals and tests of maximum-likelihood estimates, from their covariance.

The estimates are asymptotically normal (Wald, Transactions of the American Mathematical Society 54:426, 1943).
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from cohortium.strategies.rows import Array


def interval(estimate: float, standard_error: float, level: float = 0.95) -> tuple[float, float]:
    """Wald interval of one estimate."""
    half = float(stats.norm.ppf((1 + level) / 2)) * standard_error
    return estimate - half, estimate + half


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """Coefficients (k,) with their covariance (k, k), the inverse of the information."""

    coefficients: Array
    covariance: Array

    @property
    def standard_errors(self) -> Array:
        return np.sqrt(np.diag(self.covariance))

    def confidence_interval(self, level: float = 0.95) -> Array:
        """Wald interval of each coefficient, (k, 2)."""
        half = stats.norm.ppf((1 + level) / 2) * self.standard_errors
        return self.coefficients[:, None] + half[:, None] * [-1, 1]

    @property
    def p_values(self) -> Array:
        """Two-sided Wald test of each coefficient being zero, (k,)."""
        return 2 * stats.norm.sf(np.abs(self.coefficients / self.standard_errors))
