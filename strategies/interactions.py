"""Interactions: does a model do as well in one level of a subgroup as in the others? From the subgroups' own figures.

Subgroups hold different patients, so their figures are independent and Cochran's Q compares them. For the calibration
slope this is the Wald test of the products of subgroup and logit in one logistic model with the subgroups' intercepts:
its information falls into blocks, so that its coefficients and errors are those of the subgroups fitted apart. For the
AUC the errors are DeLong's. No sum of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from cohortium.strategies import multiplicity
from cohortium.strategies.wald import interval

FIGURES = ("auc", "calibration.slope")
Figures = Mapping[str, Any]


def heterogeneity(estimates: Sequence[float], errors: Sequence[float]) -> tuple[float, int, float]:
    """Cochran's Q of independent estimates, its degrees of freedom and p."""
    weight = 1 / np.asarray(errors) ** 2
    values = np.asarray(estimates)
    q = float(weight @ (values - weight @ values / weight.sum()) ** 2)
    return q, len(values) - 1, float(stats.chi2.sf(q, len(values) - 1))


def interactions(cohorts: Mapping[str, Mapping[str, Figures]], subgroups: Sequence[str]) -> list[dict[str, Any]]:
    """Tests of every model's figures between the levels of every subgroup variable.

    Parameters
    ----------
    cohorts : cohort -> model -> figures
        As in results.json; of a subgroup the cohort is ``PART/subgroup:VAR=LEVEL``.
    subgroups : sequence of str
        Variables.

    Returns
    -------
    list of ``cohort``, ``variable``, ``model``, ``figure``, ``test`` (``wald``), ``levels``, ``chi2``, ``df``, ``p``
    with ``p_holm`` and ``p_bh`` over the tests of a cohort; of two levels also ``difference`` (second - first), ``ci``
    """
    found = []
    for cohort in cohorts:
        if "/subgroup:" in cohort or "/analysis:" in cohort:
            continue
        entries = []
        for variable in subgroups:
            prefix = f"{cohort}/subgroup:{variable}="
            levels = {name.removeprefix(prefix): cohorts[name] for name in cohorts if name.startswith(prefix)}
            for model, figure in _asked(levels):
                entries.append({"cohort": cohort, **_tested(variable, model, figure, levels)})
        found += multiplicity.adjusted(entries)
    return found


def _asked(levels: Mapping[str, Mapping[str, Figures]]) -> list[tuple[str, str]]:
    models = dict.fromkeys(model for level in levels.values() for model in level)
    return [
        (model, figure)
        for model in models
        for figure in FIGURES
        if any(figure.partition(".")[0] in level.get(model, {}) for level in levels.values())
    ]


def _tested(variable: str, model: str, figure: str, levels: Mapping[str, Mapping[str, Figures]]) -> dict[str, Any]:
    known = {level: found for level, of in levels.items() if (found := _with_error(of.get(model, {}), figure))}
    entry = {"variable": variable, "model": model, "figure": figure, "test": "wald", "levels": list(known)}
    if len(known) < 2:
        none = {"undefined": "fewer than two levels have this figure with a standard error"}
        return entry | dict.fromkeys(("chi2", "df", "p"), none)
    estimates, errors = zip(*known.values(), strict=True)
    chi2, df, p = heterogeneity(estimates, errors)
    entry |= {"chi2": chi2, "df": df, "p": p}
    if len(known) == 2:
        difference = estimates[1] - estimates[0]
        entry |= {"difference": difference, "ci": list(interval(difference, float(np.hypot(*errors))))}
    return entry


def _with_error(figures: Figures, figure: str) -> tuple[float, float] | None:
    """Estimate and standard error; None where either is not there or nothing varies."""
    if figure == "auc":
        area = figures.get("auc", {})
        estimate, error = area.get("estimate"), area.get("se")
    else:
        calibration = figures.get("calibration", {})
        estimate, limits = calibration.get("slope"), calibration.get("slope_ci")
        if not isinstance(limits, list):
            return None
        # of a predicted number the interval is Student's, and the error stands beside it
        error = calibration.get("slope_se", (limits[1] - limits[0]) / 2 / stats.norm.ppf(0.975))
    if not isinstance(estimate, float) or not isinstance(error, float) or error <= 1e-9:
        return None
    return float(estimate), float(error)
