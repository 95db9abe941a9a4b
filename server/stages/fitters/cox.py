"""Cox: the proportional hazards fit of one replicate of a [model.NAME] of kind cox."""

from typing import Any, cast

import numpy as np

from cohortium.common.study_analysis import CoxModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit
from cohortium.server.stages.penalised import path_notes
from cohortium.strategies import cox
from cohortium.strategies.cohort_figures import time_step


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """Newton steps on all columns; the baseline hazard where sites share one."""
    study, model = federation.study, cast(CoxModel, federation.study.model[name])
    # each site's own baseline needs no common time grid: nothing of single times leaves the site
    step = time_step(study, model.endpoint) if model.strata == "none" else None
    view = {"kind": "survival", "rows": rows, "endpoint": model.endpoint, "time_step": step, **columns.recipe}
    fit = cox.fit(federation.rows(view), len(columns), ties=model.ties, strata=model.strata, time_step=step)
    # a Cox model has no intercept: its score is the linear predictor of the raw columns (study-format: Score)
    uncentred = float(np.sum(fit.coefficients * columns.centre / columns.scale))
    notes: dict[str, Any] = {
        "log_likelihood": fit.log_likelihood,
        "ties": model.ties,
        "strata": model.strata,
        "events": fit.events,
        **path_notes(path),
    }
    if fit.baseline is not None:
        hazard = fit.baseline.cumulative_hazard * np.exp(-uncentred)  # of a patient with score 0
        notes["baseline"] = {"time": fit.baseline.time.tolist(), "cumulative_hazard": hazard.tolist()}
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": np.concatenate([[uncentred], fit.coefficients])},
        terms=columns.names,
        estimates=fit.coefficients / columns.scale,
        covariance=fit.covariance / np.outer(columns.scale, columns.scale),
        notes=notes,
    )
