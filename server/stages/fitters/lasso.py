"""LASSO: the penalised path of one replicate of a [model.NAME] of kind lasso, and what its cross-validation chose."""

from typing import Any, cast

import numpy as np

from cohortium.common.errors import StudyError
from cohortium.common.study_analysis import LassoModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, in_study_units
from cohortium.server.stages.penalised import path_notes, penalised_path


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """The path on all columns; keeps the terms that the chosen lambda leaves."""
    model = cast(LassoModel, federation.study.model[name])
    if model.aggregation != "exact":
        raise StudyError(
            f'study.toml [model.{name}] aggregation = "fedavg" is not available in this version; use "exact"'
        )
    path = penalised_path(federation, rows, columns, model)
    kept = path.selected
    columns, coefficients = columns.take(kept), path.chosen[np.concatenate([[0], kept + 1])]
    no_errors = np.zeros((len(coefficients),) * 2)
    if federation.study.endpoint[model.endpoint].kind == "survival":
        # as in a Cox model: no intercept, so that the score is the linear predictor of the raw columns
        coefficients[0] = np.sum(coefficients[1:] * columns.centre / columns.scale)
        terms, estimates = columns.names, in_study_units(columns, coefficients, no_errors)[0][1:]
    else:
        terms, estimates = ("(Intercept)", *columns.names), in_study_units(columns, coefficients, no_errors)[0]
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": coefficients},
        terms=terms,
        estimates=estimates,
        notes=path_notes(path),
    )
