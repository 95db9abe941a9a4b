"""Validate: every model on every cohort: cut-offs from the training part, then all cohorts side by side.

A cohort that at least minimum_sites hold is validated over sums; one that fewer hold is validated at its site, which
sends finished figures only (secure-sum.md, last section).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cohortium.common.errors import Undefined
from cohortium.common.study import Study
from cohortium.server.federation import StudyFederation
from cohortium.server.site_calls import SiteCalls
from cohortium.server.stages.cohorts import cohorts, finished_at, is_refitted, with_scores
from cohortium.server.stages.explain import explain
from cohortium.server.stages.fitted import Fit, FittedModel
from cohortium.server.stages.resampled import resampled_cohorts, resampled_figures
from cohortium.strategies import cutoff, max_log_rank, validation
from cohortium.strategies.cohort_figures import CohortSpec, ScoredModel, cohort_figures, time_step
from cohortium.strategies.time_dependent import evaluation_cells


@dataclass
class Validated:
    """Figures as results.json holds them."""

    cohorts: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # cohort -> model -> figures
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    cutoffs: dict[str, float] = field(default_factory=dict)
    cutoff_tests: dict[str, dict[str, Any]] = field(default_factory=dict)  # model -> test that chose its cut-off
    held_by: dict[str, tuple[str, ...]] = field(default_factory=dict)  # cohort -> sites
    table_one: list[dict[str, Any]] = field(default_factory=list)  # of the parts that single sites hold
    explanations: dict[str, dict[str, Any]] = field(default_factory=dict)  # of each model, where asked for
    resampled: dict[str, dict[str, Any]] = field(default_factory=dict)  # of each model: repeated, optimism


def validate(federation: StudyFederation, calls: SiteCalls, fitted: Mapping[str, FittedModel]) -> Validated:
    """All figures of all models on all cohorts."""
    study = federation.study
    with federation.progress.stage("choose cut-offs"):
        models, tests = _with_cutoffs(federation, scored_models(study, fitted), fitted)
    cutoffs = {model.name: model.cutoff for model in models if model.cutoff is not None}
    result = Validated(cutoffs=cutoffs, cutoff_tests=tests)
    specs, missing = with_scores(study, cohorts(study, models), fitted)
    shared = {name: spec for name, spec in specs.items() if study.hides_its_sites(spec.part)}
    alone = {site: mine for site in study.sites if (mine := finished_at(study, specs, site))}
    drawn = resampled_cohorts(study, models)
    again, unmade = with_scores(study, drawn, fitted)
    with federation.progress.stage("validate", total=len(shared) + len(again) + sum(map(len, alone.values()))) as step:

        def run(spec: CohortSpec) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
            found = cohort_figures(federation.rows, spec)
            step.advance()
            return found

        every = {**shared, **again}
        answers = federation.together([lambda spec=spec: run(spec) for spec in every.values()])
        found = dict(zip(every, answers, strict=True))
        for name, spec in shared.items():
            _add(result, name, study.sites_of(spec.part), *found[name])
        for site, mine in alone.items():
            _ask_site(result, study, calls, site, mine)
            step.advance(len(mine))
    _withhold(result, study, missing)
    more = {name: {**(found[name][0] if name in again else {}), **unmade.get(name, {})} for name in drawn}
    result.resampled = resampled_figures(study, result.cohorts, more)
    result.explanations = explain(federation, fitted)
    return result


def _ask_site(result: Validated, study: Study, calls: SiteCalls, site: str, specs: Mapping[str, CohortSpec]) -> None:
    """Add the finished figures of the cohorts that a site validates by itself, and its Table 1 of them."""
    unshared = {spec.part for spec in specs.values() if not study.hides_its_sites(spec.part)}
    asked = {name: spec.plain() for name, spec in specs.items()}
    answered = calls.figures(site, {"cohorts": asked, "table_one": sorted(unshared)})["figures"]
    for entry in answered["table_one"]:
        held = study.sites_of(entry["cohort"])
        result.table_one.append(entry if len(held) == 1 else {**entry, "cohort": f"{entry['cohort']}/site:{site}"})
    for name in specs:
        _add(result, name, (site,), *answered["cohorts"][name])


def _withhold(result: Validated, study: Study, missing: Mapping[str, Mapping[str, Any]]) -> None:
    """Say of models without scores of the training patients why there are no figures, at single sites neither."""
    sites = study.sites_of("train")
    for name, withheld in missing.items():
        of_sites = [f"{name}/site:{site}" for site in sites if study.validation.by_site and "/" not in name]
        for cohort in (name, *of_sites):
            result.cohorts.setdefault(cohort, {}).update(withheld)
            result.held_by.setdefault(cohort, (cohort.rpartition(":")[2],) if cohort in of_sites else sites)


def _add(
    result: Validated,
    cohort: str,
    sites: tuple[str, ...],
    figures: Mapping[str, dict[str, Any]],
    comparisons: list[dict[str, Any]],
) -> None:
    result.cohorts[cohort] = dict(figures)
    result.held_by[cohort] = sites
    result.comparisons += [{"cohort": cohort, **entry} for entry in comparisons]


def scored_models(study: Study, fitted: Mapping[str, FittedModel]) -> tuple[ScoredModel, ...]:
    """The study's models as published, without cut-offs yet."""
    return tuple(
        ScoredModel(
            name=name,
            digest=fitted[name].digest,
            endpoint=study.model[name].endpoint,
            outcome=study.endpoint_of(name).kind,
            cutoff=None,
            log_hazard=study.endpoint_of(name).kind == "survival",
            refit=_own_columns(fitted[name].final) if is_refitted(study, name) else None,
            **_baseline(study, name, fitted[name]),
        )
        for name in study.model
    )


def _own_columns(fit: Fit) -> dict[str, Any]:
    """Names, coefficients and recipe of a fit, without arrays: what is asked of single sites is plain data."""
    recipe = {key: np.asarray(fit.published[key]).tolist() for key in ("centre", "scale", "fill")}
    blocks = [
        {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in block.items()}
        for block in fit.published["blocks"]
    ]
    coefficients = np.asarray(fit.published["coefficients"]).tolist()
    return {"names": list(fit.columns.names), "coefficients": coefficients, "recipe": {"blocks": blocks, **recipe}}


def _baseline(study: Study, name: str, model: FittedModel) -> dict[str, tuple[float, ...]]:
    """Survival of a patient with score 0, at the horizons and at the times that a Brier score is integrated over.

    Empty where the model has no common baseline.
    """
    baseline, endpoint = model.final.notes.get("baseline"), study.endpoint_of(name)
    if baseline is None or endpoint.kind != "survival":
        return {}
    hazard = np.concatenate([[0.0], baseline["cumulative_hazard"]])
    step = time_step(study, study.model[name].endpoint)
    evaluated = evaluation_cells(endpoint.horizon, step) * step * (1 + 1e-12)  # 3 x 0.1 is 0.3

    def survival(times: Any) -> tuple[float, ...]:
        return tuple(np.exp(-hazard[np.searchsorted(baseline["time"], times, side="right")]).tolist())

    return {"baseline_survival": survival(endpoint.horizon), "baseline_curve": survival(evaluated)}


def _with_cutoffs(
    federation: StudyFederation, models: tuple[ScoredModel, ...], fitted: Mapping[str, FittedModel]
) -> tuple[tuple[ScoredModel, ...], dict[str, dict[str, Any]]]:
    """Cut-offs chosen on train, from out-of-fold scores where there is cross-validation; and the tests that chose.

    None of a model that lacks such scores, unless the study gives the number itself.
    """
    study = federation.study
    of = "out_of_fold" if study.split.folds else "final"
    groups: dict[tuple[str, str], list[ScoredModel]] = {}
    tests: dict[str, dict[str, Any]] = {}
    for model in models:
        chooses = isinstance(study.validation.cutoff, str) and fitted[model.name].unscored(study, of)
        if model.outcome != "continuous" and not chooses:  # a predicted number calls nobody positive
            groups.setdefault((model.outcome, model.endpoint), []).append(model)

    def choose(outcome: str, endpoint: str, group: list[ScoredModel]) -> dict[str, float]:
        rule: Any = study.validation.cutoff
        view = {
            "kind": "scored" if outcome == "binary" else "scored_survival",
            "rows": {"part": "train", "endpoint": endpoint},
            "endpoint": endpoint,
            "of": of,
            "models": [model.digest for model in group],
        }
        names = [model.name for model in group]
        try:
            if outcome == "binary":
                rows = federation.rows(view)
                rule = "youden" if rule == "log_rank" else rule  # a log-rank test needs times
                return validation.choose_cutoffs(rows, names, rule, study.privacy.score_resolution)
            step = time_step(study, endpoint)
            rows = federation.rows(view | {"time_step": step})
            if rule == "log_rank":
                resolution = study.privacy.score_resolution
                found = max_log_rank.choose(rows, len(names), resolution=resolution, time_step=step)
                tests.update({name: _test(choice) for name, choice in zip(names, found, strict=True)})
                return {n: c.cutoff for n, c in zip(names, found, strict=True) if isinstance(c, max_log_rank.Choice)}
            if isinstance(rule, str):  # youden's index needs a binary outcome
                return dict(zip(names, cutoff.median(rows, len(names), scale="linear").tolist(), strict=True))
            return dict.fromkeys(names, float(rule))
        except Undefined:
            return {}  # the figures at a cut-off say that there is none

    chosen = federation.together([lambda key=key, group=group: choose(*key, group) for key, group in groups.items()])
    cutoffs = {name: value for found in chosen for name, value in found.items()}
    return tuple(replace(model, cutoff=cutoffs.get(model.name)) for model in models), tests


def _test(choice: max_log_rank.Choice | Undefined) -> dict[str, Any]:
    """The test that chose a cut-off, as in results.json."""
    if isinstance(choice, Undefined):
        return {"undefined": str(choice)}
    names = ("cutoff", "chi2", "p", "p_corrected", "candidates")
    return {"rule": "log_rank", **{name: getattr(choice, name) for name in names}}
