"""Report: one self-contained page of a run, for clinicians, reviewers and data-protection officers.

Everything on it comes from OUT/results.json, OUT/study.toml and the coordinator's log of sums; nothing is computed
anew but the way numbers are written. The page loads nothing and runs nothing, so it can be mailed and archived.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cohortium.common.errors import CohortiumError
from cohortium.server.report import curves
from cohortium.server.report.between_sites import between_sites
from cohortium.server.report.canvas import COHORT_STYLES, Picture
from cohortium.server.report.checklist import checklist
from cohortium.server.report.coefficients import coefficients_forest, coefficients_grid, kept_terms, term_label
from cohortium.server.report.contrasts import (
    comparisons_grid,
    improvements_grid,
    interactions_grid,
    refit_grid,
    updating_grid,
)
from cohortium.server.report.cutoff_note import cutoff_note
from cohortium.server.report.estimands import imputation_note, left_out_note, model_notes, selection_note, study_notes
from cohortium.server.report.explanations import importance_grid, nomogram
from cohortium.server.report.forest import forest
from cohortium.server.report.grid import Grid
from cohortium.server.report.inference import hazards_grid, heterogeneity_grid, inference_notes, variable_grid
from cohortium.server.report.leaving import (
    contributors_grid,
    held_by_grid,
    kind_label,
    missing_figures,
    read_sums,
    released_line,
    statistics_grid,
    traffic_grid,
)
from cohortium.server.report.measures import (
    confusion_matrices,
    cutoff_grid,
    cutoff_sentence,
    look_up,
    measures_grid,
    parts_grid,
    whole_cohorts,
)
from cohortium.server.report.penalised import average_note, beside_exact, reported_kind
from cohortium.server.report.population import flow, site_bars, table_one
from cohortium.server.report.resampling import resampling_grids
from cohortium.server.report.survival_curves import at_last_horizon, kaplan_meier
from cohortium.server.report.text import absent, cohort_label, count, p_value, with_interval, words

Record = Mapping[str, Any]
FORMAT = "cohortium-results/1"


def build_report(run_dir: Path) -> Path:
    """Write OUT/report.html from what a run left in its folder.

    Parameters
    ----------
    run_dir : Path
        A run's folder: results.json is needed; study.toml and run/sums.jsonl are used where they are.

    Returns
    -------
    Path of the page

    Raises
    ------
    CohortiumError
        There is no results.json, or it is of another format.
    """
    path = run_dir / "results.json"
    if not path.is_file():
        raise CohortiumError(f"{run_dir}: results.json is missing; give the folder of a finished run")
    results = json.loads(path.read_text(encoding="utf-8"))
    if results.get("format") != FORMAT:
        raise CohortiumError(f"{path}: format is {results.get('format')!r}, this version reads {FORMAT!r}")
    study_path = run_dir / "study.toml"
    study = tomllib.loads(study_path.read_text(encoding="utf-8")) if study_path.is_file() else {}
    page = run_dir / "report.html"
    page.write_text(render(results, study, read_sums(run_dir)), encoding="utf-8")
    return page


def render(results: Record, study: Record, sums: list[dict[str, Any]]) -> str:
    """Lay out the page; pure, the same input gives the same text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # The package is found by its own name, not by a path, so that the page is built the same from a wheel.
    loader = PackageLoader("cohortium.server.report", package_path="")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = count
    models = results.get("models") or {}
    pages = [_model(name, model, study) for name, model in models.items()]
    headline = _headline(models)
    patients = table_one(results.get("table_one") or [], "Table 1. Patients by outcome and cohort.")
    note = _privacy_note(results)
    for page in pages if note else ():
        page["forest"] = None  # without intervals it would be dots that look certain
    for grid in (headline, patients, *(page[key] for page in pages for key in ("coefficients", "measures"))):
        if note and grid:
            grid.caption += f" Differential privacy: {note}."
    cohort_names = {name.partition("/")[0] for model in models.values() for name in model.get("cohorts") or {}}
    return environment.get_template("report.html").render(
        title=(study.get("study") or {}).get("title") or words(results["study"]["name"]),
        results=results,
        study=study,
        flow=flow(results),
        site_bars=site_bars(results),
        privacy_note=note,
        table_one=patients,
        headline=headline,
        side_by_side=_side_by_side(models, study),
        contrasts=_contrasts(results),
        models=pages,
        notes=study_notes(study, cohort_names),
        traffic=traffic_grid(results, sums),
        statistics=statistics_grid(sums),
        contributors=contributors_grid(results),
        released=released_line(results),
        numbers_released=sum(line.get("numbers", 0) for line in sums),
        held_by=held_by_grid(results),
        missing=missing_figures(results),
        checklist=checklist(results, study),
        variables=study.get("variable") or [],
        endpoints=study.get("endpoint") or {},
        words=words,
    )


def _privacy_note(results: Record) -> str:
    """Epsilon and delta of a study under differential privacy; empty for any other."""
    privacy = results.get("privacy")
    return f"epsilon = {privacy['epsilon']:g}, delta = {privacy['delta']:g}" if privacy else ""


def _headline(models: Record) -> Grid | None:
    """The first table a reader sees: one figure of discrimination a model and cohort."""
    cohorts = whole_cohorts({name: None for model in models.values() for name in model.get("cohorts") or {}})
    if not cohorts:
        return None
    rows = {
        name: [_discrimination((model.get("cohorts") or {}).get(cohort)) for cohort in cohorts]
        for name, model in models.items()
    }
    records = [record for model in models.values() for record in (model.get("cohorts") or {}).values()]
    numbers = any(isinstance(look_up(record, "r_squared"), float) for record in records)
    grid = Grid(
        "Discrimination of each model: area under the curve for a binary endpoint, C-index for a survival one "
        f"(95% confidence interval){', explained variance (R²) for a continuous one' * numbers}.",
        ["Model", *map(cohort_label, cohorts)],
    )
    for name, figures in rows.items():
        grid.row(words(name), [grid.cell(figure, with_interval) for figure in figures])
    return grid


def _discrimination(record: Any) -> Any:
    auc = look_up(record, "auc")
    figure = auc if auc is not None else look_up(record, "survival.c_index")
    return figure if figure is not None else look_up(record, "r_squared")


def _side_by_side(models: Record, study: Record) -> dict[str, list[Picture]]:
    """All models in one cohort: a panel a cohort of ROC and of decision curves."""
    look = curves.styles([words(name) for name in models])
    cohorts = whole_cohorts({name: None for model in models.values() for name in model.get("cohorts") or {}})
    roc, decision = [], []
    endpoints = {words(name): model.get("endpoint") or "" for name, model in models.items()}
    for cohort in cohorts:
        records = {words(name): (model.get("cohorts") or {}).get(cohort) for name, model in models.items()}
        records = {name: record for name, record in records.items() if record and not absent(record)}
        label = cohort_label(cohort)
        if len(models) > 1:
            roc.append(curves.roc(records, look, caption=f"{label}: receiver operating characteristic of each model."))
        decision.append(curves.decision(records, look, caption=f"{label}: net benefit of acting on each model."))
        horizon, at = at_last_horizon(records, "decision_curve_at", "decision_curve")
        unit = _time_unit(study, endpoints.get(next(iter(at), ""), ""))
        caption = f"{label}: net benefit of acting on each model's risk up to {horizon} {unit}."
        decision.append(curves.decision(at, look, caption=caption))
    return {"roc": [p for p in roc if p], "decision": [p for p in decision if p]}


def _contrasts(results: Record) -> list[Grid]:
    """Tables of models against models, and of subgroups against each other."""
    compared = results.get("comparisons") or []
    grids = (
        comparisons_grid(compared),
        improvements_grid(compared),
        interactions_grid(results.get("interactions") or ()),
    )
    return [grid for grid in grids if grid]


def _model(name: str, model: Record, study: Record) -> dict[str, Any]:
    """Everything the page says of one model."""
    cohorts = model.get("cohorts") or {}
    declared = (study.get("model") or {}).get(name, {})
    endpoint = model.get("endpoint") or declared.get("endpoint") or (study.get("study") or {}).get("primary", "")
    kind = reported_kind(model.get("kind", ""), (study.get("endpoint") or {}).get(endpoint, {}).get("kind", ""))
    found = model.get("notes") or {}
    coefficients = beside_exact(model.get("coefficients") or [], found)
    sites = len((study.get("split") or {}).get("train", ()))
    label = words(name)
    read = "" if kind in ("linear", "lasso_linear") else ", then read the risk"
    present = {c: cohorts[c] for c in whole_cohorts(cohorts) if not absent(cohorts[c])}
    by_label = {cohort_label(cohort): record for cohort, record in present.items()}
    look = {cohort_label(cohort): COHORT_STYLES.get(cohort, COHORT_STYLES["train"]) for cohort in present}
    pictures = [
        curves.roc(by_label, look, caption=f"Model {label}: receiver operating characteristic, by cohort."),
        curves.calibration(by_label, look, caption=f"Model {label}: observed against predicted risk."),
    ]
    unit = _time_unit(study, endpoint)
    explanation = model.get("explanation") or {}
    horizon, risks = at_last_horizon(by_label, "calibration_at", "calibration")
    caption = f"Model {label}: observed (Kaplan-Meier) against predicted risk at {horizon} {unit}."
    pictures.append(curves.calibration(risks, look, caption=caption))
    return {
        "name": name,
        "label": label,
        "kind": kind_label(kind),
        "endpoint": words(endpoint) + _in_unit(study, endpoint),
        "predictors": [term_label(p) if "/" in p or p.startswith("model.") else words(p.removeprefix("features."))
                       for p in declared.get("predictors") or ()],
        "kept": kept_terms(model.get("selected") or ()),
        "notes": model_notes(kind, declared, study) + average_note(found, sites)
        + inference_notes(found) + selection_note(found)
        + imputation_note(found)
        + left_out_note(found)
        + cutoff_note(model.get("cutoff_test"), cross_validated="cross_validated" in cohorts),
        "coefficients": coefficients_grid(coefficients, kind, f"Model {label}: coefficients, in the study's units."),
        "inference": [grid for grid in (
            variable_grid(found, f"Model {label}: each variable as a whole."),
            heterogeneity_grid(found, f"Model {label}: how far the sites' coefficients differ."),
            hazards_grid(found, f"Model {label}: are hazards proportional?"),
        ) if grid],
        "forest": coefficients_forest(coefficients, kind, f"Model {label}: effects with 95% confidence intervals."),
        "measures": measures_grid(cohorts, f"Model {label}: performance by cohort.", unit) if cohorts else None,
        "pictures": [p for p in pictures if p],
        "kaplan_meier": _kaplan_meier(label, present, unit),
        "cutoff": cutoff_grid(cohorts, f"Model {label}: at its cut-off."),
        "cutoff_sentence": cutoff_sentence(cohorts),
        "importance": importance_grid(explanation, f"Model {label}: what each variable adds."),
        "nomogram": nomogram(explanation, caption=f"Model {label}: add up points{read}."),
        "resampling": resampling_grids(model, label),
        "updating": updating_grid(cohorts, f"Model {label}: would recalibration help? (closed test)"),
        "refit": refit_grid(cohorts, f"Model {label}: coefficients refitted on external patients."),
        "matrices": confusion_matrices(cohorts),
        "between_sites": between_sites(cohorts, label),
        **_parts(label, cohorts),
    }  # fmt: skip


def _in_unit(study: Record, endpoint: str) -> str:
    """Unit of an endpoint that is a number, in brackets."""
    declared = (study.get("endpoint") or {}).get(endpoint, {})
    return f" ({declared['unit']})" if declared.get("kind") == "continuous" and declared.get("unit") else ""


def _time_unit(study: Record, endpoint: str) -> str:
    """Unit of the survival endpoint that a model is looked at with: its own, or the validation's."""
    endpoints = study.get("endpoint") or {}
    for name in (endpoint, (study.get("validation") or {}).get("survival"), *endpoints):
        if name and (endpoints.get(name) or {}).get("kind") == "survival":
            return endpoints[name].get("unit", "days")
    return "days"


def _kaplan_meier(label: str, cohorts: Record, unit: str) -> list[Picture]:
    pictures = []
    for cohort, record in cohorts.items():
        groups = look_up(record, "survival.kaplan_meier")
        if not groups or absent(groups):
            continue
        ratio, log_rank = look_up(record, "survival.hazard_ratio"), look_up(record, "survival.log_rank")
        said = []
        if ratio and not absent(ratio):
            said.append(f"HR {with_interval(ratio, 2)}")
        if log_rank and not absent(log_rank):
            said.append(f"log-rank p {p_value(log_rank['p'])}")
        caption = f"Model {label}, {cohort_label(cohort).lower()}: survival by risk group, with 95% bands."
        caption += " Numbers at risk are those before the group's next event."
        pictures.append(kaplan_meier(groups, unit=unit, subtitle="; ".join(said), caption=caption))
        competing = look_up(record, "survival.competing_risks.cumulative_incidence")
        if isinstance(competing, Mapping) and not absent(competing):
            gray = look_up(record, "survival.competing_risks.gray")
            subtitle = "" if absent(gray) else f"Gray's test p {p_value(gray['p'])}"
            caption = f"Model {label}, {cohort_label(cohort).lower()}: cumulative incidence of the event by risk group."
            caption += " Where a competing event came first, the event does not happen (Aalen-Johansen)."
            drawn = kaplan_meier(competing, unit=unit, subtitle=subtitle, caption=caption, what="incidence")
            pictures.append(drawn)
    return [p for p in pictures if p]


def _parts(label: str, cohorts: Record) -> dict[str, Any]:
    made = parts_grid(cohorts, f"Model {label}: by site and subgroup.")
    if made is None:
        return {"parts": None, "parts_forest": None}
    grid, lines = made
    drawn, x_label = (lines["auc"], "AUC") if lines["auc"] else (lines["survival.c_index"], "C-index")
    picture = forest(
        drawn, x_label=x_label, caption=f"Model {label}: {x_label} by site and subgroup; 0.5 is chance.", no_effect=0.5
    )
    return {"parts": grid, "parts_forest": picture}
