"""Linear: the least-squares fit of one replicate of a [model.NAME] of kind linear."""

from typing import Any

import numpy as np

from cohortium.server.federation import StudyFederation
from cohortium.server.stages import inference
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, in_study_units, labelled
from cohortium.server.stages.outcome import standardise
from cohortium.server.stages.penalised import path_notes
from cohortium.strategies import linear


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """One sum of cross products, the outcome standardised first; estimates and covariance in study units."""
    del name
    outcome = standardise(federation, rows)
    view = labelled(rows, columns, **outcome.recipe)
    fitted = linear.fit(federation.rows(view), len(columns), names=columns.names)
    coefficients = outcome.in_its_unit(fitted.coefficients)
    estimates, covariance = in_study_units(columns, coefficients, fitted.covariance * outcome.scale**2)
    notes: dict[str, Any] = {
        "patients": fitted.patients,
        "r_squared": fitted.r_squared,
        "residual_sd": float(np.sqrt(fitted.residual_variance)) * outcome.scale,
        "degrees_of_freedom": fitted.degrees_of_freedom,
        **path_notes(path),
    }
    if inference.final(rows):
        notes |= {"adjusted_r_squared": fitted.adjusted_r_squared, **inference.inflation(columns, fitted.gram)}
        if len(columns):
            notes["f_test"] = fitted.f_test
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": coefficients},
        terms=("(Intercept)", *columns.names),
        estimates=estimates,
        covariance=covariance,
        degrees_of_freedom=np.full(len(estimates), float(fitted.degrees_of_freedom)),
        notes=notes,
    )
