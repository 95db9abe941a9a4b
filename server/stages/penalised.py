"""Penalised: the path of one replicate, for a [model.NAME] of kind lasso and for a LASSO selection step."""

from functools import partial
from typing import Any

from cohortium.common.study_analysis import LassoModel, LassoSelection
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.outcome import standardise
from cohortium.strategies import lasso, lasso_cox
from cohortium.strategies.lasso_path import LassoPath


def penalised_path(
    federation: StudyFederation, rows: dict[str, Any], columns: Columns, settings: LassoModel | LassoSelection
) -> LassoPath:
    """The path of all columns with its inner cross-validation; of a survival endpoint stratified by site.

    Of a continuous endpoint the outcome is standardised too: coefficients and lambda are on that scale.
    """
    kind = federation.study.endpoint[rows["endpoint"]].kind
    fits = {"binary": lasso.fit, "survival": lasso_cox.fit, "continuous": partial(lasso.fit, family="linear")}
    return fits[kind](
        federation.rows(path_view(federation, rows, columns, settings)),
        len(columns),
        n_lambda=settings.n_lambda,
        folds=settings.folds,
        rule=settings.lambda_,
        mixing=settings.mixing,
    )


def path_view(
    federation: StudyFederation,
    rows: dict[str, Any],
    columns: Columns,
    settings: LassoModel | LassoSelection | None = None,
) -> dict[str, Any]:
    """View of the columns with the outcome, and the inner folds of what is cross-validated."""
    kind = federation.study.endpoint[rows["endpoint"]].kind
    view = {"kind": "survival" if kind == "survival" else "labelled", "rows": rows, "endpoint": rows["endpoint"]}
    if kind == "continuous":
        view |= standardise(federation, rows).recipe
    if kind == "survival":  # a site's patients are compared among themselves: their times are taken as they are
        view["time_step"] = None
    return view | columns.recipe | ({} if settings is None else {"inner_folds": settings.folds})


def path_notes(path: LassoPath | None) -> dict[str, Any]:
    """What the report says of a path: the chosen lambda and the cross-validated deviance."""
    if path is None:
        return {}
    return {
        "lambda": float(path.lambdas[path.index]),
        "path": {
            "lambda": path.lambdas.tolist(),
            "nonzero": (path.coefficients[:, 1:] != 0).sum(axis=1).tolist(),
            "cv_deviance": path.cv_deviance.tolist(),
            "cv_deviance_se": path.cv_se.tolist(),
        },
    }
