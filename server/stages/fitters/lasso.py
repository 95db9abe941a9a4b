"""LASSO: the penalised path of one replicate of a [model.NAME] of kind lasso, and what its cross-validation chose."""

from typing import Any, cast

import numpy as np

from cohortium.common.errors import StudyError
from cohortium.common.study_analysis import LassoModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, in_study_units, labelled
from cohortium.strategies import lasso


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """The path on all columns; keeps the terms that the chosen lambda leaves."""
    model = cast(LassoModel, federation.study.model[name])
    if model.aggregation != "exact":
        raise StudyError(
            f'study.toml [model.{name}] aggregation = "fedavg" is not available in this version; use "exact"'
        )
    path = lasso.fit(
        federation.rows(labelled(rows, columns, inner_folds=model.folds)),
        len(columns),
        n_lambda=model.n_lambda,
        folds=model.folds,
        rule=model.lambda_,
    )
    kept = path.selected
    columns, coefficients = columns.take(kept), path.chosen[np.concatenate([[0], kept + 1])]
    estimates, _ = in_study_units(columns, coefficients, np.zeros((len(coefficients),) * 2))
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": coefficients},
        terms=("(Intercept)", *columns.names),
        estimates=estimates,
        notes=path_notes(path),
    )


def path_notes(path: Any) -> dict[str, Any]:
    """What the report says of a LASSO path: the chosen lambda and the cross-validated deviance."""
    if path is None:
        return {}
    return {
        "lambda": float(path.lambdas[path.index]),
        "path": {
            "lambda": path.lambdas.tolist(),
            "nonzero": np.count_nonzero(path.coefficients[:, 1:], axis=1).tolist(),
            "cv_deviance": path.cv_deviance.tolist(),
            "cv_deviance_se": path.cv_se.tolist(),
        },
    }
