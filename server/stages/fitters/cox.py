"""Cox: the proportional hazards fit of one replicate of a [model.NAME] of kind cox."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from cohortium.common.study_analysis import CoxModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages import inference
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit
from cohortium.server.stages.penalised import path_notes
from cohortium.strategies import cox, firth_cox, likelihood, proportional_hazards
from cohortium.strategies.penalised_search import Profile


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """Newton steps on all columns; the baseline hazard where sites share one."""
    model = cast(CoxModel, federation.study.model[name])
    fit, profile, tests = _fitted(federation, model, rows, columns)
    # a Cox model has no intercept: its score is the linear predictor of the raw columns (study-format: Score)
    uncentred = float(np.sum(fit.coefficients * columns.centre / columns.scale))
    notes: dict[str, Any] = {
        "log_likelihood": fit.log_likelihood,
        "ties": model.ties,
        "strata": model.strata,
        "events": fit.events,
        **path_notes(path),
    }
    if inference.final(rows):
        notes |= {"likelihood_ratio": fit.likelihood_ratio.plain()}
        if tests:
            notes["likelihood_ratio"]["variables"] = inference.variable_tests(columns, tests)
        if model.penalty == "firth":
            notes["penalty"] = "firth"
        else:
            notes |= {"score_test": fit.score.plain(), "aic": fit.aic, "bic": fit.bic}
        if model.proportional_hazards != "none":
            notes["proportional_hazards"] = _hazards_test(federation, model, rows, columns, fit)
    if fit.baseline is not None:
        hazard = fit.baseline.cumulative_hazard * np.exp(-uncentred)  # of a patient with score 0
        notes["baseline"] = {"time": fit.baseline.time.tolist(), "cumulative_hazard": hazard.tolist()}
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": np.concatenate([[uncentred], fit.coefficients])},
        terms=columns.names,
        estimates=fit.coefficients / columns.scale,
        covariance=fit.covariance / np.outer(columns.scale, columns.scale),
        profile=profile,
        notes=notes,
    )


def _fitted(
    federation: StudyFederation, model: CoxModel, rows: dict[str, Any], columns: Columns
) -> tuple[cox.Cox, Profile | None, dict[str, likelihood.ChiSquared]]:
    """The fit, profile intervals and tests of whole variables where the model asks for them, all side by side."""
    view, asked = inference.survival_view(federation.study, model, rows, columns)
    sums, final = federation.rows(view), inference.final(rows)

    def full() -> tuple[cox.Cox, Profile | None]:
        if model.intervals == "profile" and final:
            return firth_cox.fit_with_profile(sums, np.diag(1 / columns.scale), **asked)
        return (firth_cox if model.penalty == "firth" else cox).fit(sums, len(columns), **asked), None

    def without(out: list[int]) -> cox.Cox:
        if model.penalty == "firth":
            return firth_cox.fit(sums, len(columns), zero=out, **asked)
        some = inference.rest_of(columns, out)
        smaller, _ = inference.survival_view(federation.study, model, rows, some)
        return cox.fit(federation.rows(smaller), len(some), **asked)

    groups = inference.grouped(columns) if model.tests == "likelihood_ratio" and final else {}
    tasks: list[Callable[[], Any]] = [full, *(lambda out=out: without(out) for out in groups.values())]
    (fit, profile), *others = federation.together(tasks)
    tests = {
        variable: likelihood.ratio_test(fit.log_likelihood, other.log_likelihood, len(out))
        for (variable, out), other in zip(groups.items(), others, strict=True)
    }
    return fit, profile, tests


def _hazards_test(
    federation: StudyFederation, model: CoxModel, rows: dict[str, Any], columns: Columns, fit: cox.Cox
) -> dict[str, Any]:
    """Scaled Schoenfeld residuals against time, by term and of all terms."""
    view, _ = inference.survival_view(federation.study, model, rows, columns)
    transform = model.proportional_hazards
    assert transform != "none", "asked only of models that name how times count"
    found = proportional_hazards.examine(
        federation.rows(view), fit, transform=transform, ties=model.ties, time_step=view["time_step"]
    )
    terms = [
        {"term": term, "chi2": float(chi2), "df": 1, "p": float(p)}
        for term, chi2, p in zip(columns.names, found.chi2, found.p, strict=True)
    ]
    everything = {"chi2": found.all_columns, "df": len(terms), "p": found.p_all}
    return {"transform": transform, "terms": terms, "global": everything}
