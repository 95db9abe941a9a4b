"""Concordance pairs: difference of two models' Harrell's C on the same patients, with its standard error.

Each C moves with the weight of each patient (`concordance.harrell`); the variance of a difference is the sum of squared
differences of these moves, for which one more sum holds the products of two models' moves.
Infinitesimal jackknife (Efron, 1982), as R's survival::concordance does for several models.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import concordance
from cohortium.strategies.rows import Array, Counts, ScoredSurvival
from cohortium.strategies.score_bins import cell
from cohortium.strategies.survival import time_cell
from cohortium.strategies.validation_settings import Figure, undefined
from cohortium.strategies.wald import interval

# --- at each site ---------------------------------------------------------------------------------------------


class Products(NamedTuple):
    """Sums over patients of the products of two models' moves."""

    sums: Array  # (pairs,)


@statistic("concordance_pairs.products", adds_over="rows")
def products(
    rows: ScoredSurvival, *, edges: list[Counts], points: Counts, moves: Array, pairs: Counts, time_step: float
) -> Products:
    """Multiply the `moves` (models, points + 1, 2, cells) of each pair of models, (pairs, 2), patient by patient."""
    interval = np.searchsorted(points, time_cell(rows.time, time_step), side="right")
    event = rows.event.astype(np.int64)
    own = [moves[m, interval, event, cell(rows.score[:, m], lower)] for m, lower in enumerate(edges)]
    return Products(np.array([own[a] @ own[b] for a, b in pairs], float).reshape(len(pairs)))


# --- at the server --------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """Difference of two C-indices."""

    estimate: float
    standard_error: float

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        return interval(self.estimate, self.standard_error, level)

    @property
    def z(self) -> float:
        """Difference over its standard error.

        Raises
        ------
        Undefined
            The models rank every pair alike.
        """
        if self.standard_error <= 1e-7:  # products are sums in fixed point
            raise Undefined("the two models rank every pair alike")
        return self.estimate / self.standard_error


def differences(
    federation: Federation, patients: Counts, edges: list[Counts], points: Counts, pairs: Counts, *, time_step: float
) -> list[Difference]:
    """Difference of C of each pair of models; one sum of one number a pair.

    Parameters
    ----------
    patients : (models, points + 1, 2, cells)
        From `concordance.joint`, with the same `edges` and `points`.
    pairs : (pairs, 2)

    Raises
    ------
    Undefined
        No comparable pair.
    """
    n = float(patients[0].sum())
    moves, estimates, squares = np.zeros(patients.shape), [], []
    for m, table in enumerate(patients):
        concordant, comparable = concordance.pairs(table)
        total = float((table * comparable).sum())
        if total == 0:
            raise Undefined("a C-index needs a pair of patients of whom one has the event before the other's time")
        estimates.append(float((table * concordant).sum()) / total)
        moves[m] = 2 * n / total * (concordant - estimates[m] * comparable)  # about 1, for fixed point
        squares.append(float((table * moves[m] ** 2).sum()))
    sums = federation.sum(products, edges=edges, points=points, moves=moves, pairs=pairs, time_step=time_step).sums
    return [
        Difference(estimates[a] - estimates[b], float(np.sqrt(max(squares[a] + squares[b] - 2 * product, 0.0))) / n)
        for (a, b), product in zip(pairs, sums, strict=True)
    ]


def figures(difference: Difference) -> dict[str, Figure]:
    """As under ``comparisons`` in results.json."""
    found: dict[str, Figure] = {"difference": difference.estimate}
    try:
        z = difference.z
    except Undefined as why:
        return found | dict.fromkeys(("ci", "z", "p"), undefined(why))
    return found | {"ci": list(difference.confidence_interval()), "z": z, "p": float(2 * stats.norm.sf(abs(z)))}
