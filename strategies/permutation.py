"""Permutation: how far the AUC of a score of any kind falls when a variable is drawn anew from its public marginal.

The figure that `explanation.permutation_importance` gives of linear scores (Breiman, Mach Learn 2001), for fits that no
coefficients of columns describe: the draw is integrated, every patient is scored with each value of the marginal. The
columns of one variable, its levels and the one that says where it is missing, are replaced together.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cohortium.common.federation import Federation, statistic
from cohortium.strategies import explanation, shapley
from cohortium.strategies.explanation import Replaced, Replacement
from cohortium.strategies.rows import Array, Counts
from cohortium.strategies.scoring import linear_predictor

MOST_REPLACED = shapley.MOST_SWITCHES * 2 * shapley.BACKGROUND // explanation.VALUES
"""Patients times variables: as many scores as sampled SHAP values need. A study with more takes a half, a quarter, ...
of its patients."""


class Judged(NamedTuple):
    """Standardised columns x (n, p), outcome (n,) int64 of 0 and 1, key (n,) int64: see `shapley.Keyed`."""

    x: Array
    outcome: Counts
    key: Counts


def halvings(patients: int, variables: int) -> int:
    """How often the patients of all sites are halved: the fewest times that leave `MOST_REPLACED` at most."""
    return shapley.halvings(patients, variables, MOST_REPLACED)


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("permutation.replaced", adds_over="rows")
def replaced(
    rows: Judged,
    *,
    fit: Mapping[str, Any],
    edges: Sequence[Counts],
    replacements: Sequence[Replacement],
    halvings: int,
) -> Replaced:
    """Count expected patients when columns are drawn from a public marginal, over a 2**-halvings part of them.

    Parameters
    ----------
    fit : mapping
        As `scoring.linear_predictor` takes it.
    edges : list of one (cells,)
        Lower edges of the cells of the risk, in grid units.
    replacements : list of Replacement
    """
    of_part = rows.key % 2**halvings == 0
    x, outcome, lower = rows.x[of_part], rows.outcome[of_part], edges[0]
    counts = np.zeros((1 + len(replacements), 2, len(lower)))
    explanation.count(counts[0], outcome, linear_predictor(fit, x), lower, 1.0)
    for of, replacement in zip(counts[1:], replacements, strict=True):
        drawn = x.copy()
        for value, weight in zip(replacement["values"], replacement["weights"], strict=True):
            drawn[:, replacement["columns"]] = value
            explanation.count(of, outcome, linear_predictor(fit, drawn), lower, float(weight))
    return Replaced(counts)


# --- at the server --------------------------------------------------------------------------------------------


class Importance(NamedTuple):
    """Of the patients that were asked about."""

    patients: int
    auc: float  # as it is, of the bins
    falls: Array  # (replacements,)


def importance(
    federation: Federation, fit: Mapping[str, Any], edges: Counts, replacements: Sequence[Replacement], patients: int
) -> Importance:
    """How much the AUC falls with each replacement. One sum.

    Parameters
    ----------
    federation : Federation
        Of `Judged` rows.
    edges : (cells,)
        Lower edges of the cells of the risk; of a part of the patients, cells as much wider.
    patients : int
        Of all sites.

    Raises
    ------
    Undefined
        One class only.
    """
    asked: dict[str, Any] = {"edges": [edges], "replacements": list(replacements)}
    sums = federation.sum(replaced, fit=fit, halvings=halvings(patients, len(replacements)), **asked)
    auc, falls = explanation.falls(sums, edges)
    return Importance(round(float(sums.patients[0].sum())), auc, falls)
