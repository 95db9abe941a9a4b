"""Cohorts: on which patients a study's models are validated, and which of these cohorts a site validates by itself."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cohortium.common.study import Study
from cohortium.common.study_data import level_text
from cohortium.server.stages.fitted import FittedModel
from cohortium.strategies.cohort_figures import CohortSpec, ScoredModel, study_settings

LEFT_OUT = "leave_one_site_out"
"""The cohort of training patients whose scores come from models that have not seen their site."""


def cohorts(study: Study, models: tuple[ScoredModel, ...]) -> dict[str, CohortSpec]:
    """Which cohorts a study is validated on, by their names in results.json; models are refitted in external ones."""
    scored = tuple(replace(model, refit=None) for model in models)
    base = CohortSpec(
        part="train",
        of="final",
        models=scored,
        compare=study.validation.compare,
        survival=study.validation.survival,
        settings=study_settings(study),
    )
    development = {**base.settings, "cohort": "development"}
    found = {"train": replace(base, settings=development)}
    if study.split.folds:
        found["cross_validated"] = replace(
            base, of="out_of_fold", settings={**base.settings, "folds": study.split.folds}
        )
    if study.validation.leave_one_site_out:
        between = replace(base, heterogeneity=study.privacy.minimum_sites, tau2=study.validation.tau2)
        found[LEFT_OUT] = replace(between, of="left_out_site")
    for part in ("internal", "external"):
        if study.sites_of(part):
            found[part] = replace(base, part=part, models=models if part == "external" else scored)
    subsets: dict[str, CohortSpec] = {}
    for name, whole in found.items():
        spec = replace(whole, heterogeneity=0, models=scored)
        for variable in study.validation.subgroups:
            for index, level in enumerate(study.variables[variable].levels):
                key = f"{name}/subgroup:{variable}={level_text(level)}"
                subsets[key] = replace(spec, where=(variable, float(index)), compare=())
        for analysis in study.validation.analysis:
            subsets |= _analysis(study, name, spec, analysis)
    return found | subsets


def is_refitted(study: Study, name: str) -> bool:
    """Whether the closed test of updating refits a model in the external part; a LASSO's chosen columns unpenalised."""
    kinds = study.model[name].kind in ("logistic", "lasso") and study.endpoint_of(name).kind == "binary"
    return kinds and study.validation.updating == "refit"


def _analysis(study: Study, name: str, spec: CohortSpec, analysis: Any) -> dict[str, CohortSpec]:
    """A secondary question: one model against another endpoint, in the patients of one level at most."""
    where, label = None, ""
    for variable, level in list(analysis.where.items())[:1]:
        where = (variable, float(study.variables[variable].level_index[level_text(level)]))
        label = f",{variable}={level_text(level)}"
    asked = tuple(
        replace(
            model,
            endpoint=analysis.endpoint,
            outcome=study.endpoint[analysis.endpoint].kind,
            # of its own endpoint alone, at that one's horizons
            baseline_survival=model.baseline_survival if model.endpoint == analysis.endpoint else (),
            baseline_curve=model.baseline_curve if model.endpoint == analysis.endpoint else (),
        )
        for model in spec.models
        if model.name == analysis.model
    )
    key = f"{name}/analysis:{analysis.model}->{analysis.endpoint}{label}"
    return {key: replace(spec, models=asked, where=where, compare=(), survival=None)}


def with_scores(
    study: Study, specs: Mapping[str, CohortSpec], fitted: Mapping[str, FittedModel]
) -> tuple[dict[str, CohortSpec], dict[str, dict[str, Any]]]:
    """Cohorts with the models that have scores of them; and those that have not, with the reason, by cohort."""
    kept: dict[str, CohortSpec] = {}
    withheld: dict[str, dict[str, Any]] = {}
    for name, spec in specs.items():
        whys = {model.name: _unscored(study, fitted[model.name], spec) for model in spec.models}
        withheld[name] = {model: {"withheld": why} for model, why in whys.items() if why}
        if models := tuple(model for model in spec.models if model.name not in withheld[name]):
            kept[name] = replace(spec, models=models)
    return kept, {name: models for name, models in withheld.items() if models}


def _unscored(study: Study, model: FittedModel, spec: CohortSpec) -> str | None:
    unfitted = model.unfitted.get(spec.without)
    return unfitted.why if unfitted else model.unscored(study, spec.of)


def finished_at(study: Study, specs: Mapping[str, CohortSpec], site: str) -> dict[str, CohortSpec]:
    """The cohorts that a site validates by itself, by their names in results.json.

    Those that too few sites hold for a sum; and with ``by_site`` its own patients of each cohort that enough hold.
    """
    found: dict[str, CohortSpec] = {}
    for name, spec in specs.items():
        holders = study.sites_of(spec.part)
        if site not in holders:
            continue
        if not study.hides_its_sites(spec.part):
            known_as = name if len(holders) == 1 else _at_site(name, spec.part, site)
            found[known_as] = spec
        elif study.validation.by_site and "/" not in name:
            found[f"{name}/site:{site}"] = replace(spec, heterogeneity=0)
    return found


def _at_site(cohort: str, part: str, site: str) -> str:
    return f"{part}/site:{site}{cohort.removeprefix(part)}"
