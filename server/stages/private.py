"""Private: the stages of a study under [privacy.dp], whose every sum is noised at the sites (common/privacy_plan.py).

Table 1 of counted variables, logistic models by noisy gradients, and the AUC from noised counts in public cells. What
else a study usually reports is withheld and says so.
"""

import math
from typing import Any, cast

import numpy as np

from cohortium.common import privacy_plan
from cohortium.common.errors import SumRefused, Undefined
from cohortium.common.study import Study
from cohortium.common.study_data import Variable, level_text
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Column, Columns
from cohortium.server.stages.fitted import Fit, FittedModel, to_study_units
from cohortium.server.stages.validate import Validated
from cohortium.strategies import class_histogram, noisy_logistic, table_one, views
from cohortium.strategies.describe import outcome_groups

NOT_NOISED = "not available under differential privacy in this version"
PARTS = ("train", "internal", "external")
UNAVAILABLE = ("roc", "pr", "average_precision", "brier", "calibration", "decision_curve", "at_cutoff")


def describe(federation: StudyFederation) -> list[dict[str, Any]]:
    """Table 1 by outcome: noised level counts; means and quartiles are withheld."""
    study = federation.study
    asked = [(part, variable) for part in PARTS if study.hides_its_sites(part) for variable in study.variable]
    return federation.together([lambda part=p, variable=v: _entry(federation, part, variable) for p, v in asked])


def _entry(federation: StudyFederation, part: str, variable: Variable) -> dict[str, Any]:
    study = federation.study
    withheld = {"variable": variable.name, "kind": variable.kind, "cohort": part}
    if variable.kind == "continuous":
        return withheld | {"withheld": NOT_NOISED}
    primary, groups = study.study.primary, outcome_groups(study)
    rows = {"part": part, "endpoint": primary}
    view = {"kind": "matrix", "rows": rows, "group": primary, "blocks": [{"terms": [variable.name]}]}
    try:
        counted = table_one.categorical(federation.rows(view), len(variable.levels), len(groups))
    except SumRefused as refusal:
        return withheld | {"withheld": str(refusal)}
    figures = {}
    for g, name in enumerate(groups):
        levels = counted.counts[g, 0].clip(0).tolist()  # noise may take a small count below zero
        figures[name] = {
            "n": sum(levels),
            "missing": max(0, int(counted.patients[g]) - sum(levels)),
            "levels": dict(zip(map(level_text, variable.levels), levels, strict=True)),
        }
    entry = {**withheld, "unit": "", "groups": figures, "p": {"withheld": NOT_NOISED}, "test": "chi2"}
    return {key: entry[key] for key in ("variable", "kind", "unit", "cohort", "groups", "p", "test")}


def fit_models(federation: StudyFederation) -> dict[str, FittedModel]:
    """Every model, by gradients whose clipped sums are noised."""
    study = federation.study
    with federation.progress.stage("fit under noise", total=len(study.model)):
        fits = federation.together([lambda name=name: _fit(federation, name) for name in study.model])
    fitted = {}
    for name, fit in zip(study.model, fits, strict=True):
        outcome = study.endpoint_of(name).kind
        published = {"name": name, "outcome": outcome, "replicates": {views.key_of(()): fit.published}}
        fitted[name] = FittedModel(digest=federation.publish(published), final=fit, replicates={(): fit})
    return fitted


def _fit(federation: StudyFederation, name: str) -> Fit:
    study, dp = federation.study, federation.study.privacy.dp
    assert dp is not None
    columns, endpoint = public_columns(study, name), study.model[name].endpoint
    rows = {"part": "train", "endpoint": endpoint}
    view = {"kind": "labelled", "rows": rows, "endpoint": endpoint, **columns.recipe}
    found = noisy_logistic.fit(federation.rows(view), len(columns), clip=dp.clip, rounds=privacy_plan.ROUNDS)
    estimates = to_study_units(columns) @ found
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": found},
        terms=("(Intercept)", *columns.names),
        estimates=estimates,
        notes={"rounds": privacy_plan.ROUNDS, "clip": dp.clip},
    )


def public_columns(study: Study, model: str) -> Columns:
    """Columns of a model, each between -1 and 1 by what the study file says alone: ranges and levels, no data."""
    columns, centre, scale = [], [], []
    for predictor in study.model[model].predictors:
        variable = study.variables[predictor]
        low, high = cast(tuple[float, float], variable.range) if variable.kind == "continuous" else (-1.0, 1.0)
        for term in variable.terms:
            columns.append(Column(name=term, variable=predictor, source=("terms", term, None)))
            centre.append((low + high) / 2)
            scale.append((high - low) / 2)
    return Columns(columns=tuple(columns), centre=np.array(centre), scale=np.array(scale), fill=np.array(centre))


def validate(federation: StudyFederation, fitted: dict[str, FittedModel]) -> Validated:
    """Patients, events and AUC of every model in every part that enough sites hold."""
    study = federation.study
    by_endpoint: dict[str, list[str]] = {}
    for name in fitted:
        by_endpoint.setdefault(study.model[name].endpoint, []).append(name)
    parts = [part for part in PARTS if study.sites_of(part)]
    result = Validated(held_by={part: study.sites_of(part) for part in parts if study.hides_its_sites(part)})
    asked = [(part, endpoint) for part in parts for endpoint in by_endpoint]
    with federation.progress.stage("validate under noise", total=len(parts)):
        found = federation.together(
            [lambda p=p, e=e: _figures(federation, p, e, by_endpoint[e], fitted) for p, e in asked]
        )
    for (part, _), figures in zip(asked, found, strict=True):
        result.cohorts.setdefault(part, {}).update(figures)
    return result


def _figures(
    federation: StudyFederation, part: str, endpoint: str, names: list[str], fitted: dict[str, FittedModel]
) -> dict[str, dict[str, Any]]:
    study, cells, statistic = federation.study, class_histogram.CELLS, class_histogram.patients
    if not study.hides_its_sites(part):
        return {
            name: {"withheld": "a part that few sites hold is not validated under differential privacy"}
            for name in names
        }
    models = [fitted[name].digest for name in names]
    rows = {"part": part, "endpoint": endpoint}
    view = {"kind": "scored", "rows": rows, "endpoint": endpoint, "of": "final", "models": models}
    try:
        counts = federation.rows(view).sum(statistic, cells=cells).patients
    except SumRefused as refusal:
        return {name: {"withheld": str(refusal)} for name in names}
    assert statistic.sensitivity is not None
    moved = statistic.sensitivity(class_histogram.ClassHistogram(counts), cells=cells)
    sigma = privacy_plan.noise_of_a_site(study, statistic.name, moved) * math.sqrt(len(study.sites))
    return {name: _of_model(table, sigma) for name, table in zip(names, counts, strict=True)}


def _of_model(counts: Any, sigma: float) -> dict[str, Any]:
    n = counts.sum(1).clip(0)
    try:
        estimate, ci, bound = class_histogram.noised_auc(counts, sigma)
        auc: dict[str, Any] = {"estimate": estimate, "ci": list(ci), "bound": bound}
    except Undefined as problem:
        auc = {"undefined": str(problem)}
    withheld = {key: {"withheld": NOT_NOISED} for key in UNAVAILABLE}
    return {"n": int(n.sum()), "events": int(n[1]), "auc": auc, **withheld}
