"""Logistic: the fit of one replicate of a [model.NAME] of kind logistic, plain or penalised (Firth).

Site effects and meta-analysis are in `by_site`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from cohortium.common.study_analysis import LogisticModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages import inference
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, in_study_units, labelled, to_study_units
from cohortium.server.stages.fitters import by_site
from cohortium.server.stages.fitters.averaged import averaged, beside_average
from cohortium.server.stages.penalised import path_notes
from cohortium.strategies import firth, likelihood, logistic
from cohortium.strategies.penalised_search import Profile


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """Newton steps on all columns; estimates, covariance and terms in study units."""
    model = cast(LogisticModel, federation.study.model[name])
    if model.site_effects != "none" or model.aggregation == "meta":
        return by_site.fit(federation, model, rows, columns)
    if model.penalty == "firth":
        return _firth(federation, model, rows, columns, path)

    def of(some: Columns) -> logistic.Logistic:
        return logistic.fit(federation.rows(labelled(rows, some)), len(some), names=some.names)

    if model.aggregation == "fedavg":
        fitted, mean = beside_average(federation, name, labelled(rows, columns), lambda: of(columns))
        exact = _fit(columns, fitted, _notes(columns, fitted, rows) | path_notes(path))
        return averaged(columns, exact, fitted.coefficients, mean)
    groups = inference.grouped(columns) if model.tests == "likelihood_ratio" and inference.final(rows) else {}
    designs = [columns, *(inference.rest_of(columns, out) for out in groups.values())]
    fitted, *others = federation.together([lambda some=some: of(some) for some in designs])
    notes = _notes(columns, fitted, rows)
    if groups:
        tests = {
            variable: likelihood.ratio_test(fitted.log_likelihood, other.log_likelihood, len(out))
            for (variable, out), other in zip(groups.items(), others, strict=True)
        }
        notes["likelihood_ratio"]["variables"] = inference.variable_tests(columns, tests)
    return _fit(columns, fitted, notes | path_notes(path))


def _firth(federation: StudyFederation, model: LogisticModel, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """As `fit`; its tests compare with the penalty of the full design, as logistf does."""
    sums, final = federation.rows(labelled(rows, columns)), inference.final(rows)

    def full() -> tuple[firth.Firth, Profile | None]:
        if model.intervals == "profile" and final:
            return firth.fit_with_profile(sums, to_study_units(columns), names=columns.names)
        return firth.fit(sums, len(columns), names=columns.names), None

    def without(zero: Sequence[int]) -> firth.Firth:
        return firth.fit(sums, len(columns), names=columns.names, zero=zero)

    groups = inference.grouped(columns)
    zeros = [range(len(columns)), *groups.values()] if model.tests == "likelihood_ratio" and final else []
    tasks: list[Callable[[], Any]] = [full, *(lambda zero=zero: without(zero) for zero in zeros)]
    (fitted, profile), *reduced = federation.together(tasks)
    notes = {
        "log_likelihood": fitted.log_likelihood,
        "penalised_log_likelihood": fitted.penalised_log_likelihood,
        "patients": fitted.patients,
        "penalty": "firth",
        **(inference.inflation(columns, fitted.gram) if final else {}),
        **path_notes(path),
    }
    if reduced:
        of_all, *of_each = (firth.ratio_test(fitted, one, len(zero)) for zero, one in zip(zeros, reduced, strict=True))
        variables = inference.variable_tests(columns, dict(zip(groups, of_each, strict=True)))
        notes["likelihood_ratio"] = {**of_all.plain(), "variables": variables}
    return replace(_fit(columns, fitted, notes), profile=profile)


def _fit(columns: Columns, fitted: logistic.Logistic | firth.Firth, notes: dict[str, Any]) -> Fit:
    estimates, covariance = in_study_units(columns, fitted.coefficients, fitted.covariance)
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": fitted.coefficients},
        terms=("(Intercept)", *columns.names),
        estimates=estimates,
        covariance=covariance,
        notes=notes,
    )


def _notes(columns: Columns, fitted: logistic.Logistic, rows: dict[str, Any]) -> dict[str, Any]:
    """What follows from the fit's own sums."""
    notes: dict[str, Any] = {"log_likelihood": float(fitted.log_likelihood), "patients": int(fitted.patients)}
    if inference.final(rows):
        notes |= {
            "aic": fitted.aic,
            "bic": fitted.bic,
            "likelihood_ratio": fitted.likelihood_ratio.plain(),
            **inference.inflation(columns, fitted.gram),
        }
    return notes
