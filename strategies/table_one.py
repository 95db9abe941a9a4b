"""Table 1: patients by group, with missing values, mean, SD, median, quartiles, level counts and a p value.

Federated pieces (`continuous`, `categorical`) and the pure functions that write their results as the entries of
results.json. A group is an outcome class (0, 1) or whatever else the rows' group codes stand for.

An entry: {"variable", "kind", "unit", "cohort", "groups": {NAME: {"n", "missing", "mean", "sd", "median", "q1", "q3"}},
"p", "test"} and, of two groups, "overall" (both groups: of a continuous variable without quartiles) and what
group_differences.py gives; of a counted variable, a group is {"n", "missing", "levels": {LEVEL: count}}. n counts the
patients whose value is known. A figure that does not exist is {"undefined": reason}.

Where a few missing values must not be told (strategies/describe.py), the first level of a counted variable is "LEVEL or
missing", and a continuous variable has the one group "all"; "p", and the counts that would tell, are withheld.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from cohortium.common.federation import Federation
from cohortium.strategies import group_differences, levels, mann_whitney, moments, quantiles
from cohortium.strategies.mann_whitney import MannWhitney
from cohortium.strategies.moments import Moments
from cohortium.strategies.rows import Array, Counts

QUARTILES = (0.25, 0.5, 0.75)
EVERYONE = "all"
"""Name of the group of all patients."""
ONE_GROUP = {"undefined": "the primary endpoint is a number: all patients are one group, and nothing is compared"}
DIGITS = 3
"""Significant digits of figures from whose exact values the number of patients behind them could be worked out."""
FEW_EXPECTED = 5
"""Expected count below which a 2 x 2 table is tested with Fisher's exact test instead of chi-squared (Cochran 1954)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuous:
    """p continuous variables in g groups."""

    moments: list[Moments]  # g
    quartiles: Array  # (g, p, 3), NaN without values
    ranks: MannWhitney | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Categorical:
    """p variables with levels in g groups."""

    patients: Counts  # (g,)
    counts: Counts  # (g, p, levels)


# --- at the server --------------------------------------------------------------------------------------------


def continuous(federation: Federation, columns: int, groups: int = 2, *, ranks: bool = False) -> Continuous:
    """Describe the columns of `Matrix` rows by group; six sums that travel in four messages.

    With `ranks` also Mann-Whitney tests of two groups: two sums more, in the same messages.
    """

    def spread() -> tuple[list[Moments], MannWhitney | None]:
        found = moments.fit_groups(federation, columns, groups)
        if not ranks or groups != 2:
            return found, None
        n, mean, sd = (np.nan_to_num([getattr(of, key) for of in found]) for key in ("n", "mean", "sd"))
        centre = (n * mean).sum(axis=0) / np.maximum(n.sum(axis=0), 1)
        return found, mann_whitney.compare(federation, centre, sd.max(axis=0))

    described: list[Any] = federation.together([spread, lambda: quantiles.fit_groups(federation, QUARTILES, groups)])
    return Continuous(moments=described[0][0], quartiles=described[1], ranks=described[0][1])


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
    figures = {name: _described(described.moments[g], described.quartiles[g], column) for g, name in enumerate(groups)}
    p = analysis_of_variance(n, mean, sd)
    entry = _entry("continuous", variable, unit, cohort, figures, p, "t" if len(groups) == 2 else "anova")
    if described.ranks is not None:
        alike = n.min() == 0 or not (sd > 0).any()
        bounds = [float(p[column]) for p in (described.ranks.least, described.ranks.most)]
        none = dict.fromkeys(("p_mann_whitney", "p_mann_whitney_bounds"), group_differences.ALIKE)
        known = {"p_mann_whitney": float(described.ranks.p[column]), "p_mann_whitney_bounds": bounds}
        entry |= none if alike else known
    if len(groups) != 2:
        return entry
    return (
        entry | {"overall": _both(figures, n, mean, sd)} | group_differences.of_means(n, mean, sd) | _missing(figures)
    )


def _both(figures: dict[str, Any], n: Counts, mean: Array, sd: Array) -> dict[str, Any]:
    """Mean and SD of all groups together, from those of each; n, mean and sd (g,), NaN where a group has too few."""
    mean, within = np.where(n > 0, mean, 0.0), np.where(n > 1, (n - 1) * sd**2, 0.0).sum()
    known = n.sum()
    centre = (n * mean).sum() / max(known, 1)
    spread = np.sqrt((within + (n * (mean - centre) ** 2).sum()) / max(known - 1, 1))
    missing = sum(figure["missing"] for figure in figures.values())
    exact = {"mean": _figure(centre, known > 0), "sd": _figure(spread, known > 1)}
    return {"n": int(known), "missing": missing} | exact


def _described(moments_: Moments, quartiles: Array, column: int) -> dict[str, Any]:
    n = moments_.n[column]
    return {
        "n": int(n),
        "missing": int(moments_.patients - n),
        "mean": _figure(moments_.mean[column], n > 0),
        "sd": _figure(moments_.sd[column], n > 1),
        **{key: _figure(value, n > 0) for key, value in zip(("q1", "median", "q3"), quartiles[column], strict=True)},
    }


def ungrouped_entry(
    described: Continuous, *, variable: str, unit: str, cohort: str, minimum_count: int
) -> dict[str, Any]:
    """Entry of one continuous variable that sites give for all groups together only.

    Fewer than `minimum_count` missing values of all sites are not told, nor is how many are known; the other figures
    are then rounded: a mean in full is a fraction that shows its denominator.
    """
    figures = _described(described.moments[0], described.quartiles[0], 0)
    few = f"fewer than minimum_count = {minimum_count} patients have a missing value, or a known one"
    if 0 < figures["missing"] < minimum_count or (figures["missing"] and 0 < figures["n"] < minimum_count):
        rounded = {key: _rounded(value) for key, value in figures.items() if key not in ("n", "missing")}
        figures = {"n": {"withheld": few}, "missing": {"withheld": few}, **rounded}
    entry = _entry("continuous", variable, unit, cohort, {EVERYONE: figures}, float("nan"), "t")
    return entry | {"p": {"withheld": f"by group, {few} at a site"}}


def merged_entry(
    described: Categorical, *, variable: str, kind: str, level_names: Sequence[str], cohort: str, groups: Sequence[str]
) -> dict[str, Any]:
    """Entry of one variable with levels whose missing values sites count as the first level only."""
    first, *others = level_names
    names = [f"{first} or missing", *others]
    named = {"variable": variable, "kind": kind, "cohort": cohort, "groups": groups}
    entry = categorical_entry(described, 0, level_names=names, **named)
    few = {"withheld": f"told only together with {first}: a site has too few missing values in a group"}
    figures = {name: figure | {"missing": few} for name, figure in entry["groups"].items()}
    overall = {"overall": entry["overall"] | {"missing": few}} if "overall" in entry else {}
    by_group = dict.fromkeys(entry.keys() & {"p", "p_missing", "standardised_difference"}, few)
    return entry | {"groups": figures} | overall | by_group


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
    entry = _entry(kind, variable, "", cohort, figures, p, test)
    if len(groups) != 2:
        return entry
    overall = {
        "n": int(table.sum()),
        "missing": sum(figure["missing"] for figure in figures.values()),
        "levels": dict(zip(level_names, table.sum(0).tolist(), strict=True)),
    }
    return entry | {"overall": overall} | group_differences.of_levels(table) | _missing(figures)


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


def _missing(figures: dict[str, Any]) -> dict[str, Any]:
    counts = np.array([[figure["n"], figure["missing"]] for figure in figures.values()])
    return group_differences.missingness(*counts.T)


def _entry(
    kind: str, variable: str, unit: str, cohort: str, figures: dict[str, Any], p: float, test: str
) -> dict[str, Any]:
    return {
        "variable": variable,
        "kind": kind,
        "unit": unit,
        "cohort": cohort,
        "groups": figures,
        "p": _tested(p, len(figures)),
        "test": test,
    }


def _tested(p: float, groups: int) -> Any:
    if np.isfinite(p):
        return p
    if groups == 1:
        return ONE_GROUP
    return {"undefined": "the values or the groups do not differ enough for a test"}


def _figure(value: float, exists: np.bool_) -> Any:
    return float(value) if exists else {"undefined": "too few patients have a value"}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
