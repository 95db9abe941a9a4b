"""Table 1: patients by group, with missing values, mean, SD, median, quartiles, level counts and a p value.

Federated pieces (`continuous`, `categorical`) and the pure functions that write their results as the entries of
results.json. A group is an outcome class (0, 1) or whatever else the rows' group codes stand for.

An entry: {"variable", "kind", "unit", "cohort", "groups": {NAME: {"n", "missing", "mean", "sd", "median", "q1", "q3"}},
"p", "test"}; of a counted variable, a group is {"n", "missing", "levels": {LEVEL: count}}. n counts the patients whose
value is known. A figure that does not exist is {"undefined": reason}.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from cohortium.common.federation import Federation
from cohortium.strategies import levels, moments, quantiles
from cohortium.strategies.moments import Moments
from cohortium.strategies.rows import Array, Counts

QUARTILES = (0.25, 0.5, 0.75)
FEW_EXPECTED = 5
"""Expected count below which a 2 x 2 table is tested with Fisher's exact test instead of chi-squared (Cochran 1954)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuous:
    """p continuous variables in g groups."""

    moments: list[Moments]  # g
    quartiles: Array  # (g, p, 3), NaN without values


@dataclass(frozen=True, kw_only=True, slots=True)
class Categorical:
    """p variables with levels in g groups."""

    patients: Counts  # (g,)
    counts: Counts  # (g, p, levels)


# --- at the server --------------------------------------------------------------------------------------------


def continuous(federation: Federation, columns: int, groups: int = 2) -> Continuous:
    """Describe the columns of `Matrix` rows by group; six sums that travel in four messages."""
    described: list[Any] = federation.together(
        [
            lambda: moments.fit_groups(federation, columns, groups),
            lambda: quantiles.fit_groups(federation, QUARTILES, groups),
        ]
    )
    return Continuous(moments=described[0], quartiles=described[1])


def categorical(federation: Federation, most_levels: int, groups: int = 2) -> Categorical:
    """Count the level codes in the columns of `Matrix` rows by group; one sum.

    Parameters
    ----------
    most_levels : int
        Of the variable that has most; the others leave the last counts at zero.
    """
    at = federation.sum(levels.level_counts, levels=most_levels, groups=groups)
    return Categorical(patients=at.patients, counts=at.counts)


# --- entries of results.json ----------------------------------------------------------------------------------


def continuous_entry(
    described: Continuous, column: int, *, variable: str, unit: str, cohort: str, groups: Sequence[str]
) -> dict[str, Any]:
    """Entry of one continuous variable; the p value is Student's t-test, with more groups analysis of variance."""
    n = np.array([part.n[column] for part in described.moments])
    mean = np.array([part.mean[column] for part in described.moments])
    sd = np.array([part.sd[column] for part in described.moments])
    figures = {}
    for g, name in enumerate(groups):
        quartiles = described.quartiles[g, column]
        figures[name] = {
            "n": int(n[g]),
            "missing": int(described.moments[g].patients - n[g]),
            "mean": _figure(mean[g], n[g] > 0),
            "sd": _figure(sd[g], n[g] > 1),
            **{key: _figure(value, n[g] > 0) for key, value in zip(("q1", "median", "q3"), quartiles, strict=True)},
        }
    p = analysis_of_variance(n, mean, sd)
    return _entry("continuous", variable, unit, cohort, figures, p, "t" if len(groups) == 2 else "anova")


def categorical_entry(
    described: Categorical,
    column: int,
    *,
    variable: str,
    kind: str,
    level_names: Sequence[str],
    cohort: str,
    groups: Sequence[str],
) -> dict[str, Any]:
    """Entry of one binary or categorical variable; chi-squared test, or Fisher's where a 2 x 2 table is sparse."""
    table = described.counts[:, column, : len(level_names)]
    figures = {
        name: {
            "n": int(table[g].sum()),
            "missing": int(described.patients[g] - table[g].sum()),
            "levels": dict(zip(level_names, table[g].tolist(), strict=True)),
        }
        for g, name in enumerate(groups)
    }
    test, p = independence(table)
    return _entry(kind, variable, "", cohort, figures, p, test)


def analysis_of_variance(n: Counts, mean: Array, sd: Array) -> float:
    """P value that g groups (g,) have one mean; with two groups that of Student's t-test. NaN where it is undefined."""
    known = n > 0
    n, mean, sd = n[known], mean[known], sd[known]
    between, within = len(n) - 1, int(n.sum()) - len(n)
    if between < 1 or within < 1:
        return float("nan")
    squares_within = ((n - 1) * sd**2).sum()
    squares_between = (n * (mean - np.average(mean, weights=n)) ** 2).sum()
    if squares_within == 0:
        return 0.0 if squares_between > 0 else float("nan")
    return float(stats.f.sf(squares_between / between / (squares_within / within), between, within))


def independence(table: Counts) -> tuple[str, float]:
    """Name and p value of a test that rows and columns of a table of counts are independent; NaN if undefined.

    Pearson's chi-squared without continuity correction; Fisher's exact test where a 2 x 2 table expects fewer than 5.
    """
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if min(table.shape) < 2:
        return "chi2", float("nan")
    expected = stats.contingency.expected_freq(table)
    if table.shape == (2, 2) and expected.min() < FEW_EXPECTED:
        return "fisher", float(stats.fisher_exact(table).pvalue)  # pyright: ignore[reportAttributeAccessIssue]
    tested = stats.chi2_contingency(table, correction=False)
    return "chi2", float(tested.pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def _entry(
    kind: str, variable: str, unit: str, cohort: str, figures: dict[str, Any], p: float, test: str
) -> dict[str, Any]:
    return {
        "variable": variable,
        "kind": kind,
        "unit": unit,
        "cohort": cohort,
        "groups": figures,
        "p": p if np.isfinite(p) else {"undefined": "the values or the groups do not differ enough for a test"},
        "test": test,
    }


def _figure(value: float, exists: np.bool_) -> Any:
    return float(value) if exists else {"undefined": "too few patients have a value"}
