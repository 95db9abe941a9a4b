"""Logistic: the maximum-likelihood fit of one replicate of a [model.NAME] of kind logistic."""

from typing import Any, cast

from cohortium.common.errors import StudyError
from cohortium.common.study_analysis import LogisticModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, in_study_units, labelled
from cohortium.server.stages.penalised import path_notes
from cohortium.strategies import logistic


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """Newton steps on all columns; estimates, covariance and terms in study units."""
    model = cast(LogisticModel, federation.study.model[name])
    if model.aggregation != "exact":
        raise StudyError(
            f'study.toml [model.{name}] aggregation = "fedavg" is not available in this version; use "exact"'
        )
    fit = logistic.fit(federation.rows(labelled(rows, columns)), len(columns), names=columns.names)
    estimates, covariance = in_study_units(columns, fit.coefficients, fit.covariance)
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": fit.coefficients},
        terms=("(Intercept)", *columns.names),
        estimates=estimates,
        covariance=covariance,
        notes={"log_likelihood": float(fit.log_likelihood), "patients": int(fit.patients), **path_notes(path)},
    )
