"""Explanation: what each variable does to a linear predictor, over the training patients of all sites.

Linear SHAP: a variable's contribution is sum of beta (x - mean) over its columns, exact for a linear predictor against
the pooled patients as background (Lundberg & Lee 2017, section 4.2). Permutation importance: the fall of the AUC when a
variable is drawn anew from its marginal over all sites (Breiman, Mach Learn 2001). The draw is integrated instead of
made: every patient is scored with each of a few values of the marginal, weighted, and the AUC of these counts is the
expectation over draws. Shuffling within sites would keep what the sites differ in, and so understate the fall.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cohortium.common.federation import Federation, statistic
from cohortium.strategies import discrimination
from cohortium.strategies.rows import Array, Counts, Matrix
from cohortium.strategies.score_bins import GRID, cell

VALUES = 25
"""Values that stand for the marginal of a continuous column: the middles of so many equal shares of the patients."""


class Replacement(TypedDict):
    """What stands for the values of some columns: k rows of c standardised values, and how often each occurs."""

    columns: NDArray[np.integer[Any]]  # (c,), from 0
    values: Array  # (k, c)
    weights: Array  # (k,), adding to 1


# --- at each site ---------------------------------------------------------------------------------------------


class Contributions(NamedTuple):
    """Sums over patients."""

    patients: Counts  # ()
    total: Array  # (p,) of the columns
    absolute: Array  # (groups,) of the absolute contributions


@statistic("explanation.contributions", adds_over="rows")
def contributions(rows: Matrix, *, coefficients: Array, centre: Array, group: Counts) -> Contributions:
    """Sum |sum of coefficient (x - centre) over a group's columns|; all parameters (p,), groups numbered from 0."""
    groups = int(group.max(initial=-1)) + 1
    member = np.eye(groups)[group]
    parts = ((rows.x - centre) * coefficients) @ member
    return Contributions(np.array(len(rows.x)), rows.x.sum(0), np.abs(parts).sum(0))


class Replaced(NamedTuple):
    """Patients by outcome and cell of the score, as it is and with each replacement."""

    patients: Array  # (1 + replacements, 2, cells)


@statistic("explanation.replaced", adds_over="rows")
def replaced(
    rows: Matrix, *, coefficients: Array, edges: Sequence[Counts], replacements: Sequence[Replacement]
) -> Replaced:
    """Count expected patients when columns are drawn from a public marginal; `rows.group` is the outcome.

    Parameters
    ----------
    coefficients : (1 + p,), intercept first
    edges : list of one (cells,)
        Lower edges of the cells of the risk, in grid units.
    replacements : list of Replacement
    """
    lower = edges[0]
    counts = np.zeros((1 + len(replacements), 2, len(lower)))
    whole = coefficients[0] + rows.x @ coefficients[1:]
    count(counts[0], rows.group, whole, lower, 1.0)
    for of, replacement in zip(counts[1:], replacements, strict=True):
        columns = np.asarray(replacement["columns"], np.int64)
        slopes = coefficients[1 + columns]
        rest = whole - rows.x[:, columns] @ slopes
        for value, weight in zip(replacement["values"] @ slopes, replacement["weights"], strict=True):
            count(of, rows.group, rest + value, lower, float(weight))
    return Replaced(counts)


def count(counts: Array, outcome: Counts, linear: Array, lower: Counts, weight: float) -> None:
    """Add `weight` to the cell (2, cells) of each patient's outcome and risk, whose log-odds are `linear`."""
    risk = np.rint(special.expit(linear) * GRID) / GRID
    np.add.at(counts, (outcome, cell(risk, lower)), weight)


# --- at the server --------------------------------------------------------------------------------------------


def mean_absolute_shap(federation: Federation, coefficients: Array, group: Counts) -> tuple[Array, Contributions]:
    """Mean |SHAP| of each group of columns, on the scale of the linear predictor, and the first sum. Two sums.

    Parameters
    ----------
    coefficients : (p,), without the intercept
    group : (p,)
        Columns of one variable share a number.
    """
    asked = {"coefficients": coefficients, "group": group}
    first = federation.sum(contributions, centre=np.zeros(len(coefficients)), **asked)
    means = first.total / max(int(first.patients), 1)
    sums = federation.sum(contributions, centre=means, **asked)
    return sums.absolute / max(int(first.patients), 1), first


def permutation_importance(
    federation: Federation, coefficients: Array, edges: Counts, replacements: Sequence[Replacement]
) -> tuple[float, Array]:
    """AUC as it is, and how much it falls with each replacement. One sum.

    Raises
    ------
    Undefined
        One class only.
    """
    sums: Any = federation.sum(replaced, coefficients=coefficients, edges=[edges], replacements=list(replacements))
    return falls(sums, edges)


def falls(sums: Replaced, edges: Counts) -> tuple[float, Array]:
    """AUC as it is, and how much it falls with each replacement, from counts over all sites."""
    areas = [discrimination.auc(counts, edges).estimate for counts in sums.patients]
    return areas[0], areas[0] - np.array(areas[1:])
