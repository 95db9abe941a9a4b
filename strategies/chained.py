"""Chained: gaps filled by regressions of each column on all others, cycle after cycle, as if the rows were pooled.

Chained equations (van Buuren & Groothuis-Oudshoorn, Journal of Statistical Software 45(3), 2011). A column starts with
its mean in the gaps. Then, cycle by cycle and in order of missing values, a column is regressed on all others as they
are filled by now, over the patients who have it, and its gaps get what the regression says. One sum a column and cycle.

Deterministic: the gaps get the prediction; equal to scikit-learn's IterativeImputer with LinearRegression, ascending
order and as many cycles. Multiple: coefficients and residual spread are drawn from their posterior (Rubin, Multiple
Imputation for Nonresponse in Surveys, 1987, p. 167), and each gap gets a residual of its own, drawn from a keyed hash
of the patient: it is the same in every run and wherever the patient is counted.

The outcome is not among the columns: a filled value that knew it would flatter every model. The equations are all that
is published; a site fills its own gaps with them, also where it took no part in the fit.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from cohortium.common.federation import Federation, statistic
from cohortium.strategies import triangle
from cohortium.strategies.moments import Moments
from cohortium.strategies.rows import Array, Counts

NO_SPREAD = 1e-9
"""Share of the largest eigenvalue below which a direction holds nothing but rounding (2**-40 a site)."""


class Incomplete(NamedTuple):
    """Recorded values: x (n, p), NaN = missing; key (n,) int64, a keyed hash of the patient that stays at the site."""

    x: Array
    key: Counts


class Chain(NamedTuple):
    """Equations in the order in which they fill; p columns, e equations."""

    centre: Array  # (p,), what standardises the columns
    scale: Array  # (p,), 0 counts as 1
    fill: Array  # (p,), what gaps hold at first, in recorded units
    targets: Counts  # (e,), the column that an equation fills
    coefficients: Array  # (e, p + 1), on the standardised scale, intercept first; 0 for the target itself
    spread: Array  # (e,), standard deviation of the residuals that are drawn; 0 where the prediction is taken
    imputation: int  # which of several


class Products(NamedTuple):
    """Cross-products of the filled columns over the patients who have the target."""

    patients: Counts  # ()
    total: Array  # (p,)
    products: Array  # (p (p + 1) / 2,), upper triangle


# --- at each site ---------------------------------------------------------------------------------------------


def complete(rows: Incomplete, chain: Chain) -> Array:
    """Fill the gaps of recorded values, (n, p); known values stay as they are, to the last bit."""
    return np.where(np.isnan(rows.x), _standardised(rows, chain) * _scale(chain) + chain.centre, rows.x)


@statistic("chained.products", adds_over="rows")
def products(rows: Incomplete, *, chain: dict[str, Any], target: int) -> Products:
    """Cross-products of a site's rows, filled by the equations so far.

    Parameters
    ----------
    chain : dict
        Fields of a `Chain`.
    target : int
        Column whose known values are to be regressed on the others.
    """
    z = _standardised(rows, Chain(**chain))[~np.isnan(rows.x[:, target])]
    return Products(np.asarray(len(z)), z.sum(axis=0), triangle.upper(z.T @ z))


def _standardised(rows: Incomplete, chain: Chain) -> Array:
    """Filled and standardised."""
    gap = np.isnan(rows.x)
    z = (np.where(gap, chain.fill, rows.x) - chain.centre) / _scale(chain)
    for equation, target in enumerate(np.asarray(chain.targets).tolist()):
        mine, coefficients = gap[:, target], chain.coefficients[equation]
        # summed column by column: what one patient gets does not depend on who else is in the table
        filled = coefficients[0] + (z[mine] * coefficients[1:]).sum(axis=1)
        if chain.spread[equation] > 0:
            filled += chain.spread[equation] * normal(rows.key[mine], chain.imputation, equation)
        z[mine, target] = filled
    return z


def _scale(chain: Chain) -> Array:
    return np.where(chain.scale > 0, chain.scale, 1.0)


def normal(key: Counts, imputation: int, equation: int) -> Array:
    """A standard normal number of each patient, (n,): the same for the same key, imputation and equation."""
    state = _mixed(key.view(np.uint64) ^ _mixed(np.array([imputation * 2**32 + equation], dtype=np.uint64)))
    return ndtri(((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


# --- at the server --------------------------------------------------------------------------------------------


def fit(
    federation: Federation,
    known: Moments,
    fill: Array,
    targets: Counts,
    cycles: int,
    *,
    rng: np.random.Generator | None = None,
    imputation: int = 0,
) -> Chain:
    """Learn the equations from `Incomplete` rows. One sum a target and cycle.

    Parameters
    ----------
    known : Moments
        Of the known values.
    fill : (p,)
        What gaps hold at first: of a target its mean.
    targets : (t,)
        Columns to fill; gaps of the others keep their fill.
    cycles : int
    rng : Generator, optional
        Draws coefficients and spreads of one of several imputations; without it the prediction is taken.
    """
    p = len(fill)
    nothing = np.empty(0)
    chain = Chain(known.mean, known.sd, fill, nothing.astype(np.int64), np.empty((0, p + 1)), nothing, imputation)
    order = targets[np.argsort(known.patients - known.n[targets], kind="stable")]  # fewest gaps first
    for _ in range(cycles):
        for target in order.tolist():
            at = federation.sum(products, chain=chain._asdict(), target=target)
            coefficients, spread = regression(at, target, rng)
            chain = chain._replace(
                targets=np.append(chain.targets, target),
                coefficients=np.vstack([chain.coefficients, coefficients]),
                spread=np.append(chain.spread, spread),
            )
    return chain


def regression(at: Products, target: int, rng: np.random.Generator | None = None) -> tuple[Array, float]:
    """Coefficients (p + 1,) of the target on the other columns, intercept first, and the spread of its residuals.

    Least squares, of all solutions the shortest, and no spread; or a draw from the posterior under a flat prior.
    """
    p, n = len(at.total), max(int(at.patients), 1)
    mean = at.total / n
    squares = triangle.symmetric(at.products) - n * np.outer(mean, mean)
    others = np.flatnonzero(np.arange(p) != target)
    values, vectors = np.linalg.eigh(squares[np.ix_(others, others)])
    varies = values > NO_SPREAD * max(values.max(initial=0.0), 1.0)
    values, vectors = values[varies], vectors[:, varies]
    along = (vectors.T @ squares[others, target]) / values
    level, spread = mean[target], 0.0
    if rng is not None:
        residual = max(float(squares[target, target] - along**2 @ values), 0.0)
        spread = float(np.sqrt(residual / rng.chisquare(max(n - 1 - len(values), 1))))
        along = along + spread * rng.standard_normal(len(values)) / np.sqrt(values)
        level = level + spread * rng.standard_normal() / np.sqrt(n)
    coefficients = np.zeros(p + 1)
    coefficients[1 + others] = vectors @ along
    coefficients[0] = level - mean @ coefficients[1:]
    return coefficients, spread
