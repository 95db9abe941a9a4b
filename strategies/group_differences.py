"""Group differences: what Table 1 says of two groups beside its test, from figures that it shows anyway.

Standardised differences (Austin, Stat Med 2009; of variables with levels Yang & Dalton, SAS Global Forum 2012), Welch's
t-test, and whether values are missing more often in one group. All say second group less first.
"""

from typing import Any

import numpy as np
from scipy import stats

from cohortium.strategies.rows import Array, Counts

ALIKE = {"undefined": "the values or the groups do not differ enough for this figure"}


def of_means(n: Counts, mean: Array, sd: Array) -> dict[str, Any]:
    """Standardised difference and Welch's p of a continuous variable; arguments (2,)."""
    if (n < 2).any() or not (sd > 0).any():
        return {"standardised_difference": ALIKE, "p_welch": ALIKE}
    tested = stats.ttest_ind_from_stats(mean[1], sd[1], n[1], mean[0], sd[0], n[0], equal_var=False)
    return {
        "standardised_difference": float((mean[1] - mean[0]) / np.sqrt((sd**2).mean())),
        "p_welch": float(tested.pvalue),
    }


def of_levels(table: Counts) -> dict[str, Any]:
    """Standardised difference of a variable with levels, (2, levels): signed for two levels, else a distance."""
    levels = table[:, table.sum(0) > 0]
    n = table.sum(1, keepdims=True)
    if not n.all() or levels.shape[1] < 2:
        return {"standardised_difference": ALIKE}
    share = levels[:, 1:] / n  # the first level follows from the others
    spread = np.mean([np.diag(p) - np.outer(p, p) for p in share], axis=0)
    if np.linalg.cond(spread) > 1e12:
        return {"standardised_difference": ALIKE}
    gap = share[1] - share[0]
    distance = float(np.sqrt(gap @ np.linalg.solve(spread, gap)))
    return {"standardised_difference": distance * (float(np.sign(gap[0])) if len(gap) == 1 else 1.0)}


def missingness(known: Counts, missing: Counts) -> dict[str, Any]:
    """P value that values are missing as often in either group, by Fisher's exact test; nothing where none is."""
    if not missing.any():
        return {}
    return {"p_missing": float(stats.fisher_exact(np.stack([known, missing])).pvalue)}  # pyright: ignore
