"""Inference: what is told of a fitted regression beside its coefficients, and the columns of the reduced fits it needs.

Only the final fit is looked at; replicates of cross-validation are there to predict.
"""

from typing import Any

from cohortium.common.study import Study
from cohortium.server.stages.columns import Columns
from cohortium.strategies import likelihood
from cohortium.strategies.cohort_figures import time_step
from cohortium.strategies.rows import Array


def grouped(columns: Columns) -> dict[str, list[int]]:
    """Columns of each variable, in order."""
    groups: dict[str, list[int]] = {}
    for index, column in enumerate(columns.columns):
        groups.setdefault(column.variable, []).append(index)
    return groups


def rest_of(columns: Columns, out: list[int]) -> Columns:
    """The columns that are not in `out`."""
    return columns.take([index for index in range(len(columns)) if index not in out])


def variable_tests(columns: Columns, tests: dict[str, likelihood.ChiSquared]) -> list[dict[str, Any]]:
    """What results.json says of the test of each variable."""
    groups = grouped(columns)
    return [{"variable": name, "terms": len(groups[name]), **test.plain()} for name, test in tests.items()]


def inflation(columns: Columns, gram: Array) -> dict[str, Any]:
    """Variance inflation of each variable, of a design with an intercept; nothing where there is one variable."""
    groups = grouped(columns)
    if len(groups) < 2:
        return {}
    factors = likelihood.variance_inflation(likelihood.correlation_of(gram), groups)
    return {"variance_inflation": [{"variable": v, "terms": len(groups[v]), "gvif": f} for v, f in factors.items()]}


def survival_view(
    study: Study, model: Any, rows: dict[str, Any], columns: Columns
) -> tuple[dict[str, Any], dict[str, Any]]:
    """View of a survival endpoint's design, and how a Cox model of it is fitted: ties, strata, grid of times."""
    strata = getattr(model, "strata", "site")
    # each site's own baseline needs no common time grid: nothing of single times leaves the site
    step = time_step(study, model.endpoint) if strata == "none" else None
    view = {"kind": "survival", "rows": rows, "endpoint": model.endpoint, "time_step": step, **columns.recipe}
    return view, {"ties": getattr(model, "ties", "efron"), "strata": strata, "time_step": step}


def final(rows: dict[str, Any]) -> bool:
    """Whether these are the rows of a model's final fit."""
    return not rows.get("without")
