"""Logistic: the maximum-likelihood fit of one replicate of a [model.NAME] of kind logistic."""

from typing import Any, cast

from cohortium.common.study_analysis import LogisticModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, in_study_units, labelled
from cohortium.server.stages.fitters.averaged import average, averaged
from cohortium.server.stages.penalised import path_notes
from cohortium.strategies import logistic


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """Newton steps on all columns; estimates, covariance and terms in study units."""
    model = cast(LogisticModel, federation.study.model[name])
    view = labelled(rows, columns)
    tasks: list[Any] = [lambda: logistic.fit(federation.rows(view), len(columns), names=columns.names)]
    if model.aggregation == "fedavg":
        tasks.append(lambda: average(federation, name, view))
    fit, *means = federation.together(tasks)
    estimates, covariance = in_study_units(columns, fit.coefficients, fit.covariance)
    exact = Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": fit.coefficients},
        terms=("(Intercept)", *columns.names),
        estimates=estimates,
        covariance=covariance,
        notes={"log_likelihood": float(fit.log_likelihood), "patients": int(fit.patients), **path_notes(path)},
    )
    return averaged(columns, exact, fit.coefficients, means[0]) if means else exact
