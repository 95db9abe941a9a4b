"""Staging: the points of a [model.NAME] of kind staging as coefficients; nothing is fitted."""

from typing import Any, cast

import numpy as np

from cohortium.common.study import Study
from cohortium.common.study_data import level_text
from cohortium.common.study_models import StagingModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """The study's points on the raw columns; no sum."""
    del rows, path
    model = cast(StagingModel, federation.study.model[name])
    coefficients = points(federation.study, model, columns.names)
    recipe = columns.recipe | {
        "centre": np.zeros(len(columns)),
        "scale": np.ones(len(columns)),
        "fill": np.nan_to_num(columns.fill),  # of a column that nobody has a value of
    }
    return Fit(
        columns=columns,
        published={**recipe, "coefficients": coefficients},
        terms=("(Intercept)", *columns.names),
        estimates=coefficients,
        no_errors="given by the study, not estimated",
    )


def points(study: Study, model: StagingModel, terms: tuple[str, ...]) -> np.ndarray:
    """Intercept and points of each term, (1 + terms,); the reference level's points are in the intercept."""
    intercept, by_term = model.intercept, {}
    for name, given in model.points.items():
        variable = study.variables[name]
        if not isinstance(given, dict):
            by_term[study.terms(name)[0]] = given
            continue
        reference, *others = (given.get(level_text(level), 0.0) for level in variable.levels)
        intercept += reference
        by_term |= dict(zip(study.terms(name), (value - reference for value in others), strict=True))
    # a column that says where a value is missing scores nothing
    return np.array([intercept, *(by_term.get(term, 0.0) for term in terms)])
