"""Rubin: one set of estimates from the fits of several imputed data sets.

Rubin (Multiple Imputation for Nonresponse in Surveys, 1987, chapter 3): the mean of the estimates, and the mean of
their covariances plus (1 + 1/m) times the covariance between them. Degrees of freedom of each estimate by Barnard &
Rubin (Biometrika 86:948, 1999), which never exceed those of the complete data.
"""

from dataclasses import dataclass

import numpy as np

from cohortium.strategies.rows import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Pooled:
    """Estimates of m imputations as one; arrays are (k,), covariances (k, k)."""

    estimates: Array
    covariance: Array
    within: Array  # variance, mean over imputations
    between: Array  # variance between imputations
    degrees_of_freedom: Array
    missing_information: Array  # share of the variance that the gaps cost, between 0 and 1


def pool(estimates: Array, covariances: Array, complete_degrees: float) -> Pooled:
    """Pool the fits of m >= 2 imputations; no sum.

    Parameters
    ----------
    estimates : (m, k)
    covariances : (m, k, k)
    complete_degrees : float
        Degrees of freedom had nothing been missing: patients less coefficients; inf for none to account for.
    """
    m = len(estimates)
    mean = estimates.mean(axis=0)
    away = estimates - mean
    within, between = covariances.mean(axis=0), away.T @ away / (m - 1)
    covariance = within + (1 + 1 / m) * between
    total = np.diag(covariance)
    share = np.divide((1 + 1 / m) * np.diag(between), total, out=np.zeros_like(mean), where=total > 0)
    with np.errstate(divide="ignore"):
        old = (m - 1) / share**2
    observed = (1 - share) * (np.inf if np.isinf(complete_degrees) else
                              (complete_degrees + 1) / (complete_degrees + 3) * complete_degrees)  # fmt: skip
    return Pooled(
        estimates=mean,
        covariance=covariance,
        within=np.diag(within),
        between=np.diag(between),
        degrees_of_freedom=1 / (1 / old + 1 / observed),
        missing_information=share,
    )
