"""LASSO: the penalised path of one replicate of a [model.NAME] of kind lasso, and what its cross-validation chose."""

from typing import Any, cast

import numpy as np

from cohortium.common.study_analysis import LassoModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, to_study_units
from cohortium.server.stages.fitters.averaged import averaged, beside_average
from cohortium.server.stages.outcome import Outcome, standardise
from cohortium.server.stages.penalised import path_notes, path_view, penalised_path
from cohortium.strategies.lasso_path import LassoPath


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """The path on all columns; keeps the terms that the chosen lambda leaves."""
    model = cast(LassoModel, federation.study.model[name])
    kind = federation.study.endpoint_of(name).kind
    survival = kind == "survival"
    if kind == "continuous":
        path = penalised_path(federation, rows, columns, model)
        outcome = standardise(federation, rows)  # asked before, and remembered
        return _chosen(columns, path, survival=False, outcome=outcome)
    if model.aggregation == "exact":
        return _chosen(columns, penalised_path(federation, rows, columns, model), survival=survival)
    view = path_view(federation, rows, columns, model)
    path, mean = beside_average(federation, name, view, lambda: penalised_path(federation, rows, columns, model))
    return averaged(columns, _chosen(columns, path, survival=survival), path.chosen, mean)


def _chosen(columns: Columns, path: LassoPath, *, survival: bool, outcome: Outcome | None = None) -> Fit:
    kept = path.selected
    columns, coefficients = columns.take(kept), path.chosen[np.concatenate([[0], kept + 1])]
    if outcome is not None:
        coefficients = outcome.in_its_unit(coefficients)
    if survival:  # as in a Cox model: no intercept, so that the score is the linear predictor of the raw columns
        coefficients[0] = np.sum(coefficients[1:] * columns.centre / columns.scale)
    estimates = to_study_units(columns) @ coefficients
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": coefficients},
        terms=columns.names if survival else ("(Intercept)", *columns.names),
        estimates=estimates[1:] if survival else estimates,
        notes=path_notes(path),
    )
