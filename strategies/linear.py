"""Linear regression: ordinary least squares across sites, equal to the pooled fit, from one sum.

The sites send the cross products of ones, predictors and outcome; everything else follows from them at the server
(Seber & Lee, Linear Regression Analysis, 2003, chapter 3). Elastic nets of a continuous outcome are in lasso.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import triangle
from cohortium.strategies.rows import Array, Counts, Labelled

SINGULAR = 1e-9
"""Smallest eigenvalue of the scaled cross products that is told from zero: fixed point leaves 1e-12 of noise in it."""


class CrossProducts(NamedTuple):
    """Sums over some patients of products of the columns 1, x, y."""

    patients: Counts  # ()
    products: Array  # ((p + 2) (p + 3) / 2,), upper triangle


@statistic("linear.cross_products", adds_over="rows")
def cross_products(rows: Labelled) -> CrossProducts:
    """Cross products of a site's rows; y is a number."""
    columns = np.column_stack([np.ones(len(rows.y)), rows.x, rows.y])
    return CrossProducts(np.asarray(len(rows.y)), triangle.upper(columns.T @ columns))


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """A fitted model; arrays are (p + 1,), the intercept first."""

    coefficients: Array
    covariance: Array  # (p + 1, p + 1)
    residual_variance: float
    r_squared: float
    patients: int
    gram: Array  # (p + 1, p + 1), cross products of ones and predictors

    @property
    def log_likelihood(self) -> float:
        """Of normal errors at the maximum; the variance, which maximises it too, is no parameter to AIC here."""
        mean_square = max(self.residual_variance * self.degrees_of_freedom / self.patients, np.finfo(float).tiny)
        return -self.patients / 2 * (np.log(2 * np.pi * mean_square) + 1)

    @property
    def degrees_of_freedom(self) -> int:
        return self.patients - len(self.coefficients)

    @property
    def adjusted_r_squared(self) -> float:
        return 1 - (1 - self.r_squared) * (self.patients - 1) / self.degrees_of_freedom

    @property
    def f_test(self) -> dict[str, float]:
        """Whether any predictor matters: ``f``, its degrees of freedom ``df`` and ``df_residual``, and ``p``."""
        predictors, freedom = len(self.coefficients) - 1, self.degrees_of_freedom
        f = self.r_squared / predictors / max((1 - self.r_squared) / freedom, np.finfo(float).tiny)
        return {"f": f, "df": predictors, "df_residual": freedom, "p": float(stats.f.sf(f, predictors, freedom))}

    @property
    def standard_errors(self) -> Array:
        return np.sqrt(np.diag(self.covariance))

    @property
    def p_values(self) -> Array:
        """Two-sided t test of each coefficient being zero."""
        return 2 * stats.t.sf(np.abs(self.coefficients / self.standard_errors), self.degrees_of_freedom)

    def confidence_interval(self, level: float = 0.95) -> Array:
        """Interval of each coefficient by Student's t, (p + 1, 2)."""
        half = stats.t.ppf((1 + level) / 2, self.degrees_of_freedom) * self.standard_errors
        return self.coefficients[:, None] + half[:, None] * [-1, 1]


def fit(federation: Federation, predictors: int, *, names: Sequence[str] = ()) -> Linear:
    """Fit the model over all sites of the federation; one sum.

    Parameters
    ----------
    federation : Federation
        Of `Labelled` rows: x (n, predictors) standardised, y a number of moderate scale (standardised, say).
    predictors : int
    names : sequence of str, optional
        Of the predictors, for messages.

    Raises
    ------
    NotIdentifiable
        No more patients than coefficients, one value of the outcome, or a column that is constant or a combination of
        others.
    """
    total = federation.sum(cross_products)
    named = names or [f"predictor {column}" for column in range(predictors)]
    return solve(int(total.patients), triangle.symmetric(total.products), named)


def solve(patients: int, products: Array, names: Sequence[str]) -> Linear:
    """The fit from cross products (p + 2, p + 2) of ones, the named predictors and the outcome; raises as `fit`."""
    predictors, named = len(names), ["the intercept", *names]
    if patients <= predictors + 1:
        raise NotIdentifiable(
            f"linear regression: {patients} patients for {predictors + 1} coefficients; name fewer predictors"
        )
    design, with_outcome, squares = products[:-1, :-1], products[:-1, -1], products[-1, -1]
    scale = np.sqrt(np.diag(design))
    scaled = design / np.outer(np.where(scale > 0, scale, 1.0), np.where(scale > 0, scale, 1.0))
    values, vectors = np.linalg.eigh(scaled)
    if values[0] <= SINGULAR:
        column = named[int(np.argmax(np.abs(vectors[:, 0])))]
        raise NotIdentifiable(f"linear regression: {column} is constant or a combination of others; drop it")
    coefficients = np.asarray(np.linalg.solve(design, with_outcome), dtype=np.float64)
    spread = squares - products[0, -1] ** 2 / patients
    if spread <= SINGULAR * squares:
        raise NotIdentifiable("linear regression: the outcome has one value; nothing can be fitted")
    left = float(max(squares - coefficients @ with_outcome, 0.0))
    variance = left / (patients - predictors - 1)
    return Linear(
        coefficients=coefficients,
        covariance=np.asarray(variance * np.linalg.inv(design), dtype=np.float64),
        residual_variance=float(variance),
        r_squared=1 - left / float(spread),
        patients=patients,
        gram=design,
    )
